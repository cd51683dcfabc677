"""Frozen features of a backbone, and what is measured on them.

- `extract.py`: the features of whole scans, kept in a cache
- `preprocessing.py`: a file as a backbone is to see it, by the card beside its weights
- `batch_norm.py`: BatchNorm statistics for an untrained network, taken from whole scans
- `auroc.py`: AUROC in numpy, of one class, of several, and under many weightings
- `fixed_views.py`: one fixed set of views, the same for every backbone
- `labelfree.py`: measures without labels: ranks, spectra and distances
- `panel.py`: `scanlearn panel`: these measures of a backbone, as a table
- `tokens.py`: class token, patches and their mean, as other embeddings
- `neighbours.py`: a map of embeddings, and the nearest scans of other patients
- `embed.py`: `scanlearn embed`: embeddings as a table, with a page to look at them
"""

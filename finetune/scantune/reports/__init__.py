"""The report of a study, from its results alone.

- `plots.py`: the report's drawings
- `panels.py`: drawings of the whole study, such as AUROC over the scale
- `label_free.py`: measures without labels against AUROC
- `writeup.py`: the verdict in plain words, a methods paragraph and checklists
- `report.py`: ``report.html``
"""

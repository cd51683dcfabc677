"""The report of a study, from its results alone.

- `plots.py`: the report's drawings
- `panels.py`: drawings of the whole study, such as AUROC over the scale
- `label_free.py`: measures without labels against AUROC
- `writeup.py`: the verdict in plain words, a methods paragraph and checklists
- `selection.py`: what of a study its page shows, and in which order
- `drawings.py`: the plots of its page
- `page_tables.py`: the tables of its page
- `report.py`: ``report.html``
"""

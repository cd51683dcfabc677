"""Label tables made into labeled sets: which scan is of which class, and whose it is.

- `table.py`: the columns of a label table, and its cells as they were written
- `truth.py`: labels of scans and classes as one matrix
- `classes.py`: what the values of label columns mean: classes, grades or findings
- `labeled_set.py`: the scans with a usable label for one target, and which can be scored
- `external.py`: an external test set: read, checked for shared patients, joined
- `open.py`: opens both from a folder, a table or an archive, and prints what they hold
"""

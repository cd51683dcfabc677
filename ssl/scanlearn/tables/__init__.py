"""Which scans there are, and what a table says of them.

- `settings.py`: `TableSettings`, how a table of scans is read
- `manifest.py`: the list of scans, from a folder, a container or a table
- `listing.py`: the scans in a folder, a zip or a tar
- `labels.py`: which columns of a table are labels, and what they say of each scan
- `reading.py`: CSV, Excel and Parquet tables as strings
- `locate.py`: which file each path of a table means
- `identifying.py`: which columns of a table may identify a person
- `merge.py`: several rows of one scan made one
- `join.py`: a table of labels joined to an archive by study, accession, instance or patient
"""

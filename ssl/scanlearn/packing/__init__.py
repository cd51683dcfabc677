"""A folder or table of scans becomes an archive.

- `settings.py`: `PackSettings`, how scans are packed
- `sources.py`: `open_archive`, which takes a folder, a table or the phantom for an archive
- `filters.py`: patterns on DICOM tags and columns that keep or drop files
- `headers.py`: the header scan, read before anything is decoded
- `listed.py`: `list_scans`, the scans of a source as they would be packed, by headers alone
- `dry_run.py`: a table of what a source holds, from headers alone
- `canvas.py`: from a decoded scan to the canvas
- `windows.py`: CT windows in Hounsfield units
- `fundus.py`: the field of view of fundus photographs
- `chest_wall.py`: mammograms brought to face one way
- `prepare.py`: what a worker does to one file
- `parallel.py`: the processes that work through files in order
- `pack.py`: `pack`, from a source to an archive
- `array.py`: `pack` in parts, by tasks of a cluster
- `add.py`: new files for an archive that is there
"""

"""Packed scans on disk: written once, read through memory maps, changed in single steps.

- `layout.py`: what an archive is on disk: its files, ``archive.json``, a packed scan, its origin
- `identity.py`: keyed hashes by which an archive knows patients, series and files
- `spellings.py`: patients whose numbers agree but for how they are written
- `shards.py`: the Arrow files, written scan by scan
- `lists.py`: the CSV files: what was rejected, and which file a scan is from
- `table.py`: the Parquet table of all scans, and their mean, std and content hash
- `writer.py`: a whole archive, which appears when it is complete and can be resumed until then
- `reader.py`: an archive opened for reading, a batch at a time
- `count.py`: how many scans of how many patients, in words, and which patients are unknown
- `verify.py`: `scanlearn verify`: every byte is read again and compared with what was written
- `changes.py`: one process at a time changes an archive, in one step
- `withdraw.py`: `scanlearn withdraw`: scans of a patient are removed
- `sheets.py`: scans as pictures, and sheets of many in a grid
- `summary.py`: `scanlearn summary`: what an archive holds, on one page
"""

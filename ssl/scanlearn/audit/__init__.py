"""Leaks and duplicates between sets of scans.

- `audit.py`: `scanlearn audit`: all sets compared, by patients, equal pixels and near-duplicates
- `fingerprint.py`: a hash of the pixels and the lowest frequencies of each scan
- `pairs.py`: pairs of copies: proposed by an index over fingerprints, decided by pixels
- `result.py`: what is compared and found: sets of scans, pairs, counts and the verdict
- `sheet.py`: the pairs side by side, for a person to judge
"""

"""Leaks and duplicates between sets of scans.

- `audit.py`: `scanlearn audit`: its settings, and what it prints and writes
- `leaks.py`: all sets compared, by patients, equal pixels and near-duplicates
- `fingerprint.py`: a hash of the pixels and the lowest frequencies of each scan
- `proposals.py`: pairs that may be copies: an index over what sets scans apart
- `kept.py`: what an audit computed, kept in the cache for the next
- `pairs.py`: pairs that are copies: equal hashes, or alike by their pixels
- `result.py`: what is compared and found: sets of scans, pairs, counts and the verdict
- `sheet.py`: the pairs side by side, for a person to judge
"""

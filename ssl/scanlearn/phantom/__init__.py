"""Synthetic fundus scans with planted tasks, to check the instrument: no evidence about real scans.

- `phantom.py`: what to draw, one scan of it, and the whole phantom as an archive
- `tasks.py`: the planted labels, and what each changes in a picture
- `eye.py`: a patient's eyes, and what a camera records of them
- `camera.py`: makes of camera: what part of an eye they show, and how
- `vessels.py`: vessel trees that grow out of the optic disc
- `brush.py`: blur, lines of points, smooth fields, discs and spots
"""

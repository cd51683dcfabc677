"""Augmentations: one row each, by trade, and the table that lists them.

- `operation.py`: what an operation is: parameters, a draw, a change of views
- `table.py`: the operations in the order in which they are rendered
- `crop.py`: the crop box
- `geometry.py`: flips, rotation, translation, stretch, shear and elastic deformation
- `colour.py`: colour jitter and grayscale
- `tone.py`: gamma, histogram shift, blur, solarize and posterise
- `acquisition.py`: bias field, blur and noise of the device
- `fields.py`: random fields of a view: noise, bias and elastic displacement
"""

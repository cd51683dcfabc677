"""Augmentations: one row each, by trade, and the table that lists them.

- `operation.py`: what an operation is: parameters, a draw, a change of views
- `table.py`: the operations in the order in which they are rendered
- `crop.py`: the crop box
- `geometry.py`: flips, quarter turns, rotation, translation, stretch, shear and elastic deformation
- `colour.py`: stains, colour jitter and grayscale
- `tone.py`: window, gamma, histogram shift, blur, solarize and posterise
- `acquisition.py`: light, blur, resolution, noise and compression of the device
- `jpeg.py`: what is left of a picture after a JPEG file
- `fields.py`: random fields of a view: noise, light and elastic displacement
"""

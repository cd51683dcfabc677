"""The dial: from packed scans and a scale to augmented views.

- `scale.py`: `Scale`, a setting of the dial
- `published.py`: the tables of the published recipes, and a weak end for each
- `curves.py`: a parameter along the dial, and where each of its numbers is from
- `recipes.py`: `Recipe`, a table of all parameters, read at a scale
- `adjusting.py`: operations of a recipe switched off or set by hand
- `policy.py`: what a policy changes in a recipe
- `modality.py`: the policy of each kind of scan
- `of_archive.py`: the modality that an archive's DICOM tags name, and what its values allow
- `operations/`: augmentations: one row each, by trade
- `ranges.py`: what may be drawn for a view, and the draw that uniforms stand for
- `uniforms.py`: common random numbers, counted from seed, step, scan and view
- `draw.py`: `Draw`, the numbers that a batch of views is made from
- `render.py`: from packed scans and a draw to views, in batches with torch
- `fused.py`: the same on a CPU, by compiled code
- `kernel.py`: that code: every view of a scan, its planes in the cache
- `resample.py`: crop, resize, flip and blur as weighted sums along one axis
- `warp.py`: all other geometry as one grid, through which a scan is sampled once
- `settings.py`: what a draw leaves open about how it is rendered
- `extras.py`: operations of your own, done after the recipe's
- `extra_settings.py`: those that a configuration names, of torchvision, MONAI or Albumentations
- `generator.py`: `ViewGenerator`, called by training on every batch
- `transform.py`: `ViewTransform`, the same views of one image
- `ahead.py`: draws for the images to come, made for several at once
- `statistics.py`: how much the crops of two views overlap
- `explain.py`: the numbers of a recipe at a scale, as a table to read
- `preview.py`: sheets of views of real scans at several scales
"""

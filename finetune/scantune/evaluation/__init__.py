"""One backbone, measured on labeled scans.

- `settings.py`: the settings, those shared with `compare` and those of `evaluate`
- `evaluate.py`: the five phases: open, features, fit, score, write
- `backbone.py`: the backbone under test, loaded, untrained or the thumbnail, and its features
- `results.py`: what an evaluation returns, and the table in the terminal
- `outputs.py`: the files of the output folder
- `page.py`: evaluation.html
- `figures.py`: ROC, precision and recall, calibration, confusion or AUROCs, as drawings
- `worst.py`: the sheet of the most confident errors
- `classifier.py`: the fitted classifier, kept in a folder and loaded again
- `predict.py`: a kept classifier on new scans
"""

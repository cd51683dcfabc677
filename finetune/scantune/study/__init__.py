"""A study: matched arms over a scale, their scores on labeled sets, and what these show.

- `arm_settings.py`: the settings of an arm, and grids of arms
- `plan.py`: the settings of a comparison
- `folder.py`: the files of a study, and whether it may be continued
- `results.py`: what ``results.json`` holds
- `sharing.py`: which command makes which piece
- `jobs.py`: processes that one command starts
- `resolving.py`: what all runs are trained with, resolved once
- `arms.py`: one network per arm and seed
- `matching.py`: the proof that networks match
- `kept.py`: kept scores, extended to a larger plan
- `scores.py`: every network scored on every task, and kept
- `label_free.py`: measures without labels, on views that all networks share
- `leaks.py`: test patients and test scans among those learned from
- `summary.py`: table, paired differences and verdict
- `classes.py`: each class at the primary comparison, and ROC curves
- `augmented.py`: a learner at several augmentations, in the same networks
- `dose.py`: AUROC over the scale, and the best one
- `planned.py`: the smallest difference that a plan will find, in words
- `facts.py`: set-up, arms, counts and warnings for the report
- `tables.py`: the report's tables as CSV
- `run.py`: all of this in order, into ``results.json``
"""

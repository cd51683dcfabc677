"""Learners, each a row of one table: what is fitted on labeled scans.

- `table.py`: the rows, their names and the settings that each reads
- `settings.py`: ``tune``, the settings of learners, and a training with every number settled
- `learner.py`: what every learner is given and what it answers
- `by_name.py`: learners built by their names, and which one is kept
- `weighting.py`: rare classes counted for more; the rows of a linear probe
- `frozen.py`: k nearest neighbours and the linear probe
- `logistic.py`: the logistic regression of the probe, along a path of penalties
- `ncm.py`: nearest class mean
- `tuned.py`: learners that train by steps, and the SGD probe
- `trial.py`: one such training before it begins
- `network.py`: training of a network with its classifier
- `objective.py`: targets, their loss, mixup and CutMix
- `loop.py`: epochs, validation and the best one
"""

"""Numbers from out-of-fold scores: intervals, differences, metrics and curves.

- `intervals.py`: AUROC of an arm over patients and seeds, paired differences, verdicts
- `moderation.py`: variances of few draws, moderated over the cells of a study
- `dose.py`: AUROC over the scale as a curve, its best scale or that it is flat
- `probit.py`: AUROCs as normal scores
- `interaction.py`: whether a difference of arms differs between classes
- `few_patients.py`: least variances, limits of an AUROC, and too few patients to say
- `power.py`: the smallest difference that a plan will find
- `looks.py`: the level of each look at a study that grows seed by seed
- `delong.py`: DeLong's intervals and paired tests on one fixed test set
- `metrics.py`: the table of metrics, thresholds, intervals of shares
- `agreement.py`: quadratic kappa of grades
- `ranks.py`: whether one measure puts things in the order of another
- `curves.py`: ROC, precision and recall, calibration and confusion as arrays
"""

"""A comparison of augmentation scales: matched arms, their scores, and the verdict in a report.

- `plan.py`: the settings of a comparison
- `folder.py`: the files of a study, and whether it may be continued
- `results.py`: what ``results.json`` holds
- `sharing.py`: which command makes which piece
- `arms.py`: one network per arm and seed, and the proof that they match
- `kept.py`: kept scores, extended to a larger plan
- `scores.py`: every network scored on every task, and kept
- `leaks.py`: test patients and test scans among those learned from
- `summary.py`: table, paired differences and verdict
- `dose.py`: AUROC over the scale, and the best one
- `facts.py`: set-up, arms, counts and warnings for the report
- `run.py`: all of this in order, into ``results.json``
- `plots.py`: the report's drawings
- `tables.py`: the report's tables as CSV
- `report.py`: ``report.html``
- `difference_settings.py`: the settings of `difference`
- `sides.py`: outputs of `evaluate`, compared as a study's arms are
- `difference_page.py`: the page, tables and figures of that
- `difference.py`: `difference`, and what the terminal shows
- `compare.py`: `compare`, and what the terminal shows
- `search_plan.py`: the settings of a search for the scale
- `search_rules.py`: which scales a search keeps and chooses
- `search.py`: `search`, rung by rung
"""

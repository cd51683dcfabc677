"""The commands that answer which scale is better: `compare`, `search` and `difference`.

- `compare.py`: `compare`, and what the terminal shows
- `dry_run.py`: what a plan would run, cost and show
- `search_plan.py`: the settings of a search for the scale
- `search_rules.py`: which scales a search keeps and chooses
- `search_results.py`: what ``search.json`` holds
- `search.py`: `search`, rung by rung
- `difference_settings.py`: the settings of `difference`
- `sides.py`: outputs of `evaluate`, compared as a study's arms are
- `difference_page.py`: the page, tables and figures of that
- `difference.py`: `difference`, and what the terminal shows
"""

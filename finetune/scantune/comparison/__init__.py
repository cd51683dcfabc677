"""The commands that answer which scale is better: `compare`, `search` and `difference`.

- `compare.py`: `compare`, and what the terminal shows
- `launch.py`: a study as tasks of a cluster
- `dry_run.py`: what a plan would run, cost and show
- `search_plan.py`: the settings of a search for the scale
- `search_networks.py`: its networks: trained to a rung, measured without labels, scored
- `search_rules.py`: which scales a search keeps and chooses, and the curve over them
- `search_results.py`: what ``search.json`` holds, in words too
- `search_page.py`: the page of a search
- `search.py`: `search`: rungs, probes, choice and confirmation
- `difference_settings.py`: the settings of `difference`
- `sides.py`: outputs of `evaluate`, compared as a study's arms are
- `difference_page.py`: the page, tables and figures of that
- `difference.py`: `difference`, and what the terminal shows
"""

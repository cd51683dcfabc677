"""What all pages share: how they draw, and what they call things.

- `svg.py`: drawings as inline SVG: axes, lines, dots, text
- `wording.py`: names of learners and label budgets for people
"""

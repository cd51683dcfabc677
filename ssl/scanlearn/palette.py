"""The colours of all pages, plots and image sheets.

Pages take them as CSS variables, once for light and once for dark; sheets and files of their own
take the light ones. Hues run from calm to hot and can be told apart by colour-blind readers; they
are dark enough for text on white and light enough for text on black.
"""

from __future__ import annotations

LIGHT = {
    "--paper": "#ffffff",
    "--ink": "#1b2430",
    "--muted": "#5c6673",
    "--rule": "#dfe3e8",
    "--soft": "#f4f6f8",
    "--band": "#e9edf2",
    "--bar": "#9db8d9",
    "--mark": "#fff6d6",
    "--warn": "#8a4b00",
    "--warn-soft": "#fff3e2",
    "--ok": "#00704f",
    "--hue-0": "#1f63ae",
    "--hue-1": "#0a7f72",
    "--hue-2": "#b35900",
    "--hue-3": "#b8304a",
    "--hue-4": "#7b2d8b",
    "--hue-5": "#6b6500",
    "--ref": "#5c6673",
}
DARK = {
    "--paper": "#14181d",
    "--ink": "#e6eaef",
    "--muted": "#a3adba",
    "--rule": "#333b45",
    "--soft": "#1c2229",
    "--band": "#2a323b",
    "--bar": "#3f5f86",
    "--mark": "#3a3415",
    "--warn": "#ffc98a",
    "--warn-soft": "#34270f",
    "--ok": "#5fd3a8",
    "--hue-0": "#6fb0f5",
    "--hue-1": "#43cbb9",
    "--hue-2": "#f2a444",
    "--hue-3": "#f2788c",
    "--hue-4": "#d294e0",
    "--hue-5": "#cfc95a",
    "--ref": "#a3adba",
}
NUM_HUES = 6


def hue(index: int) -> str:
    """Returns the CSS colour of the ``index``-th of several things, in turn."""
    return f"var(--hue-{index % NUM_HUES})"

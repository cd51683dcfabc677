from __future__ import annotations

from scanlearn.palette import DARK, LIGHT, NUM_HUES, hue


def luminance(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.1, definition of relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_colour_of_text_can_be_read() -> None:
    names = [name for name in LIGHT if name.startswith(("--hue", "--ink", "--muted", "--ref"))]
    assert len(names) == NUM_HUES + 3
    for colours in (LIGHT, DARK):
        assert all(contrast(colours[name], colours["--paper"]) >= 4.5 for name in names)
        assert contrast(colours["--warn"], colours["--warn-soft"]) >= 4.5
    assert set(LIGHT) == set(DARK)


def test_hues_are_taken_in_turn() -> None:
    assert hue(0) == hue(NUM_HUES) == "var(--hue-0)"
    assert all(f"--hue-{index}" in LIGHT for index in range(NUM_HUES))

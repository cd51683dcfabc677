from __future__ import annotations

import pytest

from scanlearn import console as console_module
from scanlearn.console import say, track, warn_user


def test_say_prints_one_line_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    say("12 scans packed")
    assert capsys.readouterr() == ("12 scans packed\n", "")


def test_a_warning_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    warn_user("look at this")
    assert capsys.readouterr() == ("", "Warning: look at this\n")


def test_track_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with track(3, "packing") as progress:
        for _ in range(3):
            progress.advance(views="5/s")
    assert capsys.readouterr() == ("", "")


def test_track_shows_rate_and_figures_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = console_module.Console(force_terminal=True, record=True, width=120)
    monkeypatch.setattr(console_module, "Console", lambda **_: console)
    with track(2, "pretraining") as progress:
        progress.advance(data_wait="1.5%")
        progress.advance()
    text = console.export_text()
    assert "pretraining" in text
    assert "2/2" in text
    assert "data wait 1.5%" in text

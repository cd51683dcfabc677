from __future__ import annotations

import time
import warnings
from pathlib import Path

import pytest

from scanlearn import console as console_module
from scanlearn.console import (
    FILTERED,
    counted,
    doing,
    loading,
    quiet,
    say,
    signs_of_life,
    track,
    warn_user,
)


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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("FIRST_WORD_S", 0.1), ("NEXT_WORD_S", 0.4), ("_SHORT_S", 0.05)):
        monkeypatch.setattr(console_module, name, seconds)


def _wait_for(text: str, capsys: pytest.CaptureFixture[str]) -> str:
    said = ""
    deadline = time.monotonic() + 20
    while text not in said:
        assert time.monotonic() < deadline, said
        time.sleep(0.02)
        said += capsys.readouterr().err
    return said


@pytest.mark.usefixtures("quick")
def test_a_command_says_what_it_does_and_says_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    with signs_of_life("pack: at work"):
        with doing("looking through scans"):
            _wait_for("looking through scans ...\n", capsys)
        with track(400, "packing") as progress:
            progress.advance(100)
            said = _wait_for("packing: 100 of 400, about half a minute left\n", capsys)
            assert "looking" not in said
            progress.advance(300, views="5/s")
            _wait_for("packing: 400 of 400 ...\n", capsys)
        _wait_for("pack: at work ...\n", capsys)
    capsys.readouterr()
    time.sleep(0.5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("quick")
def test_what_says_something_itself_is_not_spoken_for(capsys: pytest.CaptureFixture[str]) -> None:
    with signs_of_life("pack: at work"), doing("packing"):
        for _ in range(20):
            say("a line")
            time.sleep(0.02)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("quick")
def test_work_that_has_a_bar_or_is_to_be_silent_is_not_spoken_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = console_module.Console(force_terminal=True, record=True, width=120)
    with signs_of_life("at work"), track(2, "inner", visible=False):
        assert "inner" not in _wait_for("at work ...\n", capsys)
    monkeypatch.setattr(console_module, "Console", lambda **_: console)
    with signs_of_life("at work"), track(2, "packing"):
        time.sleep(0.6)
    assert "packing:" not in capsys.readouterr().err


def test_a_library_is_named_before_it_is_loaded_and_only_by_a_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with loading("no_such_library"):
        assert capsys.readouterr().err == ""
    with signs_of_life("at work"), loading("no_such_library", "timm", "more"):
        assert capsys.readouterr().err == "loading no_such_library and timm ...\n"
    with signs_of_life("at work"), loading("json"):
        assert capsys.readouterr().err == ""


def test_a_warning_is_said_once_by_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with signs_of_life("at work"):
        for text in ("one", "two", "one"):
            warn_user(text)
    warn_user("one")
    assert capsys.readouterr().err == "Warning: one\nWarning: two\nWarning: one\n"


def test_noise_of_libraries_is_kept_away_by_its_text_alone() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet():
            for text in FILTERED:
                warnings.warn(f"{text}, and so on", stacklevel=1)
            warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["something else"]


def test_the_hint_about_srun_is_the_one_that_lightning_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytorch_lightning.plugins.environments import SLURMEnvironment

    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Warning, match="srun"):
            SLURMEnvironment.detect()
        with quiet():
            assert not SLURMEnvironment.detect()


class ZMQInteractiveShell:
    """What IPython calls the shell of a notebook, with what a line is published by."""

    execution_count = 7

    def __init__(self) -> None:
        self.display_pub, self.published = self, []

    def publish(self, data: dict[str, str], transient: dict[str, str], update: bool) -> None:
        self.published.append((data["text/plain"], transient["display_id"], update))


def test_a_notebook_shows_one_line_a_cell_and_clears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = ZMQInteractiveShell()
    monkeypatch.setattr("builtins.get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr(console_module, "_SHORT_S", 0.0)
    monkeypatch.setattr(console_module, "_NEXT_LINE_S", 0.0)
    monkeypatch.setattr(console_module._AT_WORK, "line", "")
    for label in ("packing", "features"):
        with track(4, label) as progress:
            progress.advance(2, loss="1.5")
    with track(4, "within other work", visible=False) as progress:
        progress.advance(2)
    texts, lines, updates = zip(*shell.published, strict=True)
    assert [text.split(",")[0] for text in texts] == [
        "packing: 2 of 4", "", "features: 2 of 4", "",
    ]  # fmt: skip
    assert "loss 1.5" in texts[0]
    assert len(set(lines)) == 1
    assert updates == (False, True, True, True)


def test_short_work_in_a_notebook_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = ZMQInteractiveShell()
    monkeypatch.setattr("builtins.get_ipython", lambda: shell, raising=False)
    with track(4, "packing") as progress:
        progress.advance(4)
    assert not shell.published


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 scans"), (1, "1 scan"), (1.0, "1 scan"), (0.5, "0.5 scans"), (1200, "1,200 scans")],
)
def test_a_number_has_its_noun(number: float, text: str) -> None:
    assert counted(number, "scan") == text

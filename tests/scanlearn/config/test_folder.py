from __future__ import annotations

from pathlib import Path

import pytest

from scanlearn.config.folder import open_folder
from scanlearn.config.loading import load_config
from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError


class Plan(Settings):
    scans: str
    others: tuple[str, ...] = ()


def test_home_paths_are_kept_short_and_go_on_with_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    plan = Plan(scans="/home/ann/scans", others=("/home/ann/a", "/data/b"))
    open_folder(tmp_path / "run", plan, kind="run")
    kept = tmp_path / "run/config.yaml"
    assert "ann" not in kept.read_text()
    assert load_config(Plan, str(kept), kind="plan").scans == "~/scans"
    open_folder(tmp_path / "run", plan, kind="run")
    # As an earlier release wrote it.
    kept.write_text("scans: /home/ann/scans\nothers: [/home/ann/a, /data/b]\n")
    open_folder(tmp_path / "run", plan, kind="run")
    with pytest.raises(ScanlearnError, match="scans was ~/scans, is ~/other"):
        open_folder(tmp_path / "run", Plan(scans="/home/ann/other"), kind="run")

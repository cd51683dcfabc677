from __future__ import annotations

import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scanlearn.archive.reader import Archive
from scanlearn.training import trainer as trainer_module
from scanlearn.training.distributed import ProcessLayout
from scanlearn.training.recorder import Recorder
from scanlearn.training.run import Run
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.trainer import build_trainer


def test_the_trainer_says_nothing_and_writes_nowhere_else(
    configure: Callable[..., PretrainConfig],
    archive: Archive,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run = Run.of(configure(), archive)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer_module.train(run)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert not [record for record in caplog.records if "lightning" in record.name]
    assert not [str(warning.message) for warning in caught]
    assert not list(elsewhere.iterdir())
    names = {path.name for path in run.folder.path.iterdir()}
    assert names == {"config.yaml", "provenance.json", "metrics.csv", "checkpoints"}
    assert [path.name for path in run.folder.checkpoint.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_an_interrupt_stays_an_interrupt(
    configure: Callable[..., PretrainConfig],
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    handler: Any,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        monkeypatch.setattr(Recorder, "stepped", stop)
        with pytest.raises(KeyboardInterrupt):
            trainer_module.train(Run.of(configure(), archive))
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_step_computes_in_the_precision_asked_for(tmp_path: Path) -> None:
    for precision, expected in (("fp32", "32-true"), ("bf16", "bf16-mixed")):
        trainer = build_trainer(
            layout=ProcessLayout(torch.device("cpu")), precision=precision, steps=1, folder=tmp_path
        )
        assert trainer.precision == expected

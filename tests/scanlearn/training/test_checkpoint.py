from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from scanlearn.errors import ScanlearnError
from scanlearn.training.checkpoint import AtomicCheckpoints, has_digest
from scanlearn.training.pretrain import pretrain
from scanlearn.training.settings import PretrainConfig

CHECKPOINT: dict[str, Any] = {
    "global_step": 7,
    "weights": torch.arange(2000.0),
    "trail": {"seconds": 1.5},
}


@pytest.mark.parametrize("is_of_before", [False, True])
def test_every_flipped_bit_is_named(tmp_path: Path, is_of_before: bool) -> None:
    path, rng = tmp_path / "last.ckpt", random.Random(0)
    AtomicCheckpoints().save_checkpoint(CHECKPOINT, path)
    if is_of_before:
        torch.save(CHECKPOINT, path)
    assert has_digest(path) != is_of_before
    whole = path.read_bytes()
    for _ in range(50):
        at, changed = rng.randrange(len(whole)), bytearray(whole)
        changed[at] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        # Some bytes of a zip file carry nothing, such as the padding before a tensor.
        refused = pytest.raises(ScanlearnError, match=str(path))
        with suppress(pytest.fail.Exception) if is_of_before else nullcontext(), refused:
            loaded = AtomicCheckpoints().load_checkpoint(path)
            assert torch.equal(loaded["weights"], CHECKPOINT["weights"])


def without(*keys: str) -> Callable[[dict[str, Any]], object]:
    return lambda saved: {key: value for key, value in saved.items() if key not in keys}


def other_network(saved: dict[str, Any]) -> object:
    return saved | {"state_dict": {name: torch.ones(3) for name in saved["state_dict"]}}


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a billion steps": lambda saved: saved | {"global_step": 10**9},
    "steps in words": lambda saved: saved | {"global_step": "many"},
    "a step below 0": lambda saved: saved | {"global_step": -1},
    "another trail": lambda saved: saved | {"scanlearn": {"nonsense": 1}},
    "no loops": lambda saved: saved | {"loops": None},
    "an empty optimiser": lambda saved: saved | {"optimizer_states": [{}]},
    "a list": lambda saved: [saved],
    "weights alone": lambda saved: saved["state_dict"],
    "another network": other_network,
    **{
        f"without {key}": without(key)
        for key in ("state_dict", "optimizer_states", "loops", "scanlearn")
    },
}


def test_checkpoint_of_something_else_is_one_sentence(
    configure: Callable[..., PretrainConfig],
    killed_at: Callable[[int], AbstractContextManager[None]],
) -> None:
    config = configure(checkpoint_steps=2, progress=False)
    file = Path(config.output) / "checkpoints" / "last.ckpt"
    with killed_at(2):
        pretrain(config)
    saved = torch.load(file, weights_only=True)
    for name, change in CHANGES.items():
        torch.save(change(saved), file)
        with pytest.raises(ScanlearnError, match="delete it to restart this run") as error:
            pretrain(config)
        assert str(file) in str(error.value), name
        assert "\n" not in str(error.value), name


def test_checkpoint_of_an_earlier_release_resumes_and_says_so_once(
    configure: Callable[..., PretrainConfig],
    killed_at: Callable[[int], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    config = configure(checkpoint_steps=2, progress=False)
    whole = pretrain(configure(output=str(tmp_path / "whole"), checkpoint_steps=2))
    with killed_at(2):
        pretrain(config)
    file = Path(config.output) / "checkpoints" / "last.ckpt"
    torch.save(torch.load(file, weights_only=True), file)
    capsys.readouterr()
    assert pretrain(config).final_hash == whole.final_hash
    assert capsys.readouterr().err.count("has no digest") == 1

from __future__ import annotations

import csv
import errno
import json
import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from scanlearn.backbones.backbone import weights_hash
from scanlearn.backbones.weights import load_backbone
from scanlearn.errors import ScanlearnError
from scanlearn.training import batches as data
from scanlearn.training.checkpoint import AtomicCheckpoints
from scanlearn.training.conditions import read_record
from scanlearn.training.export import export
from scanlearn.training.folder import RunFolder
from scanlearn.training.module import Pretrainer
from scanlearn.training.pretrain import pretrain, pretrain_until
from scanlearn.training.recorder import Recorder
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.trial import dry_run

Configure = Callable[..., PretrainConfig]


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


def steps_logged(folder: Path) -> list[int]:
    with (folder / "metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_a_run_ends_with_a_backbone_that_loads(configure: Configure) -> None:
    result = pretrain(configure())
    backbone, card = load_backbone(result.backbone)
    assert weights_hash(backbone) == result.final_hash == card.weights_hash
    assert (card.steps, card.size, card.method) == (5, 16, "simclr")
    assert card.initial_hash == result.initial_hash
    assert result.views == 5 * 8 * 2
    assert result.epochs == 2.5
    assert steps_logged(result.folder) == [1, 2, 3, 4, 5]


def test_a_finished_run_is_returned_as_it_is(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = pretrain(configure())
    monkeypatch.setattr("scanlearn.training.trainer.train", None)
    assert pretrain(configure()) == result


def test_a_run_that_pauses_ends_as_one_that_does_not(configure: Configure, tmp_path: Path) -> None:
    whole = pretrain(configure(output=str(tmp_path / "whole")))
    paused = configure()
    early, late = pretrain_until(paused, 2), pretrain_until(paused, 4)
    again = pretrain_until(paused, 4)
    hashes = [weights_hash(each) for each in (early, late, again)]
    assert hashes[0] != hashes[1] == hashes[2]
    assert not late.training
    with pytest.raises(ScanlearnError, match="cannot pause after step 2: 4 of its 5 steps"):
        pretrain_until(paused, 2)
    result = pretrain(paused)
    assert result.final_hash == whole.final_hash not in hashes
    with pytest.raises(ScanlearnError, match="cannot pause after step 5"):
        pretrain_until(paused, 5)


def test_a_different_configuration_in_the_folder_is_refused(configure: Configure) -> None:
    pretrain(configure())
    with pytest.raises(ScanlearnError, match="seed was 0, is 1"):
        pretrain(configure(seed=1))


def test_presentation_may_change_between_starts(configure: Configure) -> None:
    result = pretrain(configure())
    assert pretrain(configure(progress=False, checkpoint_steps=2)) == result


def test_the_same_configuration_gives_the_same_weights(
    configure: Configure, tmp_path: Path
) -> None:
    first = pretrain(configure(output=str(tmp_path / "a")))
    second = pretrain(configure(output=str(tmp_path / "b")))
    assert first.final_hash == second.final_hash


def test_weak_and_strong_share_all_but_the_dial(configure: Configure, tmp_path: Path) -> None:
    weak, strong = (
        pretrain(configure(views={"size": 16, "scale": s}, output=str(tmp_path / s)))
        for s in ("weak", "strong")
    )
    assert weak.initial_hash == strong.initial_hash
    assert weak.order_hash == strong.order_hash
    assert weak.uniforms_hash == strong.uniforms_hash
    assert weak.final_hash != strong.final_hash
    other = pretrain(configure(seed=1, output=str(tmp_path / "other")))
    assert other.order_hash != weak.order_hash
    assert other.uniforms_hash != weak.uniforms_hash


@pytest.mark.parametrize("backbone", [{"name": "test_resnet", "drop_path": 0.5}])
@pytest.mark.parametrize("killed_after", [1, 3, 6])
def test_a_stopped_and_resumed_run_ends_bit_equal(
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backbone: dict[str, Any],
    killed_after: int,
) -> None:
    whole = pretrain(configure(backbone=backbone, steps=6, output=str(tmp_path / "whole")))
    config = configure(backbone=backbone, steps=6, checkpoint_steps=2)
    stepped = Recorder.stepped

    def kill(recorder: Recorder, module: Pretrainer, num_views: int) -> None:
        stepped(recorder, module, num_views)
        if module.global_step == killed_after:
            raise Killed

    monkeypatch.setattr(Recorder, "stepped", kill)
    with pytest.raises(Killed):
        pretrain(config)
    monkeypatch.setattr(Recorder, "stepped", stepped)
    torch.manual_seed(99)
    resumed = pretrain(config)
    assert resumed.final_hash == whole.final_hash
    assert resumed.order_hash == whole.order_hash
    assert resumed.uniforms_hash == whole.uniforms_hash
    assert steps_logged(resumed.folder) == [1, 2, 3, 4, 5, 6]


def test_a_vit_that_averages_its_patches_is_resumed_bit_equal_without_its_file(
    configure: Configure,
    tmp_path: Path,
    killed_at: Callable[[int], AbstractContextManager[None]],
) -> None:
    file = tmp_path / "retfound.pth"
    vit = timm.create_model("test_vit", num_classes=0, img_size=32, global_pool="avg")
    torch.save({"model": vit.state_dict()}, file)
    settings = {"backbone": {"name": "test_vit", "weights": str(file)}, "views": {"size": 32}}
    whole = pretrain(configure(**settings, steps=4, output=str(tmp_path / "whole")))
    config = configure(**settings, steps=4, checkpoint_steps=2)
    with killed_at(3):
        pretrain(config)
    file.unlink()
    resumed = pretrain(config)
    assert resumed.final_hash == whole.final_hash
    backbone, card = load_backbone(resumed.backbone)
    assert card.model_args["global_pool"] == "avg"
    assert weights_hash(backbone) == resumed.final_hash


@pytest.mark.parametrize("command", [pretrain, dry_run])
@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ({"name": "resnet81"}, r"backbone\.name: timm has no architecture 'resnet81'"),
        ({"name": "resnet18", "weights": "nowhere.pth"}, "no file or folder nowhere.pth"),
    ],
)
def test_a_typo_in_the_backbone_is_found_before_scans_are_packed(
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[[PretrainConfig], Any],
    backbone: dict[str, str],
    words: str,
) -> None:
    monkeypatch.setattr(
        "scanlearn.training.run.open_archive", lambda *a, **k: pytest.fail("packed")
    )
    with pytest.raises(ScanlearnError, match=words):
        command(configure(backbone=backbone))


def test_drop_path_is_at_work_in_the_resume_tests(configure: Configure, tmp_path: Path) -> None:
    hashes = {
        pretrain(
            configure(
                backbone={"name": "test_resnet", "drop_path": rate},
                output=str(tmp_path / str(rate)),
            )
        ).final_hash
        for rate in (0.0, 0.5)
    }
    assert len(hashes) == 2


def test_a_resumed_run_does_not_read_earlier_scans_again(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, killed_at: Callable[[int], Any]
) -> None:
    config = configure(steps=6, checkpoint_steps=2)
    with killed_at(4):
        pretrain(config)
    read: list[int] = []
    rows_of_steps = data.rows_of_steps

    def watched(n: int, b: int, seed: int, first: int, stop: int) -> Any:
        read.append(first)
        return rows_of_steps(n, b, seed, first, stop)

    monkeypatch.setattr(data, "rows_of_steps", watched)
    pretrain(config)
    assert read == [4]


def test_a_full_disk_keeps_the_last_good_checkpoint(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(checkpoint_steps=2)
    save = AtomicCheckpoints.save_checkpoint

    write = os.write

    def full(plugin: Any, checkpoint: dict[str, Any], path: Any, **options: Any) -> None:
        if checkpoint["global_step"] < 4:
            return save(plugin, checkpoint, path)

        def half(descriptor: int, rest: memoryview) -> int:
            if len(rest) < 3000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(descriptor, rest[:2000])

        monkeypatch.setattr(os, "write", half)
        return save(plugin, checkpoint, path)

    monkeypatch.setattr(AtomicCheckpoints, "save_checkpoint", full)
    with pytest.raises(ScanlearnError, match=r"checkpoints/last\.ckpt: the disk is full"):
        pretrain(config)
    monkeypatch.undo()
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)
    folder = Path(config.output)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert pretrain(config).steps == 5


def test_collapse_is_warned_of_while_it_can_be_stopped_and_in_the_result(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scanlearn.training.monitor.embedding_std", lambda _: 0.02)
    result = pretrain(configure(steps=12))
    assert capsys.readouterr().err.count("the embeddings have collapsed") == 1
    assert any("spread 0.02" in warning for warning in result.warnings)
    assert result.embedding_std == pytest.approx(0.02)


def test_metrics_hold_what_was_trained_and_how_fast(configure: Configure) -> None:
    result = pretrain(configure())
    with result.metrics.open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["loss"]) > 0 for row in rows)
    assert all(0 < float(row["embedding_std"]) < 2 for row in rows)
    assert all(1 <= float(row["embedding_rank"]) <= 8 for row in rows)
    # Of 8 scans each view has 15 candidates.
    for row in rows:
        assert float(row["loss_vs_chance"]) == pytest.approx(
            float(row["loss"]) / math.log(15), rel=1e-4
        )
    assert all(0 <= float(row["data_wait_share"]) <= 1 for row in rows)
    assert [float(row["epoch"]) for row in rows] == [0.5, 1, 1.5, 2, 2.5]
    assert result.views_per_s > 0


def test_export_writes_the_backbone_of_a_finished_run(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = pretrain(configure())
    folder = export(result.folder, tmp_path / "exported")
    assert export(result.folder, folder) == folder
    assert "holds this export already, and nothing was written" in capsys.readouterr().out
    assert json.loads((folder / "card.json").read_text())["weights_hash"] == result.final_hash


def test_a_run_and_its_backbone_export_alike_and_the_card_says_how_it_went(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = pretrain(configure())
    sources = {"run": result.folder, "backbone": result.backbone}
    texts = {}
    for name, source in sources.items():
        folder = export(
            source, tmp_path / f"from_{name}", format="safetensors", license="cc-by-4.0"
        )
        texts[name] = (folder / "README.md").read_text()
    assert texts["run"] == texts["backbone"]
    assert "| loss at the end | " in texts["run"]
    assert "| scans | 20 |" in texts["run"]
    assert str(tmp_path) not in texts["run"]
    assert "cc-by-4.0" in texts["run"]
    assert "no licence" not in capsys.readouterr().err
    card = json.loads((tmp_path / "from_run" / "card.json").read_text())
    assert card["consumer"] == "safetensors"
    colour = export(result.folder, tmp_path / "colour", channels=3)
    assert json.loads((colour / "config.json").read_text())["pretrained_cfg"]["input_size"][0] == 3
    assert "names no licence" in capsys.readouterr().err


def test_export_of_a_study_names_a_run_of_it(tmp_path: Path) -> None:
    run = tmp_path / "study" / "arms" / "weak" / "seed-0"
    run.mkdir(parents=True)
    (run / "result.json").touch()
    with pytest.raises(ScanlearnError, match="is a study: name one of its runs"):
        export(tmp_path / "study", tmp_path / "out")


def test_export_refuses_a_run_that_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(ScanlearnError, match="is not a finished run"):
        export(tmp_path, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_extras_of_other_libraries_train_resume_bit_equal_and_are_recorded(
    configure: Configure, killed_at: Callable[[int], AbstractContextManager[None]], tmp_path: Path
) -> None:
    extras = [
        {"name": "torchvision.transforms.v2.RandomErasing", "probability": 0.5},
        {"name": "monai.transforms.RandGaussianNoise", "arguments": {"std": 0.1}, "place": "after"},
        {"name": "albumentations.GaussNoise", "views": [1], "probability": 0.5},
    ]
    views = {"size": 16, "extras": extras}
    plain = pretrain(configure(output=str(tmp_path / "plain")))
    whole = pretrain(configure(views=views, output=str(tmp_path / "whole")))
    config = configure(views=views, checkpoint_steps=2)
    with killed_at(3):
        pretrain(config)
    with pytest.raises(ScanlearnError, match=r"different run \(views.extras was \["):
        pretrain(configure())
    found = pretrain(config)
    assert found.final_hash == whole.final_hash != plain.final_hash
    assert found.uniforms_hash == plain.uniforms_hash
    card = load_backbone(found.folder / "backbone")[1]
    assert [extra["name"] for extra in card.extras] == [extra["name"] for extra in extras]
    assert load_backbone(plain.folder / "backbone")[1].extras == ()
    recorded = json.loads(read_record(RunFolder(found.folder)).values["views.extras"])
    assert [extra["probability"] for extra in recorded] == [0.5, 1.0, 0.5]


def test_an_extra_that_fails_names_its_scan_and_one_misspelt_is_found_before_packing(
    configure: Configure,
) -> None:
    wrong = {"name": "torchvision.transforms.v2.Resize", "arguments": {"size": 8}}
    with pytest.raises(ScanlearnError, match=r"v2.Resize on scan 'scan\d\d.png': returned shape"):
        pretrain(configure(views={"size": 16, "extras": [wrong]}))
    misspelt = {"size": 16, "extras": [{"name": "torchvision.transforms.v2.RandomPosterise"}]}
    with pytest.raises(ScanlearnError, match="did you mean 'RandomPosterize'"):
        configure(views=misspelt).check_inputs()

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from scanlearn.archive.layout import Origin, PackedScan, Spacing, ValueRange
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.backbones.backbone import BackboneConfig, build_backbone, weights_hash
from scanlearn.backbones.device import preferred_precision
from scanlearn.errors import ScanlearnError
from scanlearn.training import resolved as resolved_run
from scanlearn.training.resolved import Resolved, resolve, training_device
from scanlearn.training.run import Run
from scanlearn.training.settings import PretrainConfig

Configure = Callable[..., PretrainConfig]
OF_THE_DEVICE = {"crop": 0.5, "geometry": 0.5, "photometric": 0.5, "acquisition": 0.5}


def test_arms_of_one_seed_start_from_the_same_weights(
    configure: Configure, archive: Archive, tmp_path: Path
) -> None:
    hashes = [
        weights_hash(
            Run.of(
                configure(views={"size": 16, "scale": scale}, output=str(tmp_path / str(scale))),
                archive,
            ).method
        )
        for scale in (0, 0.5, 1)
    ]
    assert len(set(hashes)) == 1
    other = Run.of(configure(seed=1, output=str(tmp_path / "other")), archive)
    assert weights_hash(other.method) not in hashes


def test_provenance_says_what_was_trained_on_and_chosen(
    configure: Configure, archive: Archive
) -> None:
    run = Run.of(configure(), archive)
    found = json.loads(run.folder.provenance.read_text())
    assert found["archive"]["hash"] == archive.content_hash
    assert found["archive"]["patients"] == 10
    assert found["chosen"]["precision"] == "fp32"
    assert "reason" in found["chosen"]["schedule"]


def test_a_run_of_which_no_step_is_kept_takes_other_settings(
    configure: Configure, archive: Archive
) -> None:
    before = Run.of(configure(batch_size=4), archive)
    after = Run.of(configure(batch_size=8), archive)
    # What was chosen for the first batch is not taken for the other.
    lr_of = (before.resolved.schedule.peak, after.resolved.schedule.peak)
    assert lr_of[0] < lr_of[1]
    assert json.loads(after.folder.provenance.read_text())["run_id"]
    after.folder.backbone.mkdir()
    with pytest.raises(ScanlearnError, match=r"different run \(batch_size was 8, is 4\)"):
        Run.of(configure(batch_size=4), archive)


def test_a_resumed_run_keeps_precision_and_threads_of_its_first_start(
    configure: Configure, archive: Archive
) -> None:
    config = configure(precision="auto", views={"size": 32})
    first = Run.of(config, archive)
    record = json.loads(first.folder.provenance.read_text())
    other: Literal["bf16", "fp32"] = "bf16" if first.resolved.precision == "fp32" else "fp32"
    # Sums over another number of threads end in other last bits.
    record["chosen"] |= {"precision": other, "threads": 7}
    first.folder.provenance.write_text(json.dumps(record))
    again = Run.of(config, archive)
    assert again.resolved == replace(first.resolved, precision=other, threads=7)


def test_a_run_on_a_cpu_gives_up_threads_with_a_word(
    configure: Configure, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _choose(configure(threads=3, device="cpu"), archive).threads == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(resolved_run, "free_threads", lambda: 3)
    chosen = _choose(configure(device="cpu"), archive)
    assert chosen.threads == 3
    assert any(reason.startswith("threads is 3 instead of 4") for reason in chosen.reasons)
    assert _choose(configure(device="gpu"), archive).threads is None


@pytest.mark.parametrize("earlier", [None, 1])
def test_a_run_on_views_of_another_release_is_not_gone_on_with(
    configure: Configure, archive: Archive, earlier: int | None
) -> None:
    first = Run.of(configure(), archive)
    record = json.loads(first.folder.provenance.read_text())
    # Runs did not say it before there was a second kind of views.
    del record["views_version"]
    record |= {} if earlier is None else {"views_version": earlier}
    first.folder.provenance.write_text(json.dumps(record))
    with pytest.raises(ScanlearnError, match=r"views as another release .*\(version 1, now \d\)"):
        Run.of(configure(), archive)


def test_another_archive_under_the_same_run_is_refused(
    configure: Configure, archive: Archive, tmp_path: Path
) -> None:
    Run.of(configure(), archive)
    with ArchiveWriter(tmp_path / "other", shape=archive.shape, dtype=np.uint8) as writer:
        for index in range(9):
            pixels = np.full(archive.shape, index, np.uint8)
            writer.add(PackedScan(pixels), Origin(str(index), str(index)))
        other = writer.close()
    with pytest.raises(ScanlearnError, match=r"archive of 20 scans .* differs .* \(9 scans\)"):
        Run.of(configure(archive=str(other.path)), other)


@pytest.mark.parametrize(("accumulate", "batch_size"), [(1, 20), (8, 16)])
def test_a_batch_larger_than_the_archive_is_all_of_it_and_says_so(
    configure: Configure, archive: Archive, accumulate: int, batch_size: int
) -> None:
    config = configure(batch_size=64, accumulate=accumulate)
    run = Run.of(config, archive)
    assert run.config.batch_size == batch_size
    assert run.resolved.steps_per_epoch == 1
    assert f"batch_size is {batch_size} instead of 64: the archive holds 20" in run.start_line(0)
    assert Run.of(config, archive).resolved == run.resolved


def test_a_batch_that_cannot_be_made_smaller_leaves_no_folder(
    configure: Configure, archive: Archive
) -> None:
    # 20 scans are fewer than 32 parts.
    config = configure(batch_size=64, accumulate=32)
    with pytest.raises(ScanlearnError, match="batch_size is 64, but the archive holds 20 scans"):
        Run.of(config, archive)
    assert not Path(config.output).exists()


def test_views_that_enlarge_their_crops_are_warned_of_with_the_share(
    configure: Configure, archive: Archive, tmp_path: Path
) -> None:
    assert Run.of(configure(views={"size": 16, "scale": 0.5}), archive).warnings == ()
    config = configure(views={"size": 47, "scale": 1}, output=str(tmp_path / "large"))
    (text,) = Run.of(config, archive).warnings
    assert text.startswith(("9", "100%"))
    assert "48 x 48 px" in text
    assert "pack.canvas" in text


def test_the_start_line_says_how_long_the_warmup_is_and_why(
    configure: Configure, archive: Archive
) -> None:
    text = Run.of(configure(steps=30), archive).start_line(0)
    assert "30 steps of 8 scans (20 in the archive)" in text
    assert "warm-up of 3 steps (a tenth of the run, since 10 epochs would be 20)" in text


def _choose(config: PretrainConfig, archive: Archive) -> Resolved:
    return resolve(config, archive, build_backbone(BackboneConfig(name="test_resnet"), 1, 0))


def test_what_is_left_open_is_chosen_by_what_the_machine_does_fast(
    configure: Configure, archive: Archive
) -> None:
    chosen = _choose(configure(precision="auto", device="cpu", views={"size": 32}), archive)
    assert chosen.precision == preferred_precision("cpu")
    assert chosen.memory_format == torch.channels_last


def test_what_is_given_is_kept(configure: Configure, archive: Archive) -> None:
    chosen = _choose(configure(precision="bf16", channels_last=False, views={"size": 32}), archive)
    assert chosen.precision == "bf16"
    assert chosen.memory_format == torch.contiguous_format


def test_choices_survive_being_recorded(configure: Configure, archive: Archive) -> None:
    chosen = _choose(configure(), archive)
    assert TypeAdapter(Resolved).validate_json(json.dumps(chosen.plain())) == chosen


def test_a_batch_larger_than_the_archive_is_refused(configure: Configure, archive: Archive) -> None:
    with pytest.raises(ScanlearnError, match="batch_size is 21, but the archive holds 20 scans"):
        _choose(configure(batch_size=21), archive)


def test_the_cpu_is_taken_where_it_is_asked_for() -> None:
    assert training_device("cpu") == torch.device("cpu")
    assert training_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_bf16_is_refused_on_a_cpu_where_its_gradients_are_wrong(
    configure: Configure, archive: Archive
) -> None:
    config = configure(precision="bf16", method={"name": "dino"}, views={"size": 32})
    with pytest.raises(ScanlearnError, match=r"precision: .* 14 px"):
        Run.of(config, archive)


@pytest.mark.parametrize(
    ("method", "network", "given", "recipe", "crops"),
    [
        ("simclr", "test_resnet", None, "simclr", [(0.08, 1)]),
        ("simclr", "test_vit", None, "simclr", [(0.08, 1)]),
        ("mocov2", "test_resnet", None, "mocov2", [(0.2, 1)]),
        ("mocov3", "test_vit", None, "mocov3", [(0.08, 1)]),
        ("mocov3", "test_resnet", None, "mocov3_resnet", [(0.2, 1)]),
        ("mocov3", "test_convnext", None, "mocov3_resnet", [(0.2, 1)]),
        ("mocov3", "test_resnet", "mocov3", "mocov3", [(0.08, 1)]),
        ("dino", "test_vit", None, "dino", [(0.4, 1), (0.4, 1), (0.05, 0.4)]),
        ("dino", "test_resnet", None, "dino_convnet", [(0.14, 1), (0.14, 1), (0.05, 0.14)]),
        ("dino", "test_resnet", "dino", "dino", [(0.4, 1), (0.4, 1), (0.05, 0.4)]),
        ("dino", "test_vit", "dino_convnet", "dino_convnet", [(0.14, 1), (0.14, 1), (0.05, 0.14)]),
    ],
)
def test_the_recipe_is_the_one_published_for_this_kind_of_network(
    configure: Configure, archive: Archive, method: str, network: str, given: str | None,
    recipe: str, crops: list[tuple[float, float]],
) -> None:  # fmt: skip
    views = {"size": 32, "scale": 1, "recipe": given}
    run = Run.of(
        configure(backbone={"name": network}, method={"name": method}, views=views), archive
    )
    found = run.generator.recipe.at(run.config.views.scale).views
    assert run.generator.recipe.name == run.config.recipe == recipe
    assert [(view.crop_min, view.crop_max) for view in found] == [
        pytest.approx(crop) for crop in (crops * len(found) if len(crops) == 1 else crops)
    ]
    line = run.start_line(0)
    assert f"scale 1 of recipe {recipe}, " in line
    is_chosen = given is None and method in ("mocov3", "dino")
    assert (f"recipe {recipe}, since {network} is" in line) is is_chosen
    assert json.loads(run.folder.provenance.read_text())["chosen"]["recipe"] == recipe


@pytest.mark.parametrize(
    ("modality", "known", "expected"),
    [
        ("mri", 0, "a share of the side, not millimetres, in 4 of 4 scans"),
        ("mri", 3, "a share of the side, not millimetres, in 1 of 4 scans"),
        ("mri", 4, None),
        ("ct", 4, None),
        ("mammography", 0, None),
        (None, 0, None),
    ],
)
def test_a_run_says_where_spacing_is_not_known(
    modality: str | None, known: int, expected: str | None, configure: Configure, tmp_path: Path
) -> None:
    with ArchiveWriter(tmp_path / "made", shape=(1, 32, 32), dtype=np.uint8) as writer:
        for row in range(4):
            pixels = np.full((1, 32, 32), 40 * row, np.uint8)
            spacing = Spacing(0.5, 0.5) if row < known else None
            writer.add(PackedScan(pixels, spacing_mm=spacing), Origin(f"{row}", f"p{row}"))
        made = writer.close()
    config = configure(batch_size=4, views={"size": 32, "modality": modality})
    line = Run.of(config, made).start_line(0)
    assert ("elastic deformation is" in line) is (expected is not None)
    assert ("mammograms face the way they were stored" in line) is (modality == "mammography")
    assert expected is None or expected in line


@pytest.mark.parametrize("unit", ["HU", None])
def test_noise_in_hounsfield_units_needs_an_archive_that_holds_them(
    unit: str | None, configure: Configure, tmp_path: Path
) -> None:
    with ArchiveWriter(tmp_path / "made", shape=(1, 32, 32), dtype=np.uint16) as writer:
        pixels = np.full((1, 32, 32), 32768, np.uint16)
        for row in range(4):
            window = ValueRange(32728 - row, 32848)
            writer.add(PackedScan(pixels, value_range=window), Origin(f"{row}", f"p{row}"))
        made = writer.close(pixels={"unit": unit, "scale": unit and 1.0, "offset": -32768.0})
    assert made.gather(np.arange(2)).hu_per_value == (1.0 if unit else None)
    operations = {"noise_std": 0.02, "noise_hu": 3.0}
    config = configure(
        batch_size=4, views={"size": 32, "scale": OF_THE_DEVICE, "operations": operations}
    )
    assert ("no least in HU" in Run.of(config, made).start_line(0)) is (unit is None)


def test_a_run_begun_with_the_transformers_recipe_goes_on_with_it(
    configure: Configure, archive: Archive
) -> None:
    config = configure(method={"name": "mocov3"})
    first = Run.of(config, archive)
    record = json.loads(first.folder.provenance.read_text())
    del record["chosen"]["recipe"]
    first.folder.provenance.write_text(json.dumps(record))
    again = Run.of(config, archive)
    assert (first.generator.recipe.name, again.generator.recipe.name) == ("mocov3_resnet", "mocov3")


@pytest.mark.parametrize("network", ["test_vit", "test_resnet"])
def test_crops_set_by_hand_are_checked_against_the_recipe_of_the_network(
    configure: Configure, network: str
) -> None:
    crops = {"crop_max": {"global": 0.3}}

    def built() -> float:
        views = {"size": 32, "operations": crops}
        config = configure(backbone={"name": network}, method={"name": "dino"}, views=views)
        return config.build_recipe().at(config.views.scale).views[0].crop_max

    if network == "test_resnet":
        assert built() == pytest.approx(0.3)
    else:
        with pytest.raises(ScanlearnError, match="would be larger than the largest"):
            built()

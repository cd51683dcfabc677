from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.backbones.backbone import (
    Backbone,
    BackboneConfig,
    build_backbone,
    has_batch_norm,
    weights_hash,
)
from scanlearn.errors import ScanlearnError
from scanlearn.features.batch_norm import WholeScans
from scanlearn.packing.sources import open_archive
from scanlearn.training.folder import RunFolder
from scantune.study.arms import (
    _leave_out,
    given_rows,
    load_given,
    load_network,
    read_curve,
    train_arms,
)
from scantune.study.folder import StudyFolder, open_study
from scantune.study.matching import matched
from scantune.study.plan import CompareConfig
from scantune.study.resolving import of_share, resolve_groups, resolve_once
from scantune.study.results import Matched, RunRow, TrainingCurve

Plan = Callable[..., CompareConfig]


def row(arm: str, seed: int = 0, **changed: Any) -> RunRow:
    values: dict[str, Any] = {
        "arm": arm,
        "seed": seed,
        "steps": 5,
        "epochs": 1.0,
        "views": 80,
        "seconds": 1.0,
        "views_per_s": 80.0,
        "initial_hash": f"initial {seed}",
        "final_hash": f"final {arm} {seed}",
        "order_hash": f"order {seed}",
        "uniforms_hash": f"uniforms {seed}",
        "curve": TrainingCurve(),
        "backbone": "b",
    }
    return RunRow(**{**values, **changed})


UNTRAINED = {"steps": 0, "order_hash": "", "uniforms_hash": ""}


def test_arms_that_share_all_but_the_dial_match() -> None:
    rows = [row(arm, seed) for seed in (0, 1) for arm in ("weak", "strong")]
    rows += [row("random", seed, **UNTRAINED) for seed in (0, 1)]
    proof = matched(rows)
    assert proof.ok
    assert proof.problems == ()
    assert [s.initial_hash for s in proof.per_seed] == ["initial 0", "initial 1"]
    assert [s.steps for s in proof.per_seed] == [5, 5]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("initial_hash", "x", "initial weights"),
        ("order_hash", "x", "data order"),
        ("uniforms_hash", "x", "random draws"),
        ("steps", 6, "steps"),
    ],
)
def test_every_kind_of_mismatch_is_named(key: str, value: object, words: str) -> None:
    proof = matched([row("weak", 3), row("strong", 3, **{key: value})])
    assert not proof.ok
    given = getattr(row("weak", 3), key)
    assert proof.problems == (f"seed 3: different {words}: {given} in weak, {value} in strong.",)


def test_an_untrained_arm_must_begin_where_the_others_began() -> None:
    proof = matched([row("weak"), row("random", **{**UNTRAINED, "initial_hash": "x"})])
    assert proof.problems == ("seed 0: different initial weights: initial 0 in weak, x in random.",)


def test_seeds_are_compared_within_themselves_only() -> None:
    assert matched([row("weak", 0), row("strong", 0), row("weak", 1), row("strong", 1)]).ok


RECORDED = {
    "precision": "fp32",
    "device": "cpu",
    "schedule.peak": "0.3",
    "archive.hash": "ab",
    "versions.torch": "2.9.0",
    "views.scale": "weak",
}


def recorded(arm: str, seed: int = 0, **changed: str) -> RunRow:
    values = RECORDED | {key.replace("__", "."): value for key, value in changed.items()}
    return row(arm, seed, conditions=values, is_recorded=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("precision", "bf16"),
        ("device", "gpu"),
        ("schedule.peak", "0.30000000000000004"),
        ("archive.hash", "cd"),
        ("versions.torch", "2.10.0"),
    ],
)
def test_arms_trained_under_other_conditions_are_not_matched(key: str, value: str) -> None:
    changed = {key.replace(".", "__"): value}
    proof = matched([recorded("weak", 3, **changed), recorded("mid", 3), recorded("strong", 3)])
    sides = f"{value} in weak, {RECORDED[key]} in mid and strong"
    assert proof.problems == (f"seed 3: different {key}: {sides}.",)
    (mismatch,) = proof.mismatches
    assert (mismatch.seed, mismatch.key) == (3, key)
    assert mismatch.values == {"weak": value, "mid": RECORDED[key], "strong": RECORDED[key]}


def test_the_dial_may_differ_and_nothing_is_remarked_on() -> None:
    proof = matched([recorded("weak"), recorded("strong", views__scale="strong")])
    assert proof == Matched(ok=True, per_seed=proof.per_seed)


def test_seeds_trained_elsewhere_are_matched_in_themselves_and_told() -> None:
    proof = matched(
        [
            recorded(arm, seed, device=where)
            for arm, seed, where in (
                ("weak", 0, "cpu"),
                ("strong", 0, "cpu"),
                ("weak", 1, "gpu"),
                ("strong", 1, "gpu"),
            )
        ]
    )
    assert proof.ok
    assert proof.notes == ("device: cpu (seed 0); gpu (seed 1).",)


def test_arms_that_went_on_elsewhere_alike_are_matched_and_told() -> None:
    moved = "cpu, from step 2 on gpu"
    proof = matched([recorded("weak", device=moved), recorded("strong", device=moved)])
    assert proof.ok
    assert proof.notes == (f"device: {moved} (seed 0).",)
    assert not matched([recorded("weak", device=moved), recorded("strong")]).ok


def test_what_an_earlier_version_did_not_record_is_told() -> None:
    earlier = {"precision": "fp32", "archive.hash": "ab"}
    proof = matched([recorded("weak"), row("strong", conditions=earlier)])
    assert proof.ok
    (text,) = proof.partial
    assert text.startswith("seed 0: strong did not record all")
    assert "not recorded: device, processor, threads" in text
    assert not matched([recorded("weak"), row("strong", conditions={"precision": "bf16"})]).ok


def test_a_record_that_was_changed_is_a_problem() -> None:
    proof = matched([recorded("weak"), row("strong", record_problem="result.json was changed")])
    assert proof.problems == ("seed 0: the record of strong is no proof: result.json was changed.",)


def test_a_long_curve_is_averaged_in_equal_spans(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    lines = [f"{step},{float(step)},nan" for step in range(1, 401)]
    path.write_text("\n".join(["step,loss,embedding_std", *lines]) + "\n")
    curve = read_curve(path)
    assert curve.step[:2] == (2, 4)
    assert curve.loss[:2] == (1.5, 3.5)
    assert set(curve.embedding_std) == {None}
    assert len(curve.step) == 200


def test_the_untrained_arm_is_the_network_from_which_the_others_began(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)
    given = build_backbone(BackboneConfig(name="test_resnet"), 3, seed=9)
    file = tmp_path / "start.safetensors"
    safetensors.torch.save_file(given.network.state_dict(), file)
    config = plan(
        arms={"weak": {"scale": 0.5}, "strong": {"scale": 1}, "start": {"kind": "random"}},
        pack={"channels": 3},
        pretrain={
            "backbone": {"name": "test_resnet", "weights": str(file)},
            "views": {"size": 32},
            "batch_size": 8,
            "steps": 1,
            "device": "cpu",
        },
    )
    folder = open_study(config)
    unlabeled = open_archive(
        config.unlabeled, settings=config.pack_settings(config.unlabeled_columns, 3)
    )
    rows, _ = _trained(config, folder, unlabeled)
    assert matched(rows).ok
    assert [row.arm for row in rows] == ["weak", "strong", "start"]
    started = load_network(config, rows[2], folder.path, unlabeled)
    assert weights_hash(started) == rows[2].final_hash == weights_hash(given)
    assert weights_hash(load_network(config, rows[0], folder.path, unlabeled)) != rows[2].final_hash


def _opened(config: CompareConfig) -> tuple[StudyFolder, Archive]:
    settings = config.pack_settings(config.unlabeled_columns, 3)
    return open_study(config), open_archive(config.unlabeled, settings=settings)


def _trained(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive
) -> tuple[tuple[RunRow, ...], tuple[str, ...]]:
    on_devices, groups = resolve_groups(config, folder, unlabeled)
    return train_arms(on_devices, folder, unlabeled, groups)


def _asking(plan: Plan, **pretrain: Any) -> CompareConfig:
    shared = {"backbone": {"name": "test_resnet"}, "views": {"size": 32}, "batch_size": 64}
    return plan(pretrain={**shared, "steps": 1, **pretrain})


def test_what_is_left_open_is_resolved_once_for_all_arms(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _asking(plan, device="cpu")
    folder, unlabeled = _opened(config)
    monkeypatch.setattr("scanlearn.training.resolved.training_precision", lambda *_: "bf16")
    _, first = resolve_once(config, folder, unlabeled)
    assert (first.precision, first.is_channels_last, first.steps_per_epoch) == ("bf16", True, 1)
    assert first.reasons[0].startswith("batch_size is 16 instead of 64")
    monkeypatch.setattr("scanlearn.training.resolved.training_precision", lambda *_: "fp32")
    assert resolve_once(config, folder, unlabeled)[1] == first


def test_all_arms_take_the_modality_of_the_tags_that_the_study_was_begun_with(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)
    with ArchiveWriter(tmp_path / "films", shape=(1, 48, 48), dtype=np.uint8) as writer:
        for index in range(8):
            pixels = np.random.default_rng(index).integers(0, 256, (1, 48, 48)).astype(np.uint8)
            writer.add(PackedScan(pixels), Origin(str(index), str(index)))
        unlabeled = writer.close(examined={"CR CHEST": 6, "DX CHEST": 2})
    config = _asking(plan, device="cpu").model_copy(update={"unlabeled": str(unlabeled.path)})
    folder = open_study(config)
    chosen = resolve_once(config, folder, unlabeled)[1]
    assert (chosen.modality, chosen.left_out) == ("xray", ())
    assert config.under(chosen.modality).pretrain.views.modality == "xray"
    rows = _trained(config, folder, unlabeled)[0]
    assert matched(rows).ok
    assert {row.conditions["views.modality"].partition(":")[0] for row in rows[:2]} == {"xray"}
    # A study begun before tags were read keeps the recipe alone.
    kept = json.loads(folder.resolved.read_text())
    del kept["chosen"]["modality"], kept["chosen"]["left_out"]
    folder.resolved.write_text(json.dumps(kept))
    chosen = resolve_once(config, folder, unlabeled)[1]
    assert chosen.modality is None
    assert config.under(chosen.modality) is config


def test_a_study_does_not_go_on_without_its_gpu(plan: Plan) -> None:
    config = _asking(plan, devices="auto")
    folder, unlabeled = _opened(config)
    resolve_once(config, folder, unlabeled)
    kept = json.loads(folder.resolved.read_text())
    folder.resolved.write_text(json.dumps(kept | {"device": "gpu", "devices": 64}))
    with pytest.raises(ScanlearnError, match=r"was begun on 64 GPUs, and \d+ are visible here"):
        resolve_once(config, folder, unlabeled)
    # With nothing left to train, the device is no matter.
    for arm in ("weak", "strong"):
        folder.run(arm, 0).mkdir(parents=True)
        RunFolder(folder.run(arm, 0)).result.touch()
    assert resolve_once(config, folder, unlabeled)[0] == config


def test_arms_that_are_trained_on_two_machines_are_not_matched(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)
    config = _asking(plan, device="cpu", precision="fp32")
    folder, unlabeled = _opened(config)
    rows, _ = _trained(config, folder, unlabeled)
    proof = matched(rows)
    assert (proof.ok, proof.partial, proof.notes) == (True, (), ())
    shutil.rmtree(folder.run("strong", 0))
    monkeypatch.setattr("scanlearn.training.conditions.processor_name", lambda _: "another CPU")
    proof = matched(_trained(config, folder, unlabeled)[0])
    assert "processor another CPU instead of" in capsys.readouterr().err
    (mismatch,) = proof.mismatches
    assert mismatch.key == "processor"
    assert mismatch.values["strong"] == "another CPU"


def test_the_record_of_another_arm_is_no_proof(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)
    config = _asking(plan, device="cpu", precision="fp32")
    folder, unlabeled = _opened(config)
    _trained(config, folder, unlabeled)
    weak, strong = (RunFolder(folder.run(arm, 0)) for arm in ("weak", "strong"))
    for name in ("provenance", "result"):
        shutil.copy(getattr(weak, name), getattr(strong, name))
    proof = matched(_trained(config, folder, unlabeled)[0])
    assert "it was trained at scale 0.5, not 1" in proof.problems[0]


@pytest.mark.parametrize("network", ["test_resnet", "test_vit"])
def test_an_untrained_arm_has_the_statistics_of_whole_unlabeled_scans(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)
    config = plan(
        pack={"channels": 3},
        pretrain={
            "backbone": {"name": network},
            "views": {"size": 32},
            "batch_size": 8,
            "steps": 1,
            "device": "cpu",
        },
        arms={"weak": {"scale": 0.5}, "random": {"kind": "random"}},
        primary={"better": "weak", "than": "random"},
    )
    folder = open_study(config)
    unlabeled = open_archive(
        config.unlabeled, settings=config.pack_settings(config.unlabeled_columns, 3)
    )
    rows, _ = _trained(config, folder, unlabeled)
    assert matched(rows).ok

    def built() -> Backbone:
        return build_backbone(BackboneConfig(name=network), 3, rows[1].seed, size=32)

    expected = built()
    WholeScans(unlabeled, 32, unlabeled.mean, unlabeled.std).set_statistics(expected)
    scored = load_network(config, rows[1], folder.path, unlabeled)
    assert weights_hash(scored) == weights_hash(expected)
    is_changed = has_batch_norm(expected)
    assert (weights_hash(scored) != weights_hash(built())) is is_changed
    # Scores kept by an earlier release are of another origin, those of a ViT are not.
    assert (rows[1].final_hash != weights_hash(built())) is is_changed
    count = min(512, len(unlabeled))
    assert rows[1].statistics == (f"{count} of {len(unlabeled)}" if is_changed else "")


def test_a_run_begun_with_the_transformers_recipe_is_refused_for_a_convnet(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)
    config = plan(
        pretrain={
            "backbone": {"name": "test_resnet"},
            "method": {"name": "mocov3", "head_hidden": 16, "head_dim": 8},
            "views": {"size": 32},
            "batch_size": 8,
            "steps": 1,
            "device": "cpu",
        },
        arms={"weak": {"scale": 0.5}, "strong": {"scale": 1}},
    )
    folder = open_study(config)
    unlabeled = open_archive(
        config.unlabeled, settings=config.pack_settings(config.unlabeled_columns, "auto")
    )
    _trained(config, folder, unlabeled)
    file = folder.run("strong", config.seeds[-1]) / "provenance.json"
    record = json.loads(file.read_text())
    assert record["chosen"].pop("recipe") == "mocov3_resnet"
    file.write_text(json.dumps(record))
    with pytest.raises(ScanlearnError, match=r"recipe mocov3, .* now stands for mocov3_resnet"):
        _trained(config, folder, unlabeled)


@pytest.mark.parametrize(("share", "count"), [(0.05, 5), (0.25, 25), (0.5, 50), (0.001, 1)])
def test_a_share_holds_whole_patients_and_lies_within_a_larger_one(
    share: float, count: int
) -> None:
    patients = np.array([f"p{index % 100}" for index in range(300)])
    is_in = of_share(patients, share)
    assert len(set(patients[is_in])) == count
    assert is_in.sum() == 3 * count
    assert (of_share(patients, 0.6) | ~is_in).all()
    # Which patients they are does not depend on the order of the scans.
    assert set(patients[is_in]) == set(patients[::-1][of_share(patients[::-1], share)])


def test_arms_are_matched_within_their_method_and_share_alone() -> None:
    half = {"group": "50 % of the patients", "order_hash": "h", "initial_hash": "i", "steps": 2}
    rows = [row("weak"), row("strong"), row("weak-half", **half), row("strong-half", **half)]
    rows.append(row("given", **{**UNTRAINED, "initial_hash": ""}))
    proof = matched(rows)
    assert proof.ok
    assert [(s.group, s.steps) for s in proof.per_seed] == [("", 5), (half["group"], 2)]
    proof = matched([*rows, row("other", **{**half, "steps": 3})])
    assert proof.problems == (
        "seed 0, 50 % of the patients: different steps: 2 in weak-half and strong-half, "
        "3 in other.",
    )


def test_each_method_and_share_is_resolved_once_and_earlier_studies_go_on(plan: Plan) -> None:
    first = _asking(plan, device="cpu", batch_size=4, steps=None, epochs=2)
    folder, unlabeled = _opened(first)
    chosen = resolve_once(first, folder, unlabeled)[1]
    kept = json.loads(folder.resolved.read_text())
    # As an earlier release wrote it.
    del kept["groups"]
    folder.resolved.write_text(json.dumps(kept))
    arms = {
        "weak": {"scale": 0.5},
        "half": {"scale": 0.5, "share": 0.5},
        "moco": {"scale": 0.5, "method": "mocov2"},
        "strong": {"scale": 1, "method": "simclr"},
    }
    grown = first.model_copy(update={"arms": plan(arms=arms).arms})
    titles = [group.title for group in grown.groups]
    assert titles == ["", "50 % of the patients", "mocov2"]
    found = resolve_groups(grown, folder, unlabeled)[1]
    assert [each.method.name for each in found.values()] == ["simclr", "simclr", "mocov2"]
    # As many epochs of half the patients are half the steps.
    assert [each.total_steps for each in found.values()] == [8, 4, 8]
    assert found[grown.groups[0]] == chosen
    assert resolve_groups(grown, folder, unlabeled)[1] == found


def test_a_given_network_that_cannot_be_had_is_refused_with_its_arm(
    plan: Plan, tmp_path: Path
) -> None:
    arms = {"weak": {"scale": 0.5}, "strong": {"scale": 1}}

    def given(**arm: Any) -> CompareConfig:
        return plan(arms={**arms, "given": {"kind": "backbone", **arm}})

    for backbone, words in (
        ("resnet81", r"arms\.given: backbone 'resnet81'.* no architecture"),
        ("thumbnail", r"arms\.given: .*has no weights"),
        ("random:resnet18", r"arms\.given: .*has no weights"),
        (str(tmp_path / "nowhere"), r"arms\.given: .*no such backbone folder"),
        ({"name": "test_resnet", "weights": str(tmp_path / "a.pth")}, r"arms\.given: .*a\.pth"),
    ):
        with pytest.raises(ScanlearnError, match=words):
            given(backbone=backbone).check_inputs()


def test_a_weight_file_is_shown_scans_as_its_architecture_is(plan: Plan, tmp_path: Path) -> None:
    network = build_backbone(BackboneConfig(name="test_resnet"), 3, seed=5)
    safetensors.torch.save_file(network.network.state_dict(), tmp_path / "mine.safetensors")
    backbone = {"name": "test_resnet", "weights": str(tmp_path / "mine.safetensors")}
    config = plan(
        arms={
            "weak": {"scale": 0.5},
            "strong": {"scale": 1},
            "given": {"kind": "backbone", "backbone": backbone, "size": 48},
        }
    )
    _, labels = _opened(config)
    (given,), notes = given_rows(config, labels)
    assert (given.arm, given.seed, given.initial_hash) == ("given", 0, "")
    assert given.final_hash == weights_hash(network)
    assert not any("enlarged" in note for note in notes)
    opened = load_given(config, "given", labels)
    assert opened.view == (48, (0.5,) * 3, (0.5,) * 3)
    large = config.arms["given"].model_copy(update={"size": 64})
    config = config.model_copy(update={"arms": {**config.arms, "given": large}})
    assert (
        "given: its views of 64 px are enlarged from scans packed at 48 px"
        in given_rows(config, labels)[1][0]
    )


def test_an_arm_of_a_share_leaves_out_other_patients_and_those_that_leak(plan: Plan) -> None:
    arms = {"weak": {"scale": 0.5}, "strong": {"scale": 1}, "half": {"scale": 0.5, "share": 0.5}}
    config = plan(arms=arms, leaks="drop")
    folder, unlabeled = _opened(config)
    leaking = unlabeled.scan_ids[unlabeled.patients == unlabeled.patients[0]]
    folder.leaks.mkdir()
    folder.leaking.write_text("".join(f"{name}\n" for name in leaking))
    rest = unlabeled.without(leaking.tolist())
    assert _leave_out(config, folder, rest, config.group("weak")) == folder.leaking
    listed = _leave_out(config, folder, rest, config.group("half"))
    assert listed is not None
    trained_on = unlabeled.without(listed.read_text().split())
    assert set(leaking).isdisjoint(trained_on.scan_ids)
    patients = set(trained_on.patients)
    assert len(patients) == round(len(set(rest.patients)) / 2)
    # Whole patients: no scan of theirs is left behind.
    assert len(trained_on) == np.isin(rest.patients, list(patients)).sum()
    warned = config.model_copy(update={"leaks": "warn"})
    assert _leave_out(warned, folder, unlabeled, config.group("weak")) is None

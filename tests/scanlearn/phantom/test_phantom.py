from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.phantom.phantom import (
    NOT_EVIDENCE,
    PhantomSpec,
    bounding_box,
    draw_phantom,
    write_phantom,
)
from scanlearn.phantom.tasks import TASKS, Strengths

SMALL = PhantomSpec(patients=20, seed=3, height=64, width=64)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(64, 64), (320, 256), (40, 96)])
def test_a_scan_has_the_asked_shape_and_lies_inside_its_mask(
    shape: tuple[int, int], channels: int
) -> None:
    spec = PhantomSpec(patients=3, height=shape[0], width=shape[1], channels=channels)
    for index in range(len(spec)):
        scan = draw_phantom(spec, index)
        assert scan.pixels.shape == (channels, *shape)
        assert scan.pixels.dtype == np.uint8
        assert scan.mask.shape == shape
        assert (scan.pixels[:, ~scan.mask] == 0).all()
        assert scan.pixels[:, scan.mask].mean() > 20
        assert scan.valid_box == bounding_box(scan.mask)


def test_the_valid_box_is_the_tightest_around_the_field_of_view() -> None:
    mask = np.zeros((8, 9), dtype=bool)
    mask[2:5, 3:8] = True
    assert bounding_box(mask) == (2, 3, 5, 8)


def test_the_field_of_view_is_round_within_the_canvas() -> None:
    for index in range(0, 40, 2):
        scan = draw_phantom(SMALL, index)
        assert not scan.mask[0, 0]
        assert not scan.mask[-1, -1]
        assert scan.mask[32, 32]
        assert scan.mask.mean() > 0.5


def test_a_scan_depends_on_seed_and_index_alone() -> None:
    alone = draw_phantom(SMALL, 7)
    for index in range(7):
        draw_phantom(SMALL, index)
    again = draw_phantom(replace(SMALL, patients=500), 7)
    assert np.array_equal(alone.pixels, again.pixels)
    assert alone.labels == again.labels
    other = draw_phantom(replace(SMALL, seed=4), 7)
    assert not np.array_equal(alone.pixels, other.pixels)


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw_phantom(SMALL, 0)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_no_two_scans_are_alike() -> None:
    drawn = {draw_phantom(SMALL, index).pixels.tobytes() for index in range(len(SMALL))}
    assert len(drawn) == len(SMALL)


def test_two_eyes_share_their_patient_and_look_alike() -> None:
    spec = replace(SMALL, patients=60, strengths=Strengths(lesion=0, pallor=0, texture=0))
    scans = [draw_phantom(spec, index) for index in range(len(spec))]
    assert [scan.patient for scan in scans[::2]] == [scan.patient for scan in scans[1::2]]
    assert len({scan.patient for scan in scans}) == spec.patients
    assert len({scan.scan_id for scan in scans}) == len(spec)
    colours = np.array([scan.pixels[:, scan.mask].mean(axis=1) for scan in scans])
    green_share = colours[:, 1] / colours.sum(axis=1)
    assert np.corrcoef(green_share[::2], green_share[1::2])[0, 1] > 0.8


def test_the_disc_lies_right_in_a_right_eye_and_left_in_a_left_one() -> None:
    spec = PhantomSpec(patients=30, seed=2, strengths=Strengths(lesion=0, texture=0))
    for index in range(len(spec)):
        scan = draw_phantom(spec, index)
        middle = scan.pixels[1, 36:60].astype(float)
        left, right = middle[:, 10:40].max(), middle[:, 56:86].max()
        assert (right > left) == (index % 2 == 0), index


def test_several_cameras_give_several_fields_of_view() -> None:
    spec = PhantomSpec(patients=40, cameras=4, height=48, width=48)
    boxes = {draw_phantom(spec, index).valid_box for index in range(0, len(spec), 2)}
    assert len(boxes) > 1
    one = PhantomSpec(patients=10, cameras=1, height=48, width=48)
    assert len({draw_phantom(one, index).valid_box for index in range(len(one))}) == 1


@pytest.mark.parametrize("task", ["lesion", "pallor", "texture"])
def test_a_label_of_strength_zero_does_not_show(task: str) -> None:
    hidden = replace(SMALL, strengths=replace(Strengths(), **{task: 0.0}))
    moved = [
        not np.array_equal(draw_phantom(SMALL, i).pixels, draw_phantom(hidden, i).pixels)
        for i in range(10)
    ]
    assert any(moved)
    shown = [draw_phantom(SMALL, i).labels["lesion"] == 1 for i in range(10)]
    if task == "lesion":
        assert moved == shown


def test_an_index_outside_the_phantom_is_refused() -> None:
    with pytest.raises(IndexError, match="scan 40 is not one of"):
        draw_phantom(SMALL, 40)


def test_a_text_names_a_phantom() -> None:
    spec = PhantomSpec.parse("patients=600, seed=1,size=96x80,channels=1,cameras=2")
    assert spec == PhantomSpec(600, 1, 96, 80, 1, 2)
    assert PhantomSpec.parse("size=64") == PhantomSpec(height=64, width=64)
    assert PhantomSpec.parse("height=64,width=48") == PhantomSpec(height=64, width=48)
    assert PhantomSpec.parse("") == PhantomSpec()


def test_a_tilt_moves_the_stripes_and_no_other_number() -> None:
    level = PhantomSpec.parse("patients=10,seed=1,size=64,tilt=0")
    tilted = PhantomSpec.parse("patients=10,seed=1,size=64")
    assert (level.strengths.tilt_deg, tilted.strengths.tilt_deg) == (0.0, 30.0)
    assert PhantomSpec.parse("patients=10,seed=1,size=64,tilt=30") == tilted
    for index in range(4):
        first, second = draw_phantom(level, index), draw_phantom(tilted, index)
        assert first.labels == second.labels
        assert (first.mask == second.mask).all()
        assert (first.pixels != second.pixels).any()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("patient=3", "did you mean 'patients'"),
        ("patients=-3", "cannot be read; give a whole number"),
        ("patients=0", "patients 0 is too small; give 1 or more"),
        ("patients", "patients '' cannot be read"),
        ("size=96x", "size '96x' cannot be read; give 96 or 96x80"),
        ("size=96x96x3", "cannot be read"),
        ("size=8", "height 8 is too small; give 32 or more"),
        ("channels=2", "channels 2 is not one of 1, 3"),
        ("seed=1,seed=2", "gives seed twice"),
        ("tilt=-5", "tilt '-5' cannot be read; give a whole number"),
        ("size=64,height=32", "gives height twice"),
    ],
)
def test_a_text_that_names_no_phantom_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ScanlearnError, match=said) as error:
        PhantomSpec.parse(text)
    assert "\n" not in str(error.value)


def test_a_written_phantom_is_an_archive_that_says_what_it_is(tmp_path: Path) -> None:
    spec = replace(SMALL, patients=4)
    archive = write_phantom(spec, tmp_path / "drawn")
    assert len(archive) == 8
    assert archive.synthetic_phantom
    assert archive.patients_known
    assert archive.label_columns == TASKS
    assert NOT_EVIDENCE in (tmp_path / "drawn" / "archive.json").read_text()
    batch = archive.gather(np.arange(8))
    for index in range(8):
        scan = draw_phantom(spec, index)
        assert np.array_equal(batch.pixels[index].numpy(), scan.pixels)
        assert tuple(batch.valid_box[index].tolist()) == scan.valid_box
        assert batch.mask is not None
        assert np.array_equal(batch.mask[index].numpy(), scan.mask)
        assert archive.patients[index] == scan.patient
        assert {task: archive.labels(task)[index] for task in TASKS} == {
            task: str(label) for task, label in scan.labels.items()
        }


def test_the_same_phantom_written_twice_has_the_same_content(tmp_path: Path) -> None:
    spec = replace(SMALL, patients=3)
    first, second = write_phantom(spec, tmp_path / "a"), write_phantom(spec, tmp_path / "b")
    assert first.content_hash == second.content_hash


def test_a_phantom_is_not_written_over_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ScanlearnError, match="something lies there already"):
        write_phantom(SMALL, tmp_path)

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive.identity import Identities
from scanlearn.archive.reader import Archive
from scanlearn.audit.audit import audit
from scanlearn.audit.result import IDENTICAL, NEAR, PATIENT, Comparison
from scanlearn.cli import app
from scanlearn.errors import ScanlearnError
from scanlearn.files import features_folder

Draw = Callable[..., np.ndarray]
Write = Callable[..., Archive]
KEY = Identities(b"k" * 32, "north")


def pairs_of(found: Comparison, kind: int) -> list[tuple[str, str]]:
    chosen = found.pairs["kind"] == kind
    ids = (found.first_ids[chosen].tolist(), found.second_ids[chosen].tolist())
    return list(zip(*ids, strict=True))


def test_nothing_is_found_among_different_scans(draw_pictures: Draw, write_archive: Write) -> None:
    first = write_archive(draw_pictures(300), "a", identities=KEY)
    second = write_archive(draw_pictures(40, seed=1), "b", identities=KEY)
    found = audit(first.path, [second.path])
    assert not found.is_invalid
    assert [
        one.count(kind) for one in found.comparisons for kind in (PATIENT, IDENTICAL, NEAR)
    ] == ([0] * 6)
    assert [one.title for one in found.comparisons] == ["archive and labels", "within labels"]


def test_equal_pixels_are_found_and_invalid(draw_pictures: Draw, write_archive: Write) -> None:
    unlabeled, labeled = draw_pictures(60), draw_pictures(20, seed=1)
    labeled[[3, 7]] = unlabeled[[50, 4]]
    found = audit(write_archive(unlabeled, "a").path, [write_archive(labeled, "b").path])
    assert found.is_invalid
    assert pairs_of(found.comparisons[0], IDENTICAL) == [("a-50", "b-3"), ("a-4", "b-7")]
    assert found.comparisons[0].count(NEAR) == 0


def test_shared_patients_are_found_under_one_key(draw_pictures: Draw, write_archive: Write) -> None:
    first = write_archive(draw_pictures(4), "a", patients=["p", "q", "p", "r"], identities=KEY)
    second = write_archive(
        draw_pictures(4, seed=1), "b", patients=["x", "p", "r", "p"], identities=KEY
    )
    found = audit(first.path, [second.path]).comparisons[0]
    assert found.num_patients == 2
    assert pairs_of(found, PATIENT) == [("a-0", "b-1"), ("a-3", "b-2"), ("a-0", "b-3")]
    assert found.num_invalid == 3


def test_under_different_keys_pixels_are_still_compared(
    draw_pictures: Draw, write_archive: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels, names = draw_pictures(5), ["p", "q", "r", "s", "t"]
    other = Identities(b"l" * 32, "north")
    first = write_archive(pixels, "a", patients=names, identities=KEY)
    second = write_archive(pixels[:2], "b", patients=names, identities=other)
    found = audit(first.path, [second.path]).comparisons[0]
    assert found.num_patients is None
    assert found.count(IDENTICAL) == 2
    assert capsys.readouterr().out.count("different keys") == 1


def altered(picture: np.ndarray, how: str) -> np.ndarray:
    """Returns a gray picture ``[h w]`` as someone may have passed it on."""
    image = Image.fromarray(picture)
    if how == "cropped by 4 pixels":
        height, width = picture.shape
        return np.asarray(image.crop((4, 4, width - 4, height - 4)).resize((width, height)))
    if how == "shifted by 3 pixels":
        return np.pad(picture, ((3, 0), (0, 3)), mode="edge")[: len(picture), 3:]
    if how == "recompressed":
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=40)
        return np.asarray(Image.open(stream))
    if how == "brighter":
        return np.clip(picture * 0.7 + 60, 0, 255).astype(np.uint8)
    if how == "mirrored":
        return picture[:, ::-1]
    assert how == "turned", how
    return np.rot90(picture)


KINDS = (
    *("cropped by 4 pixels", "shifted by 3 pixels", "recompressed", "brighter", "mirrored"),
    "turned",
)


@pytest.mark.parametrize("how", KINDS)
def test_altered_copies_are_found(draw_pictures: Draw, write_archive: Write, how: str) -> None:
    unlabeled, labeled = draw_pictures(150, side=224), draw_pictures(40, seed=1, side=224)
    for row in range(20):
        labeled[row, 0] = altered(unlabeled[2 * row, 0], how)
    found = audit(write_archive(unlabeled, "a").path, [write_archive(labeled, "b").path])
    between = found.comparisons[0]
    planted = {(f"a-{2 * row}", f"b-{row}") for row in range(20)}
    near = set(pairs_of(between, NEAR))
    assert near <= planted
    assert len(near) >= 18
    assert not found.is_invalid
    turned = {"mirrored": "mirrored", "turned": "quarter turn right"}.get(how, "as it is")
    assert set(between.near_by_turn()) == {turned}


def test_copies_within_the_labels_count_across_patients_alone(
    draw_pictures: Draw, write_archive: Write
) -> None:
    labeled = draw_pictures(30)
    labeled[1] = labeled[2] = labeled[0]
    labeled[4] = labeled[5] = labeled[3]
    labeled[5, :, :2] //= 2
    labeled[3, 0, 0, 0] ^= 1
    patients = [f"p{row}" for row in range(30)]
    patients[1] = patients[0]
    archive = write_archive(labeled, "b", patients=patients)
    within = audit(write_archive(draw_pictures(3, seed=1), "a").path, [archive.path]).comparisons[1]
    assert pairs_of(within, IDENTICAL) == [("b-0", "b-2")]
    assert pairs_of(within, NEAR) == [("b-3", "b-4"), ("b-3", "b-5"), ("b-4", "b-5")]
    assert within.num_invalid == 1


def test_a_split_column_says_which_sides_and_what_is_tested(
    draw_pictures: Draw, write_archive: Write
) -> None:
    labeled = draw_pictures(12)
    labeled[6] = labeled[0]
    labeled[1] = labeled[2]
    unlabeled = np.concatenate([labeled[3:4], draw_pictures(5, seed=1)])
    patients = ["a", "b", "c", "d", "e", "f", *("g", "h", "f", "i", "j", "k")]
    split = [*["Train"] * 6, *["test"] * 5, ""]
    labels = write_archive(labeled, "b", patients=patients, labels={"fold": split})
    found = audit(write_archive(unlabeled, "a").path, [labels.path], split_column="fold")
    between, within = found.comparisons
    # A training scan among the unlabeled ones spoils nothing.
    assert (between.count(IDENTICAL), between.num_invalid) == (1, 0)
    assert pairs_of(within, IDENTICAL) == [("b-0", "b-6")]
    assert pairs_of(within, PATIENT) == [("b-5", "b-8")]
    assert within.num_patients == 1
    assert within.num_scans == (11, 11)
    assert found.is_invalid


def test_a_split_without_test_scans_is_refused(draw_pictures: Draw, write_archive: Write) -> None:
    archive = write_archive(draw_pictures(2), labels={"fold": ["train", "val"]})
    with pytest.raises(ScanlearnError, match="'fold' marks no scan as test"):
        audit(archive.path, [archive.path], split_column="fold")
    with pytest.raises(ScanlearnError, match="did you mean 'fold'"):
        audit(archive.path, [archive.path], split_column="folds")


def test_empty_scans_are_no_leak(write_archive: Write, rng: np.random.Generator) -> None:
    black = np.zeros((300, 1, 32, 32), np.uint8)
    noisy = rng.integers(98, 101, (20, 1, 32, 32)).astype(np.uint8)
    found = audit(
        write_archive(np.concatenate([black, noisy]), "a").path,
        [write_archive(np.concatenate([black[:9], noisy[:2]]), "b").path],
    )
    between = found.comparisons[0]
    assert between.num_blank == 331
    # Noise that is equal to the bit is a copy all the same.
    assert pairs_of(between, IDENTICAL) == [("a-300", "b-9"), ("a-301", "b-10")]
    assert between.count(NEAR) == 0


def test_files_hold_scan_ids_and_neither_paths_nor_patients(
    draw_pictures: Draw, write_archive: Write, tmp_path: Path
) -> None:
    pixels = draw_pictures(9)
    first = write_archive(pixels, "a", patients=["Jane Doe"] * 9, identities=KEY)
    second = write_archive(pixels[:3] // 2, "b", patients=["Jane Doe"] * 3, identities=KEY)
    audit(first.path, [second.path, first.path], output=tmp_path / "found", shown=5)
    written = {path.name: path.read_bytes() for path in (tmp_path / "found").iterdir()}
    assert set(written) == {"audit.json", "audit.csv", "audit.png"}
    for name in ("audit.json", "audit.csv"):
        assert b"Doe" not in written[name]
        assert str(tmp_path).encode() not in written[name]
    assert b"labels 2" in written["audit.json"]
    with Image.open(tmp_path / "found" / "audit.png") as sheet:
        assert sheet.width > 1000


def test_no_labeled_set_is_refused(draw_pictures: Draw, write_archive: Write) -> None:
    with pytest.raises(ScanlearnError, match="no labeled set is given"):
        audit(write_archive(draw_pictures(2)).path, [])


@pytest.mark.parametrize(("copies", "code"), [(1, 1), (0, 0)])
def test_the_exit_code_says_whether_a_result_would_be_invalid(
    draw_pictures: Draw,
    write_archive: Write,
    capsys: pytest.CaptureFixture[str],
    copies: int,
    code: int,
) -> None:
    pixels = draw_pictures(6)
    first, second = write_archive(pixels[:3], "a"), write_archive(pixels[3 - copies :], "b")
    with pytest.raises(SystemExit) as caught:
        app(["audit", str(first.path), str(second.path), "shown=3"])
    assert caught.value.code == code
    printed = capsys.readouterr()
    assert "within labels" in printed.out
    assert printed.err == ""


def test_all_scans_of_a_shared_patient_leak_and_those_of_copies(
    draw_pictures: Draw, write_archive: Write
) -> None:
    unlabeled, labeled = draw_pictures(8), draw_pictures(4, seed=1)
    labeled[3] = unlabeled[6]
    first = write_archive(
        unlabeled, "a", patients=["p", "q", "p", "r", "p", "s", "t", "u"], identities=KEY
    )
    second = write_archive(labeled, "b", patients=["p", "x", "y", "z"], identities=KEY)
    assert audit(first.path, [second.path]).comparisons[0].leaking.tolist() == [0, 2, 4, 6]


def test_an_audit_is_reused_until_the_scans_change(
    draw_pictures: Draw, write_archive: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlabeled, labeled = draw_pictures(20), draw_pictures(6, seed=1)
    labeled[2, 0] = altered(unlabeled[5, 0], "brighter")
    first, second = write_archive(unlabeled, "a"), write_archive(labeled, "b")
    before = audit(first.path, [second.path])
    with monkeypatch.context() as patched:
        patched.setattr(Archive, "gather", None)
        again = audit(first.path, [second.path])
        assert [pairs_of(one, NEAR) for one in again.comparisons] == [[("a-5", "b-2")], []]
        assert [one.facts() for one in again.comparisons] == [
            one.facts() for one in before.comparisons
        ]
        with pytest.raises(TypeError):
            audit(first.path, [first.path])
    for file in features_folder().glob("*near*"):
        file.write_bytes(b"PK\x03\x04 cut short")
    assert audit(first.path, [second.path]).comparisons[0].facts() == before.comparisons[0].facts()


def test_paths_of_pairs_are_for_their_owner_alone(
    draw_pictures: Draw, write_archive: Write, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        for row, picture in enumerate(draw_pictures(3, seed=seed)):
            Image.fromarray(picture[0]).save(tmp_path / name / f"{row}.png")
    (tmp_path / "a/0.png").rename(tmp_path / "a/z.png")
    (tmp_path / "b/1.png").write_bytes((tmp_path / "a/z.png").read_bytes())
    output = tmp_path / "audit"
    audit(tmp_path / "a", [tmp_path / "b"], output=output)
    assert (output / "paths.csv").read_text().splitlines()[1:] == [
        "identical,archive,z.png,labels,1.png"
    ]
    assert (output / "paths.csv").stat().st_mode & 0o077 == 0
    assert "z.png" not in (output / "audit.csv").read_text()

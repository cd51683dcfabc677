from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn

from scanlearn.archive.reader import Archive
from scanlearn.audit.fingerprint import (
    TURNS,
    Fingerprints,
    digests_of,
    fingerprint,
    small_pictures,
    spectra_of,
    turn_pictures,
    turn_spectra,
)
from scanlearn.console import track

Draw = Callable[..., np.ndarray]
Write = Callable[..., Archive]


def prints(archive: Archive, rows: np.ndarray | None = None) -> Fingerprints:
    rows = np.arange(len(archive)) if rows is None else rows
    with track(len(rows), "test", visible=False) as progress:
        return fingerprint(archive, rows, progress)


def small(archive: Archive) -> torch.Tensor:
    return small_pictures(archive.gather(np.arange(len(archive))))


def test_only_equal_pixels_have_equal_digests(draw_pictures: Draw, write_archive: Write) -> None:
    pixels = draw_pictures(3)
    pixels[1] = pixels[0]
    pixels[2] = pixels[0]
    pixels[2, 0, 50, 50] ^= 1
    one, same, other = prints(write_archive(pixels)).digests
    assert one == same != other


def test_a_scan_of_one_value_has_no_digest(draw_pictures: Draw, write_archive: Write) -> None:
    pixels = draw_pictures(2)
    pixels[1] = 77
    assert (prints(write_archive(pixels)).digests == 0).tolist() == [False, True]


def test_padding_and_repeated_channels_do_not_count(
    draw_pictures: Draw, write_archive: Write
) -> None:
    scan = draw_pictures(1)
    padded = np.zeros((1, 3, 120, 110), np.uint8)
    padded[:, :, :96, :96] = scan
    padded[:, :, 96:] = 9
    colour = padded.copy()
    colour[0, 2, 0, 0] ^= 1
    boxes = [(0, 0, 96, 96)]
    digest = prints(write_archive(scan)).digests
    assert prints(write_archive(padded, "b", boxes=boxes)).digests == digest
    assert prints(write_archive(colour, "c", boxes=boxes)).digests != digest


def test_the_depth_and_the_shape_are_part_of_a_digest(write_archive: Write) -> None:
    octets = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    digests = {
        int(prints(write_archive(octets, "a")).digests[0]),
        int(prints(write_archive(octets.view("<u2"), "b")).digests[0]),
        int(prints(write_archive(octets.reshape(1, 1, 4, 16), "c")).digests[0]),
    }
    assert len(digests) == 3


def test_small_pictures_are_standardised_and_squashed_into_a_square(
    draw_pictures: Draw, write_archive: Write
) -> None:
    scan = draw_pictures(1, side=160)
    flat = np.asarray(Image.fromarray(scan[0, 0]).resize((160, 100), Image.Resampling.BICUBIC))
    both = np.concatenate([scan, scan])
    both[1, 0, :100] = flat
    found = small(write_archive(both, boxes=[(0, 0, 160, 160), (0, 0, 100, 160)]))
    assert found.shape == (2, 64, 64)
    assert found.mean((1, 2)).abs().max() < 1e-5
    torch.testing.assert_close(found.std((1, 2)), torch.ones(2), atol=1e-3, rtol=0)
    assert (found[0] * found[1]).mean() > 0.998


def test_a_scan_without_contrast_looks_like_nothing(
    draw_pictures: Draw, write_archive: Write, rng: np.random.Generator
) -> None:
    pixels = draw_pictures(2)
    pixels[1] = 100 + rng.integers(0, 3, pixels[1].shape)
    archive = write_archive(pixels)
    assert not small(archive)[1].any()
    found = prints(archive)
    assert found.has_contrast.tolist() == [True, False]
    assert found.digests[1] != 0


def test_colour_becomes_luma(draw_pictures: Draw, write_archive: Write) -> None:
    colour = draw_pictures(3, side=64).reshape(1, 3, 64, 64)
    luma = (colour[0] * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    luma = (luma - luma.mean()) / luma.std()
    np.testing.assert_allclose(small(write_archive(colour))[0].numpy(), luma, atol=1e-4)


def test_a_spectrum_is_the_lowest_corner_of_the_cosine_transform(
    draw_pictures: Draw, write_archive: Write
) -> None:
    pictures = small(write_archive(draw_pictures(4)))
    slow = np.stack([dctn(picture, norm="ortho")[:8, :8] for picture in pictures.numpy()])
    np.testing.assert_allclose(spectra_of(pictures), slow.reshape(4, -1)[:, 1:] / 64, atol=1e-3)


@pytest.mark.parametrize("turn", range(len(TURNS)))
def test_turning_a_spectrum_is_turning_the_picture(
    draw_pictures: Draw, write_archive: Write, turn: int
) -> None:
    pictures = small(write_archive(draw_pictures(4)))
    turned = spectra_of(turn_pictures(pictures, turn))
    np.testing.assert_allclose(turn_spectra(spectra_of(pictures), turn), turned, atol=1e-3)


def test_turns_are_what_their_names_say() -> None:
    corner = torch.arange(9.0).view(1, 3, 3)
    plain = corner[0].numpy()
    expected = {
        "as it is": plain,
        "mirrored": plain[:, ::-1],
        "upside down": plain[::-1],
        "half turn": np.rot90(plain, 2),
        "transposed": plain.T,
        "quarter turn right": np.rot90(plain, -1),
        "quarter turn left": np.rot90(plain, 1),
        "transposed, half turn": np.rot90(plain.T, 2),
    }
    assert tuple(expected) == TURNS
    for turn, name in enumerate(TURNS):
        np.testing.assert_array_equal(turn_pictures(corner, turn)[0].numpy(), expected[name])


def test_brightness_and_depth_leave_the_spectrum(draw_pictures: Draw, write_archive: Write) -> None:
    pixels = draw_pictures(2).astype(np.uint16) // 2
    archive = write_archive(np.concatenate([pixels, pixels + 60]).astype(np.uint8))
    deep = write_archive(pixels * 200, "deep")
    one = prints(archive).spectra.astype(np.float32)
    np.testing.assert_allclose(one[:2], one[2:], atol=2e-3)
    np.testing.assert_allclose(prints(deep).spectra.astype(np.float32), one[:2], atol=2e-3)


def test_fingerprints_follow_the_rows_asked_for_over_many_batches(
    draw_pictures: Draw, write_archive: Write
) -> None:
    archive = write_archive(draw_pictures(300, side=12))
    rows = np.arange(299, -1, -1)
    forward, backward = prints(archive), prints(archive, rows)
    assert len(forward) == 300
    np.testing.assert_array_equal(forward.digests[rows], backward.digests)
    np.testing.assert_array_equal(forward.spectra[rows], backward.spectra)
    assert len(set(forward.digests.tolist())) == 300


def test_digests_are_the_same_everywhere() -> None:
    from scanlearn.core import ScanBatch

    batch = ScanBatch(
        pixels=torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4),
        valid_box=torch.tensor([[0, 0, 4, 4]]),
        mask=None,
        spacing_mm=torch.ones(1, 2),
        value_range=torch.tensor([[0.0, 255.0]]),
        ids=torch.zeros(1, dtype=torch.int64),
    )
    assert digests_of(batch).tolist() == [2722627609028690977]

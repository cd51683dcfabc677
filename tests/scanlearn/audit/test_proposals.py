from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import idctn

from scanlearn.audit import proposals
from scanlearn.audit.fingerprint import TURNS, Fingerprints, spectra_of, turn_pictures
from scanlearn.audit.proposals import MOST_PROPOSED, Proposals
from scanlearn.console import track
from scanlearn.phantom.phantom import PhantomSpec, draw_phantom

# Every turn but the two quarter turns undoes itself.
UNDONE = (0, 1, 2, 3, 4, 6, 5, 7)


def standardised(pictures: np.ndarray) -> torch.Tensor:
    small = torch.from_numpy(np.ascontiguousarray(pictures, np.float32))
    small = small - small.mean((1, 2), keepdim=True)
    return small / small.square().mean((1, 2), keepdim=True).sqrt()


def random_pictures(rng: np.random.Generator, number: int, side: int = 64) -> np.ndarray:
    """Returns ``[n side side]`` pictures of what scans have: much coarse and little fine."""
    frequency = np.hypot(*np.indices((side, side)))
    return idctn(rng.normal(size=(number, side, side)) / (1 + frequency) ** 1.5, axes=(1, 2))


def prints(pictures: np.ndarray | torch.Tensor) -> Fingerprints:
    small = standardised(np.asarray(pictures))
    return Fingerprints(np.arange(1, len(small) + 1, dtype=np.uint64), spectra_of(small), small)


def propose(first: Fingerprints, second: Fingerprints, within: bool = False) -> Proposals:
    with track(proposals.num_rounds(second), "test", visible=False) as progress:
        return proposals.propose(
            first, second, progress, lambda one, other: (one < other) | (not within)
        )


def as_set(proposed: Proposals) -> set[tuple[int, int, int]]:
    columns = (proposed.first, proposed.second, proposed.turn)
    return set(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("number", [20, 600])
def test_a_copy_is_proposed_in_the_turn_that_it_needs(
    rng: np.random.Generator, number: int
) -> None:
    pictures = standardised(random_pictures(rng, number))
    turns = np.arange(number) % len(TURNS)
    noise = 0.05 * torch.from_numpy(rng.normal(size=pictures.shape).astype(np.float32))
    copies = torch.cat(
        [turn_pictures(pictures[row : row + 1], UNDONE[t]) for row, t in enumerate(turns.tolist())]
    )
    found = as_set(propose(prints(pictures), prints(copies + noise)))
    assert {(row, row, turn) for row, turn in enumerate(turns.tolist())} <= found


@pytest.mark.parametrize(("cut", "share"), [(1, 0.99), (2, 0.99), (3, 0.9)])
def test_a_cropped_copy_is_proposed_and_little_else(
    rng: np.random.Generator, cut: int, share: float
) -> None:
    pictures = standardised(random_pictures(rng, 400))
    inner = pictures[:, None, cut : 64 - cut, : 64 - cut]
    copies = torch.nn.functional.interpolate(inner, (64, 64), mode="bicubic")[:, 0]
    proposed = propose(prints(pictures), prints(copies))
    is_copy = (proposed.first == proposed.second) & (proposed.turn == 0)
    assert is_copy.sum() >= share * len(pictures)
    assert (~is_copy).sum() <= 0.1 * len(pictures)


def test_scans_that_share_a_rim_and_shading_are_not_proposed() -> None:
    spec = PhantomSpec.parse("patients=120,seed=3,size=64x64")
    eyes = np.stack([draw_phantom(spec, row).pixels.mean(0) for row in range(len(spec))])
    right, left = prints(eyes[::2]), prints(eyes[1::2])
    whole = standardised(eyes)
    alike = np.corrcoef(whole[::2].flatten(1).numpy())
    # They look alike: a bound on the plain correlation would propose most pairs.
    assert np.median(alike[np.triu_indices(len(alike), 1)]) > 0.6
    assert len(propose(right, left)) <= 0.5 * len(left)


def test_work_is_bounded_where_all_scans_are_copies(rng: np.random.Generator) -> None:
    one = standardised(random_pictures(rng, 1)).repeat(2000, 1, 1)
    noise = 0.02 * torch.from_numpy(rng.normal(size=one.shape).astype(np.float32))
    alike = prints(one + noise)
    part = Fingerprints(alike.digests[:50], alike.spectra[:50], alike.sample[:50])
    counts = np.bincount(propose(alike, part).second, minlength=50)
    assert counts.tolist() == [MOST_PROPOSED] * 50


def test_what_may_not_be_paired_takes_no_place_of_what_may(rng: np.random.Generator) -> None:
    one = standardised(random_pictures(rng, 40)).repeat(2, 1, 1)
    found = as_set(propose(prints(one), prints(one), within=True))
    assert all(first < second for first, second, _ in found)
    assert {(row, row + 40, 0) for row in range(40)} <= found


def test_scans_without_contrast_are_never_proposed(rng: np.random.Generator) -> None:
    pictures = standardised(random_pictures(rng, 60))
    whole = prints(pictures)
    spectra = whole.spectra.copy()
    spectra[::2] = 0
    blank = Fingerprints(whole.digests, spectra, whole.sample)
    found = propose(blank, blank)
    assert set(found.first.tolist()) == set(range(1, 60, 2))
    assert set(found.second.tolist()) == set(range(1, 60, 2))
    none = Fingerprints(whole.digests[:0], whole.spectra[:0], whole.sample[:0])
    assert len(propose(none, blank)) == len(propose(blank, none)) == 0


def test_proposals_are_the_same_again(rng: np.random.Generator) -> None:
    whole = prints(random_pictures(rng, 300))
    assert as_set(propose(whole, whole)) == as_set(propose(whole, whole))


def test_scans_that_lie_in_turns_are_all_learned_from(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Right and left eyes by turns, and so many that only some are looked at.
    pictures = standardised(random_pictures(rng, 400))
    side = torch.linspace(-4, 4, 64).expand(64, 64)
    pictures[::2] += side
    pictures[1::2] -= side
    monkeypatch.setattr(proposals, "_SAMPLED", 100)
    whole = prints(pictures)
    inner = torch.nn.functional.interpolate(pictures[:, None, 1:63, 1:63], (64, 64))[:, 0]
    proposed = propose(whole, prints(inner))
    is_copy = (proposed.first == proposed.second) & (proposed.turn == 0)
    assert is_copy.sum() >= 0.98 * len(pictures)

from __future__ import annotations

import numpy as np
import torch

from scantune.tuning.mixing import Targets, mix_views


def batch(size: int = 16) -> tuple[torch.Tensor, Targets]:
    """Views that are filled with their own number, and targets that are it."""
    numbers = torch.arange(16.0)
    views = numbers[:, None, None, None].expand(16, 1, size, size).clone()
    return views, Targets(numbers[:, None].clone(), torch.ones(16, 1))


def test_without_alpha_nothing_is_mixed() -> None:
    views, targets = batch()
    mixed, same = mix_views(views, targets, np.random.default_rng(0), mixup=0, cutmix=0)
    assert mixed is views
    assert same is targets


def test_mixup_mixes_views_and_targets_in_one_share() -> None:
    views, targets = batch()
    mixed, found = mix_views(views, targets, np.random.default_rng(0), mixup=0.8, cutmix=0)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), found.wanted[:, 0])
    assert not torch.equal(mixed, views)


def test_cutmix_keeps_the_share_of_the_area_that_the_target_keeps() -> None:
    for seed in range(20):
        views, targets = batch()
        mixed, found = mix_views(views, targets, np.random.default_rng(seed), mixup=0, cutmix=1.0)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), found.wanted[:, 0])
        assert torch.isin(mixed, views).all()


def test_cutmix_cuts_one_box() -> None:
    views, targets = batch(32)
    mixed, _ = mix_views(views, targets, np.random.default_rng(3), mixup=0, cutmix=1.0)
    changed = (mixed != views).any(0)[0]
    rows, columns = changed.any(1), changed.any(0)
    assert 0 < int(changed.sum()) == int(rows.sum()) * int(columns.sum()) < 32 * 32


def test_of_both_each_batch_takes_one_by_a_fair_coin() -> None:
    views, targets = batch()
    rng = np.random.default_rng(0)
    cuts = [
        bool(torch.isin(mix_views(views, targets, rng, mixup=0.5, cutmix=1.0)[0], views).all())
        for _ in range(200)
    ]
    assert 70 < sum(cuts) < 130


def test_a_label_unknown_in_one_of_a_pair_is_unknown_in_the_mixture() -> None:
    views, targets = batch()
    unknown = Targets(targets.wanted, (torch.arange(16) % 4 > 0).float()[:, None])
    rng = np.random.default_rng(1)
    _, found = mix_views(views, unknown, rng, mixup=0.8, cutmix=0)
    again = np.random.default_rng(1)
    again.beta(0.8, 0.8)
    partner = again.permutation(16)
    expected = unknown.known * unknown.known[partner]
    assert torch.equal(found.known, expected)
    assert 0 < float(expected.sum()) < float(unknown.known.sum())

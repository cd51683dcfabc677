"""Folds within the training patients: what a penalty is chosen by, and when to stop."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from scanlearn.core import ScanlearnError
from scantune.splits import Fold, patient_folds
from scantune.truth import Truth

INNER_FOLDS = 5
# One patient in five validates; an AUROC of fewer than ten of them would be a toss.
FEWEST_PATIENTS = 50


def inner_folds(truth: Truth, patients: Int[np.ndarray, " t"], seed: int) -> tuple[Fold, ...]:
    """Returns folds of the training patients; none where there are too few."""
    try:
        num_patients = len(np.unique(patients[truth.is_real]))
        return patient_folds(truth, patients, min(INNER_FOLDS, num_patients), seed)
    except ScanlearnError:
        return ()


def hold_out(truth: Truth, patients: Int[np.ndarray, " t"], seed: int) -> Fold | None:
    """Returns training scans to fit on and to validate on, stratified, no patient in both.

    None where there are fewer than 50 patients, or no class has scans with and without it on both
    sides: then all of them are fitted on, to the last epoch.

    Args:
        truth: Of the training scans.
        patients: ``[t]`` patient of each.
        seed: Of the patients' order.
    """
    if len(np.unique(patients[truth.is_real])) < FEWEST_PATIENTS:
        return None
    parts = inner_folds(truth, patients, seed)[:1]
    return next((part for part in parts if truth[part.test].has_contrast()), None)

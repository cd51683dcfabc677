"""Estimates on the scale of normal scores, z = Phi^-1(AUROC).

On AUROC what a better network gains goes by its height: as much again shows as .05 at .78 and as
.02 near .9. On normal scores, where an AUROC is Phi of the distance of two classes in standard
deviations over the root of 2, it is one number at every height, which places of a table can share
and classes can differ in.
"""

from __future__ import annotations

import math
from dataclasses import replace

from scipy.special import ndtri

from scantune.statistics.few_patients import effective_fewest
from scantune.statistics.intervals import Estimate


def bounded(auroc: float, fewest: float) -> float:
    """Returns an AUROC that has a normal score: of 0 or 1 half a patient's error is assumed."""
    least = 0.5 / (fewest + 1)
    return min(max(auroc, least), 1 - least)


def slope(auroc: float) -> float:
    """Returns dz / dAUROC."""
    return math.sqrt(2 * math.pi) * math.exp(float(ndtri(auroc)) ** 2 / 2)


def on_probit_scale(each: Estimate) -> Estimate:
    """Returns an estimate as a normal score, what it varies by to first order (delta method)."""
    fewest = effective_fewest(each.sides) if each.sides else each.num_patients
    auroc = bounded(each.auroc, fewest)
    z, by = float(ndtri(auroc)), slope(auroc)
    return replace(
        each,
        auroc=z,
        per_fold=z + by * (each.per_fold - each.auroc),
        replicates=z + by * (each.replicates - each.auroc),
        refits=None if each.refits is None else z + by * (each.refits - each.auroc),
    )

"""Geometry beyond the crop: flips, turns, translation, stretch, shear and elastic deformation.

All are composed with the crop into one grid, and the packed scan is sampled once through it
(`scanlearn.views.warp`).
"""

from __future__ import annotations

import math

import numpy as np

from scanlearn.views.operations.operation import Operation, Parameter, probability

# Of the view's side. Nothing folds up to 1 / 2.046 of the distance of control points, a quarter.
# Source: Choi and Lee, Injectivity conditions of 2D and 3D uniform cubic B-spline functions,
# Graphical Models 62, 2000.
LARGEST_ELASTIC = 0.1

FLIP = Operation(
    "flip",
    "geometry",
    # Mirroring more often than every other time is less variation again.
    (probability("flip", "Mirrored left to right", peak=0.5),),
    lambda quantiles: {"flip": quantiles.happens("flip")},
)
VFLIP = Operation(
    "vflip",
    "geometry",
    (probability("vflip", "Mirrored top to bottom", peak=0.5),),
    lambda quantiles: {"vflip": quantiles.happens("vflip")},
)
# From 0 to 3 of them, so that with probability 1 every direction is as likely.
QUARTER_TURNS = Operation(
    "quarter_turns",
    "geometry",
    (probability("quarter_turns", "Quarter turns drawn from 0 to 3"),),
    lambda quantiles: {
        "quarter_turns": np.where(
            quantiles.happens("quarter_turns"),
            (4 * quantiles.uniform("quarter_turns_number")).astype(np.int64),
            0,
        )
    },
)
ROTATION = Operation(
    "rotation",
    "geometry",
    (
        probability("rotation", "Rotation"),
        Parameter("rotation_deg", "Rotation", "± degrees", highest=180),
    ),
    lambda quantiles: {
        "rotation_deg": quantiles.either_way("rotation", "rotation_deg", "rotation_deg")
    },
)
TRANSLATION = Operation(
    "translation",
    "geometry",
    (
        probability("translation", "Translation"),
        Parameter("translation", "Translation", "± of the side", highest=0.5),
    ),
    lambda quantiles: {"translation": quantiles.pair("translation", "translation")},
)
STRETCH = Operation(
    "stretch",
    "geometry",
    (
        probability("stretch", "Stretch"),
        Parameter("stretch", "Stretch", "± ln w/h", highest=math.log(2)),
    ),
    lambda quantiles: {"stretch": quantiles.either_way("stretch", "stretch", "stretch_ratio")},
)
SHEAR = Operation(
    "shear",
    "geometry",
    (probability("shear", "Shear"), Parameter("shear_deg", "Shear", "± degrees", highest=45)),
    lambda quantiles: {"shear_deg": quantiles.pair("shear", "shear_deg")},
)
ELASTIC = Operation(
    "elastic",
    "geometry",
    (
        probability("elastic", "Elastic deformation"),
        Parameter(
            "elastic",
            "Elastic deformation, largest displacement",
            "of the side",
            highest=LARGEST_ELASTIC,
        ),
        Parameter(
            "elastic_mm",
            "The same where spacing is known",
            "mm",
            highest=100,
            in_place_of="elastic",
        ),
        Parameter(
            "elastic_axial",
            "Elastic deformation up and down only",
            "of the side",
            highest=LARGEST_ELASTIC,
        ),
    ),
    lambda quantiles: {
        name: quantiles.happens("elastic") * quantiles.span(name)
        for name in ("elastic", "elastic_mm", "elastic_axial")
    },
)

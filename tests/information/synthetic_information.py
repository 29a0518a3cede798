"""A result with synthetic losses."""

import math

import numpy as np

from selfdistill.information import (
    HELD_OUT,
    TRAINING,
    CriticLoss,
    EstimatorConfig,
    InformationResult,
)

TAPS = {"deep": ("stem", "layer1", "layer2"), "flat": ("low", "high")}


def synthetic(
    seeds=(0,), taps=TAPS, estimator: str = "jsd", chance: float = 2 * math.log(2)
) -> InformationResult:
    """Two networks, of which the last module of the second has one cell."""
    draw, rows = np.random.default_rng(0), []
    for network, names in taps.items():
        terms = [f"mutual/{i}" for i in range(1, len(names))]
        terms += [f"self/{i}" for i in range(1, len(names) + (network != "flat"))]
        for seed in seeds:
            for step in (10, 20, 30):
                for split in (TRAINING, HELD_OUT):
                    rows += [
                        CriticLoss(
                            network, seed, step, term, split, 1.2 - step / 40 + draw.uniform(0, 0.1)
                        )
                        for term in terms
                    ]
    config = EstimatorConfig(steps=30, seeds=seeds, estimator=estimator)
    return InformationResult(rows, taps, chance, "128 validation images", config)

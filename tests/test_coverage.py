"""Do the intervals keep their word? Simulation with a true difference known from the law the clips are drawn from.

The law: BSD10k's class shares, a class's own accuracy of 45 to 95 %, errors that stay in the family far more
often than chance, and two systems that agree on 60 % of the clips or more. The true hF of each is that of its
expected confusion matrix. Standard error of a coverage over 2,000 worlds: 0.5 points.
"""

from __future__ import annotations

import numpy as np
import pytest

from hac_utils.metrics import scores
from hac_utils.stats import paired_bootstrap, verdict
from hac_utils.taxonomy import CLASSES, SAME_FAMILY

CODES = np.array(CLASSES)
#: Clips per class of BSD10k v1.2, taxonomy order.
COUNTS = [683, 721, 323, 606, 528, 566, 362, 297, 806, 177, 364, 1211, 201, 279, 975, 166, 652, 297, 208, 391, 207]
PRIOR = np.array([*COUNTS, 719, 217]) / 10_956
AGREE = 0.6  # b copies a on this share of the clips, and else draws its own answer
WORLDS, CLIPS, RESAMPLES = 2000, 1000, 250
CLUSTERED_WORLDS, UPLOADERS = 400, 300


def confusion(rng, low, high):
    """P(predicted | true), shape (23, 23)."""
    wrong = rng.gamma(0.4, size=(23, 23)) * (1 + 12 * SAME_FAMILY)
    np.fill_diagonal(wrong, 0)
    right = rng.uniform(low, high, 23)
    return np.diag(right) + (1 - right)[:, None] * wrong / wrong.sum(1, keepdims=True)


_RNG = np.random.default_rng(0)
A, OWN = confusion(_RNG, 0.5, 0.95), confusion(_RNG, 0.45, 0.9)
B = AGREE * A + (1 - AGREE) * OWN
TRUE_DIFFERENCE = scores(PRIOR[:, None] * A)["hF"] - scores(PRIOR[:, None] * B)["hF"]


def answer(law, true, rng):
    """One prediction per clip, positions, drawn from ``law[true]``."""
    return (rng.random(len(true))[:, None] > law.cumsum(1)[true]).sum(1).clip(max=22)


def answers(true, rng):
    """Predictions of a and b for the same clips."""
    a = answer(A, true, rng)
    return a, np.where(rng.random(len(true)) < AGREE, a, answer(OWN, true, rng))


def interval(true, a, b, seed, **options):
    return paired_bootstrap(CODES[true], CODES[a], CODES[b], n_resamples=RESAMPLES, seed=seed, **options)


@pytest.fixture(scope="module")
def different():
    """Results for two different systems, one per world."""
    out = []
    for i in range(WORLDS):
        rng = np.random.default_rng([1, i])
        true = rng.choice(23, CLIPS, p=PRIOR)
        out.append(interval(true, *answers(true, rng), seed=i))
    return out


@pytest.fixture(scope="module")
def twins():
    """Results for two systems of one law with independent luck: their true difference is 0."""
    out = []
    for i in range(WORLDS):
        rng = np.random.default_rng([2, i])
        true = rng.choice(23, CLIPS, p=PRIOR)
        out.append(interval(true, answer(A, true, rng), answer(A, true, rng), seed=i))
    return out


@pytest.fixture(scope="module")
def clustered():
    """Results over uploaders and over clips, where an uploader's clips share truth and mostly the answers too."""
    by_uploader, by_clip = [], []
    for i in range(CLUSTERED_WORLDS):
        rng = np.random.default_rng([3, i])
        uploader = np.repeat(np.arange(UPLOADERS), rng.geometric(1 / 6, UPLOADERS))
        usual_true = rng.choice(23, UPLOADERS, p=PRIOR)
        usual_a, usual_b = answers(usual_true, rng)
        true = usual_true[uploader]
        a, b = answers(true, rng)
        usual = rng.random(len(true)) < 0.9
        a, b = np.where(usual, usual_a[uploader], a), np.where(usual, usual_b[uploader], b)
        by_uploader.append(interval(true, a, b, seed=i, cluster=uploader))
        by_clip.append(interval(true, a, b, seed=i))
    return by_uploader, by_clip


def scaled(results, width):
    """The same results with intervals `width` times as wide."""
    return [r | {k: r["diff"] + width * (r[k] - r["diff"]) for k in ("low", "high")} for r in results]


def coverage(results, true_difference):
    return np.mean([r["low"] <= true_difference <= r["high"] for r in results])


def ties(results):
    return np.mean([verdict(r).startswith("tie") for r in results])


def honest(share):
    """Nominal 95 %, 93 to 97 allowed."""
    return 0.93 <= share <= 0.97


def test_the_simulated_systems_are_realistic_and_differ():
    assert 0.6 < scores(PRIOR[:, None] * A)["hF"] < 0.85
    assert PRIOR.sum() == pytest.approx(1, abs=1e-12) and abs(TRUE_DIFFERENCE) > 0.002
    rng = np.random.default_rng(5)
    true = rng.choice(23, 1_000_000, p=PRIOR)  # a large population agrees with the law's own difference
    measured = [scores(np.bincount(true * 23 + p, minlength=529).reshape(23, 23))["hF"] for p in answers(true, rng)]
    assert measured[0] - measured[1] == pytest.approx(TRUE_DIFFERENCE, abs=0.001)


def test_a_95_percent_interval_over_clips_covers_the_true_difference_in_93_to_97_percent(different):
    assert honest(coverage(different, TRUE_DIFFERENCE))


def test_two_systems_of_one_law_are_called_a_tie_in_at_least_94_percent_but_not_always(twins):
    assert 0.94 <= ties(twins) <= 0.97
    assert honest(coverage(twins, 0.0))


@pytest.mark.parametrize("width", [0.5, 0.85, 1.25])
def test_an_interval_of_the_wrong_width_would_fail_these_tests(different, twins, width):
    assert not honest(coverage(scaled(different, width), TRUE_DIFFERENCE))
    assert not 0.94 <= ties(scaled(twins, width)) <= 0.97


def test_an_interval_around_the_wrong_place_would_fail_too(different):
    width = np.mean([r["high"] - r["low"] for r in different])
    assert not honest(coverage(different, TRUE_DIFFERENCE + width / 4))


def test_intervals_over_uploaders_cover_where_intervals_over_clips_do_not(clustered):
    by_uploader, by_clip = clustered
    assert honest(coverage(by_uploader, TRUE_DIFFERENCE))
    assert coverage(by_clip, TRUE_DIFFERENCE) < 0.7
    assert not honest(coverage(scaled(by_uploader, 0.5), TRUE_DIFFERENCE))

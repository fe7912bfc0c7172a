"""Bootstrap, verdicts, Holm and mean ± std."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from hac_utils.errors import HacError
from hac_utils.metrics import confusion_matrix, hierarchical_accuracy, hierarchical_f1, scores
from hac_utils.stats import holm, mean_std, paired_bootstrap, verdict
from hac_utils.taxonomy import CLASSES

CODES = np.array(CLASSES)


def systems(n, seed, right_a=0.75, right_b=0.7):
    """Truth and two related systems, codes, shape (n,)."""
    rng = np.random.default_rng(seed)
    true, other = rng.integers(0, 23, (2, n))
    luck = rng.random(n)
    a = np.where(luck < right_a, true, other)
    b = np.where((luck < right_b - 0.05) | (rng.random(n) < 0.15), true, rng.integers(0, 23, n))
    return CODES[true], CODES[a], CODES[b]


def direct(true, a, b, metric, n_resamples, seed, groups=None):
    """The same bootstrap by drawing clips (or whole groups) one by one."""
    rng = np.random.default_rng(seed)
    groups = np.arange(len(true)) if groups is None else groups
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    out = []
    for _ in range(n_resamples):
        i = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        sa, sb = (scores(confusion_matrix(true[i], p[i]))[metric] for p in (a, b))
        out.append(sa - sb)
    return np.array(out)


@pytest.mark.parametrize("metric", ["hF", "hA"])
def test_the_interval_agrees_with_drawing_clips_one_by_one(metric):
    true, a, b = systems(600, 1)
    result = paired_bootstrap(true, a, b, metric=metric, n_resamples=4000)
    expected = direct(true, a, b, metric, 800, 9)
    sd = (result["high"] - result["low"]) / (2 * 1.96)
    assert sd == pytest.approx(expected.std(), rel=0.1)
    assert (result["high"] + result["low"]) / 2 == pytest.approx(expected.mean(), abs=0.15 * expected.std())


def test_the_cluster_interval_agrees_with_drawing_whole_clusters():
    true, a, b = systems(400, 2)
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 400)
    # Some uploaders are easy for b and some hard: clips of a cluster resemble each other.
    b = np.where(groups < 8, true, np.where(groups < 16, "fx-o", b))
    result = paired_bootstrap(true, a, b, n_resamples=4000, cluster=groups)
    expected = direct(true, a, b, "hF", 800, 9, groups)
    assert (result["high"] - result["low"]) / (2 * 1.96) == pytest.approx(expected.std(), rel=0.1)
    plain = paired_bootstrap(true, a, b, n_resamples=4000)
    assert plain["diff"] == pytest.approx(result["diff"], abs=1e-12)
    assert result["high"] - result["low"] > 1.3 * (plain["high"] - plain["low"])


def test_clusters_of_one_clip_are_the_plain_bootstrap_and_missing_uploaders_stand_alone():
    true, a, b = systems(200, 3)
    plain = paired_bootstrap(true, a, b, n_resamples=500)
    assert paired_bootstrap(true, a, b, n_resamples=500, cluster=np.arange(200)) == plain
    nobody = [None, "", np.nan, " "] * 50
    assert paired_bootstrap(true, a, b, n_resamples=500, cluster=nobody) == plain


def test_the_difference_is_the_difference_of_the_metric():
    true, a, b = systems(300, 4)
    for metric, f in (("hF", hierarchical_f1), ("hA", hierarchical_accuracy)):
        result = paired_bootstrap(true, a, b, metric=metric, n_resamples=200)
        assert result["diff"] == pytest.approx(f(true, a) - f(true, b), abs=1e-12)
        assert result["low"] < result["diff"] < result["high"] and result["n"] == 300


def test_identical_systems_tie_with_difference_zero():
    true, a, _ = systems(300, 5)
    result = paired_bootstrap(true, a, a, n_resamples=300)
    assert (result["diff"], result["low"], result["high"], result["p"]) == (0.0, 0.0, 0.0, 1.0)
    assert verdict(result) == "tie: difference 0.00, 95 % interval 0.00 … 0.00"


def test_swapping_the_systems_flips_the_sign_and_keeps_p():
    true, a, b = systems(300, 6)
    one, two = paired_bootstrap(true, a, b, n_resamples=2000), paired_bootstrap(true, b, a, n_resamples=2000)
    assert one["diff"] == pytest.approx(-two["diff"], abs=1e-12)
    assert one["low"] == pytest.approx(-two["high"], abs=0.006)
    assert one["p"] == pytest.approx(two["p"], abs=0.05)


def test_the_same_seed_gives_the_same_result_whatever_the_order_of_clips():
    true, a, b = systems(300, 7)
    i = np.random.default_rng(0).permutation(300)
    one = paired_bootstrap(true, a, b, n_resamples=700, seed=3)
    assert one == paired_bootstrap(true[i], a[i], b[i], n_resamples=700, seed=3)
    assert one != paired_bootstrap(true, a, b, n_resamples=700, seed=4)


def test_a_clear_gain_is_better_and_no_gain_is_mostly_a_tie():
    true, a, b = systems(2000, 8, right_a=0.9, right_b=0.6)
    result = paired_bootstrap(true, a, b, n_resamples=500)
    assert result["p"] < 0.01 and verdict(result).startswith("better: +")
    assert verdict(paired_bootstrap(true, b, a, n_resamples=500)).startswith("worse: -")


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says():
    # Two systems of the same skill: the true difference of hA is 0.
    covered = 0
    for i in range(200):
        rng = np.random.default_rng([11, i])
        true = rng.integers(0, 23, 300)
        a, b = (np.where(rng.random(300) < 0.7, true, rng.integers(0, 23, 300)) for _ in range(2))
        result = paired_bootstrap(CODES[true], CODES[a], CODES[b], metric="hA", n_resamples=300, seed=i)
        covered += result["low"] <= 0 <= result["high"]
    assert 0.89 <= covered / 200 <= 0.985


def test_ten_thousand_resamples_of_bsd10k_take_seconds_and_little_memory():
    true, a, b = systems(10_956, 12)
    uploader = np.random.default_rng(1).integers(0, 3000, 10_956)
    for cluster in (None, uploader):
        start = time.process_time()
        paired_bootstrap(true, a, b, cluster=cluster)
        assert time.process_time() - start < 20  # measured 0.7 s and 1.5 s; the bound guards CI
    tracemalloc.start()
    paired_bootstrap(true, a, b, n_resamples=1500, cluster=uploader)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**28


def test_the_verdict_is_in_points_and_knows_seed_noise():
    tie = {"diff": 0.0031, "low": -0.004, "high": 0.01, "p": 0.4, "n": 9}
    gain = {"diff": 0.021, "low": 0.012, "high": 0.03, "p": 0.001, "n": 9, "level": 0.9}
    assert verdict(tie) == "tie: difference 0.31, 95 % interval -0.40 … 1.00"
    assert verdict(gain) == "better: +2.10 (90 % interval 1.20 … 3.00)"
    assert verdict(gain, seed_noise=0.007) == verdict(gain)
    noisy = "tie: difference 2.10, 90 % interval 1.20 … 3.00, within the seed noise of 2.50"
    assert verdict(gain, seed_noise=0.025) == noisy
    loss = {"diff": -0.021, "low": -0.03, "high": -0.012, "p": 0.001, "n": 9}
    assert verdict(loss) == "worse: -2.10 (95 % interval -3.00 … -1.20)"


def test_holm_agrees_with_hand_numbers():
    # sorted 0.005 0.01 0.03 0.04 -> x4 0.02, x3 0.03, x2 0.06, x1 0.04 raised to 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02], abs=1e-12)
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([]).shape == (0,)


def test_mean_std_is_the_population_standard_deviation():
    mean, std = mean_std([77.86, 80.25, 78.33, 79.22, 77.48])
    assert mean == pytest.approx(78.628, abs=1e-12) and std == pytest.approx(0.995576**0.5, abs=1e-12)
    assert mean_std([3.0]) == (3.0, 0.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: paired_bootstrap(["m-sp"], ["m-sp"], ["m-sp", "m-m"]),
            "1 true classes, 1 predictions of a, 2 of b",
        ),
        (lambda: paired_bootstrap([], [], []), "0 true classes"),
        (lambda: paired_bootstrap(["m-sp"], ["m-sp"], ["m-s"]), "m-s"),
        (lambda: paired_bootstrap(["m-sp"], ["m-sp"], ["m-sp"], metric="hf"), "known: hF, hA"),
        (lambda: paired_bootstrap(["m-sp"], ["m-sp"], ["m-sp"], n_resamples=0), "n_resamples is 0"),
        (lambda: paired_bootstrap(["m-sp"], ["m-sp"], ["m-sp"], level=95), "level 95"),
        (
            lambda: paired_bootstrap(["m-sp"], ["m-sp"], ["m-sp"], cluster=["a", "b"]),
            "2 cluster ids for 1 clips",
        ),
        (
            lambda: paired_bootstrap(["m-sp"] * 2, ["m-sp"] * 2, ["m-m"] * 2, cluster=["a", "a"]),
            "one cluster",
        ),
        (lambda: holm([0.1, np.nan]), "p-values"),
        (lambda: mean_std([]), "no values"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(HacError, match=message):
        call()

"""Bootstrap, gains per class, verdicts, Holm and mean ± std."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from scipy import stats as sps

from hac_utils import stats
from hac_utils.errors import HacError
from hac_utils.metrics import confusion_matrix, hierarchical_accuracy, hierarchical_f1, per_class, scores
from hac_utils.stats import gains, holm, mcnemar, mean_std, paired_bootstrap, table_verdicts, verdict
from hac_utils.taxonomy import CLASSES, FAMILIES, family

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


def test_a_class_nobody_predicted_leaves_hF_as_in_the_official_script():
    true, a, b = systems(300, 20)
    a = np.where(a == "m-m", "m-sp", a)
    result = paired_bootstrap(true, a, b, n_resamples=300)
    assert result["diff"] == pytest.approx(hierarchical_f1(true, a) - hierarchical_f1(true, b), abs=1e-12)
    strict = hierarchical_f1(true, a, never_predicted="zero") - hierarchical_f1(true, b, never_predicted="zero")
    middle = (result["low"] + result["high"]) / 2
    assert abs(middle - result["diff"]) < 0.2 * abs(middle - strict)  # the resamples are read the same way


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


def test_ten_thousand_resamples_of_bsd10k_take_seconds_and_little_memory():
    true, a, b = systems(10_956, 12)
    uploader = np.random.default_rng(1).integers(0, 3000, 10_956)
    for cluster in (None, uploader):
        start = time.process_time()
        paired_bootstrap(true, a, b, cluster=cluster)
        assert time.process_time() - start < 10  # measured 0.31 s and 0.23 s; the bound guards CI
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
    # Half of the interval, 0.9, and 1.645 x 0.7 = 1.15 add to 1.46 < 2.1; with 1.645 x 1.2 = 1.97 to 2.17 > 2.1.
    assert verdict(gain, seed_noise=0.007) == "better: +2.10 (90 % interval 1.20 … 3.00, seed noise 0.70)"
    assert verdict(gain, seed_noise=0.012).endswith("within the seed noise of 1.20")
    noisy = "tie: difference 2.10, 90 % interval 1.20 … 3.00, within the seed noise of 2.50"
    assert verdict(gain, seed_noise=0.025) == noisy
    loss = {"diff": -0.021, "low": -0.03, "high": -0.012, "p": 0.001, "n": 9}
    assert verdict(loss) == "worse: -2.10 (95 % interval -3.00 … -1.20)"
    assert verdict(tie, seed_noise=0.003) == verdict(tie) + ", seed noise 0.30"


def test_the_part_of_an_uneven_interval_that_looks_at_zero_decides():
    near, far = {"diff": 0.02, "low": 0.001, "high": 0.03}, {"diff": -0.02, "low": -0.04, "high": -0.01}
    # sqrt(1.9² + (1.96 x 0.7)²) = 2.34 > 2, sqrt(1² + (1.96 x 0.7)²) = 1.70 < 2
    assert verdict(near, seed_noise=0.007).startswith("tie") and verdict(far, seed_noise=0.007).startswith("worse")


def test_holm_can_turn_a_difference_into_a_tie():
    gain = {"diff": 0.021, "low": 0.001, "high": 0.03}
    assert verdict(gain, p_holm=0.05) == verdict(gain)
    expected = "tie: difference 2.10, 95 % interval 0.10 … 3.00, p 0.051 after Holm's correction"
    assert verdict(gain, p_holm=0.051) == expected
    assert verdict(gain | {"level": 0.9}, p_holm=0.051).startswith("better")


def test_the_resamples_have_the_law_of_drawing_clips_or_clusters_one_by_one():
    # Common cells are drawn by multinomial and rare ones dealt one by one; both kinds occur here.
    rng = np.random.default_rng(3)
    true = np.where(rng.random(400) < 0.5, 0, rng.integers(0, 23, 400))
    a, b = (np.where(rng.random(400) < 0.7, true, rng.integers(0, 23, 400)) for _ in range(2))
    true, a, b = CODES[true], CODES[a], CODES[b]
    groups = np.where(np.arange(400) < 100, np.arange(400) // 4, np.arange(400))  # 300 of one clip, 25 of four
    for cluster in (None, groups):
        units = stats._units(true, a, b, cluster, 0.375)
        assert (units.count > stats._SMALL).any() and (units.count <= stats._SMALL).any()
        sample = np.concatenate([stats._hf(t, 0) - stats._hf(t, 1) for t in stats._resamples(units, 3000, 0, 0.95)])
        one_by_one = direct(true, a, b, "hF", 1500, 9, cluster)
        assert sps.ks_2samp(sample, one_by_one).pvalue > 0.01
        narrow = sample.mean() + 0.85 * (sample - sample.mean())
        assert sps.ks_2samp(narrow, one_by_one).pvalue < 0.01  # the check would see an error of 15 %


def test_a_resample_holds_as_many_units_as_the_data_and_its_sums_give_the_metric():
    true, a, b = systems(500, 14)
    units = stats._units(true, a, b, None, 0.375)
    for totals in stats._resamples(units, 700, 0, 0.95):
        assert (totals[:, [0, 3, 6]].sum(-1) == 500).all()
    observed = units.observed
    for system, pred in enumerate((a, b)):
        assert stats._hf(observed, system)[0] == pytest.approx(hierarchical_f1(true, pred), abs=1e-12)


def test_few_resamples_do_not_shrink_the_interval():
    # Weibull's positions: with 39 resamples the 95 % interval is exactly their smallest and largest.
    true, a, b = systems(200, 15)
    units = stats._units(true, a, b, None, 0.375)
    sample = np.concatenate([stats._hf(t, 0) - stats._hf(t, 1) for t in stats._resamples(units, 39, 5, 0.95)])
    result = paired_bootstrap(true, a, b, n_resamples=39, seed=5)
    assert (result["low"], result["high"]) == pytest.approx((sample.min(), sample.max()), abs=1e-12)


def test_gains_per_class_are_differences_of_the_metric_and_agree_with_drawing_clips_one_by_one():
    true, a, b = systems(900, 16)
    table = gains(true, a, b, n_resamples=2000)
    assert table["kind"].tolist() == ["class"] * 23 + ["family"] * 5
    assert table["name"].tolist() == [*CLASSES, *FAMILIES]
    one, two = (per_class(confusion_matrix(true, p))["hF"].to_numpy() for p in (a, b))
    assert np.allclose(table["a"][:23], one, atol=1e-12) and np.allclose(table["diff"][:23], one - two, atol=1e-12)
    fx = [family(c) == "fx" for c in CLASSES]
    assert table["b"][26] == pytest.approx(two[fx].mean(), abs=1e-12)
    assert table["n"][26] == table["n"][:23][fx].sum() and table["n"][:23].sum() == 900
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(600):
        i = rng.integers(0, 900, 900)
        fa, fb = (per_class(confusion_matrix(true[i], p[i]))["hF"].to_numpy() for p in (a, b))
        draws.append([*(fa - fb)[[0, 12]], (fa - fb)[fx].mean()])
    width = (table["high"] - table["low"]).to_numpy()[[0, 12, 26]] / (2 * 1.96)
    assert width == pytest.approx(np.std(draws, axis=0), rel=0.15)


def test_gains_carry_holm_over_the_rows_of_their_kind():
    true, a, b = systems(900, 17)
    worse = np.where(np.isin(true, ["m-sp", "fx-o"]), "ss-u", a)
    table = gains(true, a, worse, n_resamples=2000)
    for kind in ("class", "family"):
        part = table[table["kind"] == kind]
        assert part["p_holm"].tolist() == holm(part["p"]).tolist()
    found = table["name"][:23][table["p_holm"][:23] < 0.05].tolist()
    assert {"m-sp", "fx-o"} <= set(found) and len(found) < 6


def test_a_class_nobody_predicted_gains_nothing_and_one_without_clips_has_no_gain():
    true = np.array(["m-sp", "m-m"] * 30 + ["sp-s"] * 20)
    a, b = np.where(true == "m-m", "m-sp", true), np.where(np.arange(80) < 3, "fx-o", true)
    table = gains(true, a, b, n_resamples=300).set_index("name")
    assert table.loc["m-m", "a"] == 0 and table.loc["m-m", "diff"] == pytest.approx(-table.loc["m-m", "b"])
    assert table.loc[["fx-o", "fx"], ["diff", "low", "high", "p", "p_holm"]].isna().all().all()
    assert table.loc["m", "a"] == pytest.approx((table.loc["m-sp", "a"] + 0) / 2, abs=1e-12)
    assert table.loc["sp-s", "p_holm"] == 1.0


def test_mcnemar_counts_who_is_right_alone_and_agrees_with_the_binomial_test():
    true = ["m-sp"] * 20
    a = ["m-sp"] * 12 + ["m-m"] * 8
    b = ["m-m"] * 9 + ["m-sp"] * 5 + ["m-m"] * 6
    result = mcnemar(true, a, b)
    assert {k: result[k] for k in ("both_right", "only_a", "only_b", "neither")} == {
        "both_right": 3,
        "only_a": 9,
        "only_b": 2,
        "neither": 6,
    }
    assert result["p"] == pytest.approx(sps.binomtest(2, 11).pvalue, abs=1e-12)
    assert mcnemar(true, a, a)["p"] == 1.0


def test_a_table_has_one_holm_corrected_verdict_a_row_against_its_reference():
    true, a, b = systems(800, 18)
    rng = np.random.default_rng(0)
    again = np.where(rng.random(800) < 0.02, "m-sp", b)
    table = table_verdicts(true, {"good": a, "base": b, "again": again}, "base", n_resamples=1000)
    assert table["system"].tolist() == ["good", "base", "again"]
    assert table["verdict"][1] == "reference" and table.loc[1, ["diff", "p", "p_holm"]].isna().all()
    good = paired_bootstrap(true, a, b, n_resamples=1000)
    assert (table["diff"][0], table["low"][0], table["p"][0]) == (good["diff"], good["low"], good["p"])
    assert table["score"][0] - table["score"][1] == pytest.approx(table["diff"][0], abs=1e-12)
    assert table["p_holm"][[0, 2]].tolist() == holm(table["p"][[0, 2]]).tolist()
    assert table["verdict"][0] == verdict(good, p_holm=table["p_holm"][0])
    noisy = table_verdicts(true, {"good": a, "base": b}, "base", seed_noise={"good": 0.03, "base": 0.04})
    assert noisy["verdict"][0] == verdict(paired_bootstrap(true, a, b), seed_noise=0.05)


def test_many_rows_need_more_than_one_lucky_p_value():
    true, a, b = systems(500, 19)
    p = paired_bootstrap(true, a, b, n_resamples=2000)["p"]
    rows = {"base": b, "a": a} | {f"same{i}": b for i in range(20)}
    table = table_verdicts(true, rows, "base", n_resamples=2000).set_index("system")
    assert 0.003 < p < 0.05 and table.loc["a", "p_holm"] == pytest.approx(21 * p, abs=1e-12)
    assert table.loc["a", "verdict"].endswith("after Holm's correction")
    assert table["verdict"].str.startswith("tie").sum() == 21


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
        (lambda: gains(["m-sp"], ["m-sp"], ["m-x"]), "m-x"),
        (lambda: gains(["m-sp"], ["m-sp"], ["m-sp"], n_resamples=0), "n_resamples is 0"),
        (lambda: mcnemar(["m-sp"], ["m-sp"], []), "0 of b"),
        (lambda: table_verdicts(["m-sp"], {"gated": ["m-sp"]}, "gatd"), "did you mean 'gated'"),
        (lambda: table_verdicts(["m-sp"], {"a": ["m-sp"]}, "a", seed_noise={"b": 0.1}), "'b'"),
        (lambda: table_verdicts(["m-sp"], {"a": ["m-sp"]}, "a", metric="hf"), "known: hF, hA"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(HacError, match=message):
        call()

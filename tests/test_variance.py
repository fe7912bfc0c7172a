"""Variance components over seeds and folds, and the corrected resampled t-test."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as sps

from hac_utils.errors import HacError
from hac_utils.stats import verdict
from hac_utils.variance import corrected_t_test, seed_error, seed_fold_variance


def table(x, column="hF"):
    """Scores, shape (seeds, folds), as rows."""
    x = np.asarray(x, dtype=float)
    seed, fold = np.indices(x.shape)
    return pd.DataFrame({"seed": seed.ravel(), "fold": fold.ravel(), column: x.ravel()})


def test_the_components_agree_with_hand_numbers():
    # Rows .70 .74 .78 and .72 .78 .78: means .74 .76 (seeds), .71 .76 .78 (folds), mean .75.
    # MS_seed = 3 x .0002 = .0006; MS_fold = 2 x .0013 = .0026; residuals 0, -.01, .01 | 0, .01, -.01: MS = .0002.
    out = seed_fold_variance(table([[0.70, 0.74, 0.78], [0.72, 0.78, 0.78]]))
    assert (out["n_seeds"], out["n_folds"], out["cut"]) == (2, 3, [])
    assert out["mean"] == pytest.approx(0.75, abs=1e-12)
    assert out["var_residual"] == pytest.approx(0.0002, abs=1e-12)
    assert out["var_seed"] == pytest.approx((0.0006 - 0.0002) / 3, abs=1e-12)
    assert out["var_fold"] == pytest.approx((0.0026 - 0.0002) / 2, abs=1e-12)
    assert out["seed_noise"] == pytest.approx((0.0004 / 3 + 0.0002 / 3) ** 0.5, abs=1e-12)
    assert out["se_seeds"] == pytest.approx(out["seed_noise"] / 2**0.5, abs=1e-12)
    # With nothing cut the variance of the mean is (MS_seed + MS_fold - MS_residual) / (seeds x folds).
    assert out["se_mean"] == pytest.approx((0.0030 / 6) ** 0.5, abs=1e-12)
    assert "cut" not in out["note"] and "mean 75.00 over 2 seeds x 3 folds" in out["note"]


def test_with_nothing_cut_the_seed_noise_is_the_spread_of_the_seeds_means():
    x = np.random.default_rng(0).normal(0.7, 0.01, (4, 5)) + np.array([[0], [0.02], [0.04], [0.06]])
    out = seed_fold_variance(table(x))
    assert out["seed_noise"] == pytest.approx(x.mean(axis=1).std(ddof=1), abs=1e-12)
    assert out["se_seeds"] == pytest.approx(seed_error(x.mean(axis=1)), abs=1e-12)


def test_a_negative_estimate_is_cut_to_zero_and_named():
    out = seed_fold_variance(table([[0.70, 0.80], [0.80, 0.70]]))
    assert out["cut"] == ["seed", "fold"] and out["var_seed"] == out["var_fold"] == 0
    assert out["var_residual"] == pytest.approx(0.01, abs=1e-12)
    assert out["note"].endswith("Negative estimate cut to 0: seed, fold")


def test_the_estimators_find_the_variances_that_a_simulation_put_in():
    seed_sd, fold_sd, residual_sd = 0.006, 0.012, 0.004
    rng = np.random.default_rng(1)
    found = []
    for _ in range(1500):
        x = 0.78 + rng.normal(0, seed_sd, (4, 1)) + rng.normal(0, fold_sd, (1, 6)) + rng.normal(0, residual_sd, (4, 6))
        out = seed_fold_variance(table(x))
        found.append([out[k] for k in ("var_seed", "var_fold", "var_residual")] + [out["se_mean"] ** 2])
    variance_of_mean = seed_sd**2 / 4 + fold_sd**2 / 6 + residual_sd**2 / 24
    expected = [seed_sd**2, fold_sd**2, residual_sd**2, variance_of_mean]
    assert np.mean(found, axis=0) == pytest.approx(expected, rel=0.08)


def test_the_order_of_rows_and_the_names_of_seeds_and_folds_do_not_matter():
    x = np.random.default_rng(2).normal(0.7, 0.02, (3, 5))
    frame = table(x, "hA").sample(frac=1, random_state=0).replace({"seed": {0: 11, 1: 3, 2: 7}})
    one, two = seed_fold_variance(frame, "hA"), seed_fold_variance(table(x))
    assert {k: v for k, v in one.items() if isinstance(v, float)} == pytest.approx(
        {k: v for k, v in two.items() if isinstance(v, float)}, abs=1e-12
    )


def test_the_corrected_t_test_agrees_with_the_formula_and_is_wider_than_the_plain_one():
    d = np.array([0.012, 0.031, 0.018, 0.027, 0.005])
    out = corrected_t_test(d, n_train=8765, n_test=2191)
    se = ((1 / 5 + 2191 / 8765) * d.var(ddof=1)) ** 0.5
    assert out["t"] == pytest.approx(d.mean() / se, abs=1e-12) and (out["df"], out["k"]) == (4, 5)
    assert out["p"] == pytest.approx(2 * sps.t.sf(d.mean() / se, 4), abs=1e-12)
    assert (out["low"], out["high"]) == pytest.approx(sps.t.interval(0.95, 4, d.mean(), se), abs=1e-12)
    plain = corrected_t_test(d, n_train=1e12, n_test=1)
    assert plain["p"] == pytest.approx(sps.ttest_1samp(d, 0).pvalue, abs=1e-9)
    assert out["p"] > plain["p"] and out["p"] < 0.1
    assert verdict(out).startswith("tie") and verdict(plain).startswith("better")


def test_swapping_the_systems_flips_the_t_test():
    d = np.array([0.01, 0.03, -0.01])
    one, two = (corrected_t_test(s * d, n_train=4, n_test=1) for s in (1, -1))
    assert one["p"] == two["p"] and one["low"] == -two["high"] and one["t"] == -two["t"]


def test_equal_differences_on_all_folds_have_no_spread_and_no_t():
    same, none = (corrected_t_test([v] * 5, n_train=4, n_test=1) for v in (0.1, 0.0))
    assert (same["t"], same["p"], same["low"]) == (None, 0.0, pytest.approx(0.1)) and none["p"] == 1.0


def test_seed_error_is_the_standard_error_of_the_mean():
    assert seed_error([0.70, 0.72, 0.74]) == pytest.approx(0.02 / 3**0.5, abs=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: seed_fold_variance(table([[0.7, 0.8]])), "1 seed"),
        (lambda: seed_fold_variance(table([[0.7], [0.8]])), "1 fold"),
        (lambda: seed_fold_variance(table([[0.7, np.nan], [0.8, 0.7]])), "1 of 4"),
        (lambda: seed_fold_variance(table([[0.7, 0.6], [0.8, 0.7]]).iloc[:3]), "1 of 4"),
        (lambda: seed_fold_variance(pd.concat([table([[0.7, 0.6], [0.8, 0.7]])] * 2)), "twice"),
        (lambda: seed_fold_variance(table([[0.7, 0.6], [0.8, 0.7]]), "hf"), "hf"),
        (lambda: corrected_t_test([0.1], n_train=4, n_test=1), "two folds"),
        (lambda: corrected_t_test([0.1, np.inf], n_train=4, n_test=1), "finite"),
        (lambda: corrected_t_test([0.1, 0.2], n_train=0, n_test=1), "n_train 0"),
        (lambda: seed_error([0.1]), "1 score"),
        (lambda: seed_error([0.1, np.nan]), "finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(HacError, match=message):
        call()

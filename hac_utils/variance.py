"""What seeds and folds add to a score: variance components, and a t-test over folds that allows for their overlap.

Everything is a fraction (multiply by 100 for points). hF per (seed, fold) or a difference of two systems'
hF per (seed, fold) may be given; in a difference the folds' own hardness cancels.

References
----------
Searle, Casella & McCulloch 1992, ch. 4 (ANOVA estimators of crossed random effects); Nadeau & Bengio 2003 and
Bouckaert & Frank 2004 (corrected resampled t-test); Bengio & Grandvalet 2004 (no unbiased estimate of the
variance of cross-validation exists).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from .errors import HacError, first_few


def seed_fold_variance(table: pd.DataFrame, column: str = "hF") -> dict[str, Any]:
    """Split the variance of a score over (seed, fold) into seed, fold and residual.

    The model is score = mean + seed + fold + residual with independent random effects, every seed run on
    every fold once. The estimators are those of the analysis of variance: residual = MS_residual, seed =
    (MS_seed - MS_residual) / folds, fold = (MS_fold - MS_residual) / seeds.

    Parameters
    ----------
    table : DataFrame
        Columns ``seed``, ``fold`` and `column`; one row per (seed, fold), none missing, at least 2 x 2.

    Returns
    -------
    dict
        ``mean n_seeds n_folds``; ``var_seed var_fold var_residual``, negative estimates cut to 0 and named
        in ``cut``; then standard deviations in the score's own unit:

        ``seed_noise``  of one seed's mean over these folds, sqrt(var_seed + var_residual / folds)
        ``se_seeds``    of the mean over these seeds, if other seeds were run on the same folds
        ``se_mean``     of the mean, if other seeds were run on other folds as well

        and ``note``, the same in words. `se_mean` treats folds as independent draws; their training parts
        overlap, so it is, if anything, too small. Where a seed shares nothing between folds (each fold
        draws its own start), its noise sits in the residual and var_seed is near 0.

    Raises
    ------
    HacError
        Missing columns or cells, a pair that occurs twice, numbers that are not finite, one seed or one fold.
    """
    missing = [c for c in ("seed", "fold", column) if c not in table.columns]
    if missing:
        raise HacError(f"no column {first_few(missing)}", "table", f"give seed, fold and {column}")
    if table.duplicated(["seed", "fold"]).any():
        raise HacError("a (seed, fold) occurs twice", "table", "give one score per seed and fold, of one system")
    x = table.pivot(index="seed", columns="fold", values=column).to_numpy(dtype=np.float64)
    n_seeds, n_folds = x.shape
    if min(x.shape) < 2:
        raise HacError(
            f"{n_seeds} seed(s) and {n_folds} fold(s)", "table", "at least two of each are needed to tell them apart"
        )
    if not np.isfinite(x).all():
        raise HacError(
            f"{int((~np.isfinite(x)).sum())} of {x.size} (seed, fold) pairs have no finite {column}",
            "table",
            "run every seed on every fold",
        )
    mean, seeds, folds = x.mean(), x.mean(axis=1), x.mean(axis=0)
    residual = x - seeds[:, None] - folds[None, :] + mean
    ms_residual = (residual**2).sum() / ((n_seeds - 1) * (n_folds - 1))
    raw = {
        "seed": seeds.var(ddof=1) - ms_residual / n_folds,
        "fold": folds.var(ddof=1) - ms_residual / n_seeds,
        "residual": ms_residual,
    }
    cut = [name for name, value in raw.items() if value < 0]
    var = {name: max(0.0, float(value)) for name, value in raw.items()}
    seed_noise = (var["seed"] + var["residual"] / n_folds) ** 0.5
    se_mean = (var["seed"] / n_seeds + var["fold"] / n_folds + var["residual"] / x.size) ** 0.5
    note = (
        f"mean {100 * mean:.2f} over {n_seeds} seeds x {n_folds} folds; standard deviations (points): "
        + ", ".join(f"{name} {100 * value**0.5:.2f}" for name, value in var.items())
        + f"; standard error {100 * seed_noise / n_seeds**0.5:.2f} over seeds, {100 * se_mean:.2f} over seeds and folds"
        + (f". Negative estimate cut to 0: {', '.join(cut)}" if cut else "")
    )
    return {
        "mean": float(mean),
        "n_seeds": n_seeds,
        "n_folds": n_folds,
        **{f"var_{name}": value for name, value in var.items()},
        "cut": cut,
        "seed_noise": seed_noise,
        "se_seeds": seed_noise / n_seeds**0.5,
        "se_mean": se_mean,
        "note": note,
    }


def seed_error(scores: Sequence[float] | np.ndarray) -> float:
    """Standard error of a mean over seeds, from one score per seed, shape (k,), k >= 2.

    For the difference of two systems add theirs in quadrature (:func:`hac_utils.stats.verdict`).
    """
    v = np.asarray(scores, dtype=np.float64)
    if v.ndim != 1 or len(v) < 2 or not np.isfinite(v).all():
        raise HacError(
            f"no seed noise from {v.size} score(s)", "scores", "give one finite score per seed, of two seeds or more"
        )
    return float(v.std(ddof=1) / len(v) ** 0.5)


def corrected_t_test(
    differences: Sequence[float] | np.ndarray, *, n_train: float, n_test: float, level: float = 0.95
) -> dict[str, Any]:
    """Corrected resampled t-test of a difference measured on k folds (or repeats x folds).

    Training parts overlap, so the plain t-test over folds is too sure of itself. The variance of the mean is
    taken as (1 / k + n_test / n_train) s², with k - 1 degrees of freedom.

    Parameters
    ----------
    differences : array, shape (k,), k >= 2
        System a minus system b on the same test fold, fractions.
    n_train, n_test : float
        Clips one model was trained on, and clips of one test fold; means where folds differ.
    level : float in (0, 1)

    Returns
    -------
    dict
        ``diff`` (mean over folds), ``low``, ``high``, ``se``, ``t`` (None where all differences are equal),
        ``df``, ``p`` (two-sided), ``k``, ``level``.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or len(d) < 2 or not np.isfinite(d).all():
        raise HacError(f"differences {differences}", "differences", "give finite numbers for two folds or more")
    if not (n_train > 0 and n_test > 0 and 0 < level < 1):
        raise HacError(
            f"n_train {n_train}, n_test {n_test}, level {level}",
            "corrected_t_test",
            "give positive sizes, and a level between 0 and 1, e.g. 0.95",
        )
    k, mean = len(d), float(d.mean())
    same = bool((d == d[0]).all())  # no spread: numpy's variance would be rounding noise
    se = 0.0 if same else float(np.sqrt((1 / k + n_test / n_train) * d.var(ddof=1)))
    half = se * float(stdtrit(k - 1, (1 + level) / 2))
    t = None if same else mean / se
    return {
        "diff": mean,
        "low": mean - half,
        "high": mean + half,
        "se": se,
        "t": t,
        "df": k - 1,
        "p": float(mean == 0) if same else float(2 * stdtr(k - 1, -abs(t))),
        "k": k,
        "level": level,
    }

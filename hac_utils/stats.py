"""Is the difference real? Paired bootstrap of hF and hA, Holm's correction, mean ± std.

Differences are fractions, system a minus system b, both scored on the same clips. The words of
:func:`verdict` are in points (times 100).

References
----------
Efron & Tibshirani 1993, ch. 13 (percentile interval); Field & Welsh 2007 (cluster bootstrap); Holm 1979.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from .errors import HacError, did_you_mean
from .metrics import Labels, class_positions, scores
from .taxonomy import N_CLASSES

METRICS = ("hF", "hA")
_CHUNK = 500  # resamples held at once: 500 x (units + 4 x 529) numbers, some tens of MB at n = 10,956


def paired_bootstrap(
    y_true: Labels,
    pred_a: Labels,
    pred_b: Labels,
    *,
    metric: str = "hF",
    n_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    cluster: Sequence | np.ndarray | None = None,
) -> dict[str, float | int]:
    """Paired bootstrap of the difference in hF or hA between two systems.

    Clips with the same (truth, a, b) are interchangeable, so a resample is one multinomial draw over these
    cells: the same law as drawing n clips with replacement, at a fraction of the cost.

    Parameters
    ----------
    y_true, pred_a, pred_b : array of str, shape (n,), n > 0
        Second-level BST codes of the same clips in the same order.
    metric : {"hF", "hA"}
        hF in the official reading.
    n_resamples : int
    seed : int
    level : float in (0, 1)
        Coverage of the percentile interval.
    cluster : sequence, shape (n,), optional
        E.g. the uploader. Whole clusters are drawn instead of clips: right when clips of one uploader
        resemble each other. Missing or empty ids stand for clusters of one clip.

    Returns
    -------
    dict
        ``diff low high`` (fractions, a minus b), ``p`` (two-sided, at least 2 / (n_resamples + 1)),
        ``n`` clips, ``level``.

    Raises
    ------
    HacError
        Lengths that differ, unknown codes or metric, no clips, one cluster only.
    """
    if metric not in METRICS:
        raise HacError(f"no metric {metric!r}", "metric", did_you_mean(metric, METRICS))
    if n_resamples < 1 or not 0 < level < 1:
        raise HacError(
            f"n_resamples is {n_resamples} and level {level}",
            "paired_bootstrap",
            "at least one resample, and a level between 0 and 1, e.g. 0.95",
        )
    true, a, b = (class_positions(y, name) for y, name in ((y_true, "y_true"), (pred_a, "pred_a"), (pred_b, "pred_b")))
    if not len(true) == len(a) == len(b) or len(true) == 0:
        raise HacError(
            f"{len(true)} true classes, {len(a)} predictions of a, {len(b)} of b",
            "paired_bootstrap",
            "give all three for the same clips, at least one, in the same order",
        )
    cells, cell = np.unique((true * N_CLASSES + a) * N_CLASSES + b, return_inverse=True)
    units, multiplicity = _units(cell, len(cells), cluster)
    cell_true, cell_a, cell_b = cells // N_CLASSES**2, cells // N_CLASSES % N_CLASSES, cells % N_CLASSES
    to_a = _confusion_map(cell_true, cell_a) @ units.T  # (529, units)
    to_b = _confusion_map(cell_true, cell_b) @ units.T

    def difference(weights: np.ndarray) -> np.ndarray:
        both = [(m @ weights.T).T.reshape(-1, N_CLASSES, N_CLASSES) for m in (to_a, to_b)]
        return scores(both[0])[metric] - scores(both[1])[metric]

    diff = float(difference(multiplicity[None, :].astype(float))[0])
    rng = np.random.default_rng(seed)
    n_units = int(multiplicity.sum())
    sample = np.empty(n_resamples)
    for start in range(0, n_resamples, _CHUNK):
        size = min(_CHUNK, n_resamples - start)
        weights = rng.multinomial(n_units, multiplicity / n_units, size=size)
        sample[start : start + size] = difference(weights.astype(float))
    low, high = np.quantile(sample, [(1 - level) / 2, (1 + level) / 2])
    tail = min((sample <= 0).sum(), (sample >= 0).sum())
    return {
        "diff": diff,
        "low": float(low),
        "high": float(high),
        "p": float(min(1.0, 2 * (tail + 1) / (n_resamples + 1))),
        "n": len(true),
        "level": level,
    }


def verdict(result: dict, seed_noise: float | None = None) -> str:
    """A bootstrap result in words: tie, better or worse, in points (times 100).

    Parameters
    ----------
    result : dict
        From :func:`paired_bootstrap`.
    seed_noise : float, optional
        Standard deviation over seeds, a fraction. A difference no larger than it is a tie, whatever the
        interval says: the bootstrap knows the clips, not the luck of the seed.
    """
    diff, low, high = (100 * result[k] for k in ("diff", "low", "high"))
    interval = f"{100 * result.get('level', 0.95):g} % interval {low:.2f} … {high:.2f}"
    if result["low"] <= 0 <= result["high"]:
        return f"tie: difference {diff:.2f}, {interval}"
    if seed_noise is not None and abs(result["diff"]) <= seed_noise:
        return f"tie: difference {diff:.2f}, {interval}, within the seed noise of {100 * seed_noise:.2f}"
    return f"{'better' if diff > 0 else 'worse'}: {diff:+.2f} ({interval})"


def holm(pvalues: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values, shape (k,), in the order given."""
    p = np.asarray(pvalues, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise HacError(f"p-values {pvalues}", "pvalues", "give a list of numbers between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def mean_std(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and population standard deviation (ddof 0, as in the baseline's tables)."""
    v = np.asarray(values, dtype=np.float64)
    if v.size == 0:
        raise HacError("no values to average", "values", "give at least one number")
    return float(v.mean()), float(v.std())


def _units(cell: np.ndarray, n_cells: int, cluster: Sequence | np.ndarray | None):
    """What is drawn: cell counts per distinct unit, sparse (units, cells), and how often each unit occurs."""
    if cluster is None:
        return sparse.identity(n_cells, format="csr"), np.bincount(cell, minlength=n_cells)
    if len(cluster) != len(cell):
        raise HacError(f"{len(cluster)} cluster ids for {len(cell)} clips", "cluster", "give one per clip, same order")
    name = pd.Series(np.asarray(cluster, dtype=object))
    missing = (name.isna() | (name.astype(str).str.strip() == "")).to_numpy()
    group = pd.factorize(name.astype(str), sort=True)[0]
    group[missing] = len(cell) + np.arange(missing.sum())
    order = np.lexsort((cell, group))
    contents = np.split(cell[order], np.flatnonzero(np.diff(group[order])) + 1)
    if len(contents) < 2:
        raise HacError("all clips are in one cluster", "cluster", "give at least two clusters, or none")
    count: dict[tuple[int, ...], int] = {}
    for content in contents:
        key = tuple(content.tolist())
        count[key] = count.get(key, 0) + 1
    kinds = sorted(count)
    row = np.repeat(np.arange(len(kinds)), [len(k) for k in kinds])
    column = np.concatenate([np.array(k) for k in kinds])
    units = sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(len(kinds), n_cells))
    return units, np.array([count[k] for k in kinds])


def _confusion_map(cell_true: np.ndarray, cell_pred: np.ndarray) -> sparse.csr_matrix:
    """Sparse (529, cells): which entry of the confusion matrix each cell counts in."""
    entry = cell_true * N_CLASSES + cell_pred
    ones = np.ones(len(entry))
    return sparse.csr_matrix((ones, (entry, np.arange(len(entry)))), shape=(N_CLASSES**2, len(entry)))

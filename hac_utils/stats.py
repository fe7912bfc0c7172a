"""Is the difference real? Paired bootstrap of hF and hA, Holm's correction, and a verdict in words.

Differences are fractions, system a minus system b, both scored on the same clips. The words of
:func:`verdict` are in points (times 100), and it is the only place that turns numbers into words.
What seeds and folds add is in :mod:`hac_utils.variance`.

References
----------
Efron & Tibshirani 1993, ch. 13 (percentile interval); Field & Welsh 2007 (cluster bootstrap); Holm 1979.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import bdtr, ndtri

from .errors import HacError, did_you_mean
from .metrics import SAME_FAMILY_CREDIT, SAME_FAMILY_CREDIT_HA, Labels, class_positions, confusion_matrix, scores
from .taxonomy import CLASSES, FAMILIES, FAMILY_OF, N_CLASSES, SAME_FAMILY

METRICS = ("hF", "hA")
_SMALL = 16  # a unit that occurs up to so often is drawn clip by clip (5 ns each), else by a binomial (105 ns)
_HELD = 4_000_000  # numbers held at once while resampling, some tens of MB


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

    Clips with the same (truth, a, b) are interchangeable, so a resample is a draw of counts of these cells:
    the same law as drawing n clips with replacement, at a fraction of the cost.

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
    units = _units(y_true, pred_a, pred_b, cluster, SAME_FAMILY_CREDIT if metric == "hF" else SAME_FAMILY_CREDIT_HA)
    value = _hf if metric == "hF" else _ha

    def difference(totals: np.ndarray) -> np.ndarray:
        return value(totals, 0) - value(totals, 1)

    sample = np.concatenate([difference(t) for t in _resamples(units, n_resamples, seed, level)])
    low, high = _percentiles(sample, level)
    return {
        "diff": float(difference(units.observed)[0]),
        "low": float(low),
        "high": float(high),
        "p": float(_p_value(sample)),
        "n": units.n_clips,
        "level": level,
    }


def gains(
    y_true: Labels,
    pred_a: Labels,
    pred_b: Labels,
    *,
    n_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    cluster: Sequence | np.ndarray | None = None,
) -> pd.DataFrame:
    """Where the difference in hF comes from: one row per class, then one per family.

    Arguments as in :func:`paired_bootstrap`. A family's hF is the mean over its classes. A class nobody
    predicted has hF 0 here (the strict reading), or its gain would be undefined.

    Returns
    -------
    DataFrame
        ``kind`` ("class" or "family"), ``name`` (code), ``n`` (clips), ``a``, ``b`` (hF), ``diff``, ``low``,
        ``high`` (fractions, a minus b), ``p``, and ``p_holm``, corrected over the rows of its kind. NaN
        where the truth has no such clip.
    """
    units = _units(y_true, pred_a, pred_b, cluster, SAME_FAMILY_CREDIT)

    def values(totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """hF of a and of b, each (resamples, 28), NaN where the resample has no clip of the kind."""
        present = totals[:, 0] > 0
        count = present @ member
        share = np.where(count > 0, 1 / np.maximum(count, 1), np.nan)
        f = [_class_f(totals, s) for s in (0, 1)]
        a, b = (np.hstack([np.where(present, v, np.nan), np.where(present, v, 0) @ member * share]) for v in f)
        return a, b

    member = (FAMILY_OF[:, None] == np.arange(len(FAMILIES))).astype(float)
    a, b = (v[0] for v in values(units.observed))
    parts = [values(t) for t in _resamples(units, n_resamples, seed, level)]
    sample = np.concatenate([one - other for one, other in parts])
    n = units.observed[0, 0]
    frame = pd.DataFrame(
        {
            "kind": ["class"] * N_CLASSES + ["family"] * len(FAMILIES),
            "name": [*CLASSES, *FAMILIES],
            "n": np.append(n, n @ member).astype(int),
            "a": a,
            "b": b,
            "diff": a - b,
        }
    )
    known = np.flatnonzero(frame["n"] > 0)
    frame[["low", "high", "p", "p_holm"]] = np.nan
    frame.loc[known, ["low", "high"]] = _percentiles(sample[:, known], level).T
    frame.loc[known, "p"] = [_p_value(sample[np.isfinite(sample[:, j]), j]) for j in known]
    for kind in ("class", "family"):
        rows = known[(frame["kind"] == kind).to_numpy()[known]]
        frame.loc[rows, "p_holm"] = holm(frame.loc[rows, "p"].to_numpy())
    return frame


def mcnemar(y_true: Labels, pred_a: Labels, pred_b: Labels) -> dict[str, float | int]:
    """Which system is right where the other is wrong: counts of clips, and McNemar's exact test (two-sided).

    About accuracy, not hF: ``both_right only_a only_b neither`` (clips) and ``p``.
    """
    true, a, b = _triples(y_true, pred_a, pred_b)
    right_a, right_b = a == true, b == true
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return {
        "both_right": int((right_a & right_b).sum()),
        "only_a": only_a,
        "only_b": only_b,
        "neither": int((~right_a & ~right_b).sum()),
        "p": float(min(1.0, 2 * bdtr(min(only_a, only_b), only_a + only_b, 0.5))),
    }


def verdict(result: Mapping[str, Any], seed_noise: float | None = None, p_holm: float | None = None) -> str:
    """A difference in words: tie, better or worse, in points (times 100).

    Better or worse needs three things: an interval without 0, an interval that still lacks 0 after it was
    widened by the seed noise, and, in a table, a p-value that survives Holm's correction.

    Parameters
    ----------
    result : mapping
        ``diff low high`` (fractions) and ``level`` (0.95 if missing), as :func:`paired_bootstrap` or
        :func:`hac_utils.variance.corrected_t_test` give them.
    seed_noise : float, optional
        Standard deviation of the difference over reruns with other seeds, a fraction. The bootstrap knows
        the clips, not the luck of the seed, so the two add in quadrature: the half of the interval that
        looks at 0 becomes sqrt(half² + (z · seed_noise)²).
    p_holm : float, optional
        The p-value after :func:`holm` over the table; above 1 - level it makes a tie.
    """
    level = result.get("level", 0.95)
    diff, low, high = (100 * result[k] for k in ("diff", "low", "high"))
    inside = f"{100 * level:g} % interval {low:.2f} … {high:.2f}"
    noise = "" if seed_noise is None else f", seed noise {100 * seed_noise:.2f}"
    if low <= 0 <= high:
        return f"tie: difference {diff:.2f}, {inside}{noise}"
    if seed_noise is not None:
        half = diff - low if diff > 0 else high - diff
        if abs(diff) <= np.hypot(half, 100 * seed_noise * ndtri((1 + level) / 2)):
            return f"tie: difference {diff:.2f}, {inside}, within the seed noise of {100 * seed_noise:.2f}"
    if p_holm is not None and p_holm > 1 - level:
        return f"tie: difference {diff:.2f}, {inside}{noise}, p {p_holm:.2g} after Holm's correction"
    return f"{'better' if diff > 0 else 'worse'}: {diff:+.2f} ({inside}{noise})"


def table_verdicts(
    y_true: Labels,
    predictions: Mapping[str, Labels],
    reference: str,
    *,
    metric: str = "hF",
    cluster: Sequence | np.ndarray | None = None,
    seed_noise: Mapping[str, float] | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Every system of a table against its reference row, Holm-corrected over the table.

    Parameters
    ----------
    y_true : array of str, shape (n,)
    predictions : mapping system -> array of str, shape (n,)
        For the same clips in the same order.
    reference : str
        The system that all others are compared with.
    seed_noise : mapping system -> float, optional
        Standard error of a system's score over its seeds, a fraction
        (:func:`hac_utils.variance.seed_error`). The verdict adds a row's and the reference's in quadrature.
    metric, cluster, n_resamples, seed, level : as in :func:`paired_bootstrap`

    Returns
    -------
    DataFrame
        In the order of `predictions`: ``system``, ``score``, ``diff low high`` (fractions, system minus
        reference), ``p``, ``p_holm``, ``verdict``. The reference row has NaN and the verdict "reference".
    """
    if metric not in METRICS:
        raise HacError(f"no metric {metric!r}", "metric", did_you_mean(metric, METRICS))
    if reference not in predictions:
        raise HacError(f"no system {reference!r} to compare with", "reference", did_you_mean(reference, predictions))
    noise = seed_noise or {}
    unknown = [s for s in noise if s not in predictions]
    if unknown:
        raise HacError(f"seed noise of a system not in the table: {unknown[0]!r}", "seed_noise", "leave it out")
    rows = []
    for system, pred in predictions.items():
        row = {"system": system, "score": scores(confusion_matrix(y_true, pred))[metric]}
        if system != reference:
            result = paired_bootstrap(
                y_true,
                pred,
                predictions[reference],
                metric=metric,
                n_resamples=n_resamples,
                seed=seed,
                level=level,
                cluster=cluster,
            )
            row |= {k: result[k] for k in ("diff", "low", "high", "p")}
        rows.append(row)
    frame = pd.DataFrame(rows, columns=["system", "score", "diff", "low", "high", "p"])
    others = (frame["system"] != reference).to_numpy()
    frame["p_holm"] = np.nan
    frame.loc[others, "p_holm"] = holm(frame.loc[others, "p"].to_numpy(dtype=float))
    words = []
    for row in frame.to_dict("records"):
        mine = [noise[s] for s in (row["system"], reference) if s in noise]
        words.append(
            "reference"
            if row["system"] == reference
            else verdict(row | {"level": level}, float(np.hypot.reduce(mine)) if mine else None, row["p_holm"])
        )
    return frame.assign(verdict=words)


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


@dataclass(frozen=True)
class _Units:
    """What is drawn: kinds of clips, or of clusters of clips.

    `sums` (k, 161): what one unit adds to the seven blocks of 23 sums that hF and hA need: clips per true
    class; then for a and for b the credit per true class, the credit per predicted class, the clips per
    predicted class. All are multiples of 1/8, so sums are exact in any order. `count` (k,): how often the
    unit occurs in the data.
    """

    sums: np.ndarray
    count: np.ndarray
    n_clips: int

    @property
    def observed(self) -> np.ndarray:
        """The sums of the data themselves, shape (1, 7, 23)."""
        return (self.count @ self.sums).reshape(1, 7, N_CLASSES)


def _triples(y_true: Labels, pred_a: Labels, pred_b: Labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    true, a, b = (class_positions(y, name) for y, name in ((y_true, "y_true"), (pred_a, "pred_a"), (pred_b, "pred_b")))
    if not len(true) == len(a) == len(b) or len(true) == 0:
        raise HacError(
            f"{len(true)} true classes, {len(a)} predictions of a, {len(b)} of b",
            "y_true, pred_a, pred_b",
            "give all three for the same clips, at least one, in the same order",
        )
    return true, a, b


def _units(
    y_true: Labels, pred_a: Labels, pred_b: Labels, cluster: Sequence | np.ndarray | None, sister: float
) -> _Units:
    """The distinct units in an order that depends on their contents only, with credit `sister` within a family."""
    true, a, b = _triples(y_true, pred_a, pred_b)
    cells, cell = np.unique((true * N_CLASSES + a) * N_CLASSES + b, return_inverse=True)
    t, row = cells // N_CLASSES**2, np.arange(len(cells))
    sums = np.zeros((len(cells), 7, N_CLASSES))
    sums[row, 0, t] = 1
    for first, pred in ((1, cells // N_CLASSES % N_CLASSES), (4, cells % N_CLASSES)):
        credit = np.where(pred == t, 1.0, np.where(SAME_FAMILY[t, pred], sister, 0.0))
        sums[row, first, t] = credit
        sums[row, first + 1, pred] = credit
        sums[row, first + 2, pred] = 1
    sums = sums.reshape(len(cells), -1)
    if cluster is None:
        return _Units(sums, np.bincount(cell, minlength=len(cells)), len(true))
    contents = _clusters(cell, cluster)
    count: dict[tuple[int, ...], int] = {}
    for content in contents:
        key = tuple(content.tolist())
        count[key] = count.get(key, 0) + 1
    kinds = sorted(count)
    row = np.repeat(np.arange(len(kinds)), [len(k) for k in kinds])
    column = np.concatenate([np.array(k) for k in kinds])
    holds = sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(len(kinds), len(cells)))
    return _Units(holds @ sums, np.array([count[k] for k in kinds]), len(true))


def _clusters(cell: np.ndarray, cluster: Sequence | np.ndarray) -> list[np.ndarray]:
    """The sorted cells of each cluster; a clip without a cluster id is a cluster of its own."""
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
    return contents


def _resamples(units: _Units, n_resamples: int, seed: int, level: float) -> Iterator[np.ndarray]:
    """Sums of resamples, chunk by chunk, each (size, 7, 23).

    A resample is a multinomial draw of the units. Rare units are lumped for the multinomial; the draws that
    fall to the lump are then dealt to its members one by one, which is the same law and several times faster.
    """
    if n_resamples < 1 or not 0 < level < 1:
        raise HacError(
            f"n_resamples is {n_resamples} and level {level}",
            "n_resamples, level",
            "at least one resample, and a level between 0 and 1, e.g. 0.95",
        )
    rng = np.random.default_rng(seed)
    k, total = len(units.count), int(units.count.sum())
    large = np.flatnonzero(units.count > _SMALL)
    small = np.flatnonzero(units.count <= _SMALL)
    lump = np.repeat(small, units.count[small])
    share = np.append(units.count[large], len(lump)) / total
    chunk = int(np.clip(_HELD // (k + len(lump) + units.sums.shape[1]), 1, 500))
    for start in range(0, n_resamples, chunk):
        size = min(chunk, n_resamples - start)
        drawn = rng.multinomial(total, share, size=size)
        weights = np.zeros((size, k))
        if len(lump):
            place = lump[rng.integers(0, len(lump), drawn[:, -1].sum())]
            place += np.repeat(np.arange(size) * k, drawn[:, -1])
            weights += np.bincount(place, minlength=size * k).reshape(size, k)
        weights[:, large] = drawn[:, :-1]
        yield (weights @ units.sums).reshape(size, 7, N_CLASSES)


def _class_f(totals: np.ndarray, system: int) -> np.ndarray:
    """F of each class, shape (..., 23); 0 where it is undefined. 2PR / (P + R) with P = c / m and R = r / n."""
    n, (r, c, m) = totals[:, 0], (totals[:, 1 + 3 * system + i] for i in range(3))
    below = c * n + r * m
    return 2 * c * r / np.where(below > 0, below, 1)


def _hf(totals: np.ndarray, system: int) -> np.ndarray:
    """hF in the official reading, shape (resamples,): the mean of F over classes present and predicted."""
    kept = (totals[:, 0] > 0) & (totals[:, 3 + 3 * system] > 0)
    return _class_f(totals, system).sum(-1) / np.maximum(kept.sum(-1), 1)


def _ha(totals: np.ndarray, system: int) -> np.ndarray:
    """hA, shape (resamples,): the mean over true classes of the mean credit."""
    n = totals[:, 0]
    return (totals[:, 1 + 3 * system] / np.maximum(n, 1)).sum(-1) / (n > 0).sum(-1)


def _percentiles(sample: np.ndarray, level: float) -> np.ndarray:
    """The two ends of the interval, shape (2, ...), over the first axis; NaN is left out.

    Weibull's positions p (B + 1): they neither shrink the interval where resamples are few nor disagree with
    the p-value, whose denominator is B + 1 as well.
    """
    return np.nanquantile(sample, [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")


def _p_value(sample: np.ndarray) -> float:
    """Two-sided: twice the smaller share of resamples on either side of 0."""
    tail = min((sample <= 0).sum(), (sample >= 0).sum())
    return min(1.0, 2 * (tail + 1) / (len(sample) + 1))

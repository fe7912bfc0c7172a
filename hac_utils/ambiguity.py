"""Label ambiguity: are the classes a system gets wrong the ones annotators were unsure about?

A clip earns credit s = 1 (exact class), 0.375 (same family) or 0, and loses 1 - s. Confidence is
the annotator's rating, 1 (unsure) to 5 (certain); NaN means unknown. Such clips count in
accuracy and lost credit, and are left out of every mean of the confidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as sps

from .errors import HacError, first_few
from .metrics import class_positions, confusion_matrix, credit, per_class, scores
from .taxonomy import CLASSES, FAMILY_OF, INDEX, N_CLASSES

_BLOCK = 2_000_000  # most numbers drawn at once by the bootstrap (16 MB)


def read_confidence(frame: pd.DataFrame, four_plus: float = 4.0) -> tuple[np.ndarray, str]:
    """Annotator confidence of a truth table, and a note on how it was read.

    Parameters
    ----------
    frame : DataFrame
        With a column ``confidence`` (1 … 5) or ``confidence_bin`` (1, 2, 3, ``"4+"``) or both;
        with both, the one that knows more clips. Empty cells are unknown.
    four_plus : float
        The rating ``"4+"`` stands for.

    Returns
    -------
    values : float array, shape (n,)
        NaN where unknown; all NaN when there is neither column.
    note : str
        What a reader must know; empty when every clip has an exact rating.

    Raises
    ------
    HacError
        A cell is neither empty, a finite number nor ``"4+"``.
    """
    best, column, binned = np.full(len(frame), np.nan), "", False
    for name in ("confidence", "confidence_bin"):
        if name not in frame.columns:
            continue
        text = frame[name].astype(object).where(frame[name].notna(), "").astype(str).str.strip()
        plus = (text == "4+").to_numpy()
        empty = text.str.lower().isin(["", "nan", "none"]).to_numpy()
        values = pd.to_numeric(text.where(~(plus | empty), "nan"), errors="coerce").to_numpy(
            dtype=np.float64, copy=True
        )
        bad = ~np.isfinite(values) & ~plus & ~empty
        if bad.any():
            cells = list(dict.fromkeys(text[bad]))
            raise HacError(
                f"confidence that is not a number: {first_few(cells)}",
                f"column {name}",
                "give ratings 1 to 5, 4+, or empty cells",
            )
        values[plus] = four_plus
        if not column or np.isfinite(values).sum() > np.isfinite(best).sum():
            best, column, binned = values, name, bool(plus.any())
    if not column:
        return best, "no confidence column: everything that needs it is left out"
    notes = []
    if binned:
        notes.append(f"confidence read from {column}: 4+ (a rating of 4 or 5) taken as {four_plus:g}")
    unknown = int(np.isnan(best).sum())
    if unknown:
        notes.append(f"{unknown} of {len(best)} clips have no confidence")
    return best, "; ".join(notes)


def per_class_table(y_true: Sequence[str], y_pred: Sequence[str], confidence: Sequence[float]) -> pd.DataFrame:
    """One row per class of the truth, in taxonomy order.

    Parameters
    ----------
    y_true, y_pred : array of str, shape (n,), n > 0
        Class codes.
    confidence : array of float, shape (n,)
        Annotator rating, NaN where unknown.

    Returns
    -------
    DataFrame
        class, n (clips), accuracy, credit (mean s), mean_confidence (NaN if no clip has one),
        hF (official; NaN for a class nobody predicted). Fractions.
    """
    true, _, s, conf, table = _checked(y_true, y_pred, confidence)
    n = np.bincount(true, minlength=N_CLASSES)
    known = np.isfinite(conf)
    with np.errstate(invalid="ignore"):
        frame = pd.DataFrame(
            {
                "class": list(CLASSES),
                "n": n,
                "accuracy": np.bincount(true, s == 1, N_CLASSES) / n,
                "credit": np.bincount(true, s, N_CLASSES) / n,
                "mean_confidence": np.bincount(true[known], conf[known], N_CLASSES)
                / np.bincount(true[known], minlength=N_CLASSES),
            }
        )
    frame["hF"] = frame["class"].map(per_class(table).set_index("class")["hF"]).astype(float)
    return frame[frame["n"] > 0].reset_index(drop=True)


def top_pairs(y_true: Sequence[str], y_pred: Sequence[str], confidence: Sequence[float], k: int = 10) -> pd.DataFrame:
    """The `k` confusions (true -> predicted) that lose the most credit.

    Returns
    -------
    DataFrame
        gt, pred, n (clips), lost_credit (sum of 1 - s, in clips), share (of all lost credit),
        mean_confidence (NaN if unknown). Most lost first; ties by n, then taxonomy order.
    """
    true, pred, s, conf, _ = _checked(y_true, y_pred, confidence)
    wrong = s < 1
    clips = pd.DataFrame({"gt": true[wrong], "pred": pred[wrong], "lost": 1 - s[wrong], "conf": conf[wrong]})
    pairs = (
        clips.groupby(["gt", "pred"], sort=True)
        .agg(n=("lost", "size"), lost_credit=("lost", "sum"), mean_confidence=("conf", "mean"))
        .reset_index()
    )
    pairs["share"] = pairs["lost_credit"] / max(float(clips["lost"].sum()), np.finfo(float).tiny)
    pairs = pairs.sort_values(["lost_credit", "n", "gt", "pred"], ascending=[False, False, True, True]).head(k)
    for column in ("gt", "pred"):
        pairs[column] = [CLASSES[i] for i in pairs[column]]
    return pairs[["gt", "pred", "n", "lost_credit", "share", "mean_confidence"]].reset_index(drop=True)


def summary(
    y_true: Sequence[str],
    y_pred: Sequence[str],
    confidence: Sequence[float],
    *,
    seed: int = 0,
    n_resamples: int = 2000,
) -> dict[str, Any]:
    """The ambiguity findings of one system as one JSON-safe dict (None where nothing can be said).

    Returns
    -------
    dict
        - n, n_without_confidence, hF, hA (fractions, official metric).
        - r_class, r_class_ci, spearman_class, r_class_credit: over classes, accuracy (or mean
          credit) against mean confidence. The interval is a 95 % percentile bootstrap over clips.
          None with fewer than 3 classes or no spread.
        - conf_right, conf_wrong, conf_difference (right minus wrong), conf_difference_ci.
        - cross_family_share: share of the lost credit that crosses families, every clip alike;
          cross_family_share_class_weighted: the same with every class alike (clips weigh 1 / n of
          their true class); cross_family_error_share: the share of the number of errors;
          cross_family_below_median_share: share of the cross-family errors whose true class has a
          mean confidence below the median class.
        - accuracy_by_confidence: list of confidence (rounded to whole ratings), n, accuracy,
          error, low, high (95 % Wilson interval of the error), hF.
        - top_pairs: the 10 rows of :func:`top_pairs`.
    """
    true, pred, s, conf, confusion = _checked(y_true, y_pred, confidence)
    overall = scores(confusion)
    table = per_class_table(y_true, y_pred, confidence)
    rated = table.dropna(subset="mean_confidence")
    known, right = np.isfinite(conf), s == 1
    lost, cross = 1 - s, FAMILY_OF[true] != FAMILY_OF[pred]
    weight = 1 / np.bincount(true, minlength=N_CLASSES)[true]
    class_conf = np.full(N_CLASSES, np.nan)
    class_conf[[INDEX[c] for c in table["class"]]] = table["mean_confidence"]
    crossing_conf = class_conf[true[cross]]
    crossing_conf = crossing_conf[np.isfinite(crossing_conf)]
    conf_right, conf_wrong = _mean(conf[known & right]), _mean(conf[known & ~right])
    r_draws, difference_draws = _bootstrap(true, s, conf, seed, n_resamples)
    pairs = top_pairs(y_true, y_pred, confidence).to_dict("records")
    return {
        "n": len(true),
        "n_without_confidence": int((~known).sum()),
        "hF": _number(overall["hF"]),
        "hA": _number(overall["hA"]),
        "r_class": _correlation(rated["accuracy"], rated["mean_confidence"]),
        "r_class_ci": _interval(r_draws),
        "spearman_class": _correlation(rated["accuracy"].rank(), rated["mean_confidence"].rank()),
        "r_class_credit": _correlation(rated["credit"], rated["mean_confidence"]),
        "conf_right": conf_right,
        "conf_wrong": conf_wrong,
        "conf_difference": None if conf_right is None or conf_wrong is None else conf_right - conf_wrong,
        "conf_difference_ci": _interval(difference_draws),
        "cross_family_share": _share(lost[cross], lost),
        "cross_family_share_class_weighted": _share((lost * weight)[cross], lost * weight),
        "cross_family_error_share": _share(cross, ~right),
        "cross_family_below_median_share": _mean(crossing_conf < np.nanmedian(class_conf))
        if len(crossing_conf)
        else None,
        "accuracy_by_confidence": [
            _level(level, true, pred, right, conf) for level in np.unique(np.floor(conf[known] + 0.5))
        ],
        "top_pairs": [
            {k: v if isinstance(v, str) else _number(v) for k, v in row.items()} | {"n": int(row["n"])} for row in pairs
        ],
    }


def _checked(y_true: Sequence[str], y_pred: Sequence[str], confidence: Sequence[float]) -> tuple[np.ndarray, ...]:
    """Class positions (n,) of truth and prediction, credit (n,), confidence (n,), confusion (23, 23)."""
    conf = np.asarray(confidence, dtype=np.float64)
    if not len(y_true) == len(y_pred) == len(conf) or conf.ndim != 1:
        raise HacError(
            f"{len(y_true)} true classes, {len(y_pred)} predictions and {len(conf)} confidences do not match",
            "ambiguity",
            "give one value per clip, in the same order",
        )
    if np.isinf(conf).any():
        raise HacError(
            f"{int(np.isinf(conf).sum())} confidences are infinite",
            "ambiguity",
            "give ratings, or NaN where unknown",
        )
    confusion = confusion_matrix(y_true, y_pred)  # refuses unknown codes and empty arrays
    s = np.asarray(credit(y_true, y_pred), dtype=np.float64)
    return class_positions(y_true, "y_true"), class_positions(y_pred, "y_pred"), s, conf, confusion


def _bootstrap(
    true: np.ndarray, s: np.ndarray, conf: np.ndarray, seed: int, n_resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Resamples over clips: class correlation (accuracy, mean confidence) and right - wrong confidence.

    Clips that share class, outcome and rating are alike, so a resample is one multinomial draw
    over these kinds of clip. Two arrays of shape (n_resamples,), NaN where undefined.
    """
    kinds, counts = np.unique(
        np.column_stack([true, s == 1, np.nan_to_num(conf, nan=-1e9)]), axis=0, return_counts=True
    )
    cls, right, rating = kinds[:, 0].astype(int), kinds[:, 1].astype(bool), kinds[:, 2]
    known = rating > -1e9
    rating = np.where(known, rating, 0.0)
    one_hot = np.eye(N_CLASSES)[cls]
    columns = np.column_stack([one_hot, one_hot * right[:, None], one_hot * known[:, None], one_hot * rating[:, None]])
    sides = np.column_stack([known & right, rating * right, known & ~right, rating * ~right]).astype(float)
    r, difference = [], []
    with np.errstate(invalid="ignore", divide="ignore"):
        for draws in _draws(counts, seed, n_resamples):
            n, n_right, n_known, sum_rating = np.split(draws @ columns, 4, axis=1)
            accuracy, mean = n_right / n, sum_rating / n_known
            r.append(_row_correlation(accuracy, mean))
            right_n, right_sum, wrong_n, wrong_sum = (draws @ sides).T
            difference.append(right_sum / right_n - wrong_sum / wrong_n)
    return np.concatenate(r), np.concatenate(difference)


def _draws(counts: np.ndarray, seed: int, n_resamples: int) -> Iterator[np.ndarray]:
    """Multinomial resamples of the kinds, float, in blocks of shape (≤ block, kinds)."""
    rng = np.random.default_rng([seed, len(counts)])
    block = max(1, _BLOCK // len(counts))
    for start in range(0, n_resamples, block):
        yield rng.multinomial(counts.sum(), counts / counts.sum(), size=min(block, n_resamples - start)).astype(float)


def _row_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson r of each row over the columns finite in both, shape (rows,); NaN with fewer than 3."""
    ok = np.isfinite(a) & np.isfinite(b)
    n = ok.sum(axis=1, keepdims=True)
    a, b = np.where(ok, a, 0), np.where(ok, b, 0)
    a, b = np.where(ok, a - a.sum(1, keepdims=True) / n, 0), np.where(ok, b - b.sum(1, keepdims=True) / n, 0)
    spread = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.where((n[:, 0] >= 3) & (spread > 1e-12), (a * b).sum(1) / spread, np.nan)


def _correlation(a: pd.Series, b: pd.Series) -> float | None:
    with np.errstate(invalid="ignore", divide="ignore"):
        return _number(_row_correlation(np.asarray(a, float)[None], np.asarray(b, float)[None])[0])


def _interval(draws: np.ndarray) -> list[float] | None:
    """95 % percentile interval, or None when fewer than half of the resamples say anything."""
    draws = draws[np.isfinite(draws)] if np.isfinite(draws).mean() >= 0.5 else draws[:0]
    return [float(q) for q in np.quantile(draws, [0.025, 0.975])] if len(draws) else None


def _level(level: float, true: np.ndarray, pred: np.ndarray, right: np.ndarray, conf: np.ndarray) -> dict[str, Any]:
    here = np.floor(conf + 0.5) == level
    n, k = int(here.sum()), int((here & ~right).sum())
    interval = sps.binomtest(k, n).proportion_ci(0.95, method="wilson")
    codes = np.array(CLASSES)
    hf = scores(confusion_matrix(codes[true[here]], codes[pred[here]]))["hF"]
    return {
        "confidence": float(level),
        "n": n,
        "accuracy": 1 - k / n,
        "error": k / n,
        "low": float(interval.low),
        "high": float(interval.high),
        "hF": _number(hf),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    return float(part.sum() / whole.sum()) if whole.sum() > 0 else None


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

"""The metric of DCASE 2026 Task 1: hierarchical precision, recall and F-score (hP, hR, hF) and hA.

Conventions
-----------
Classes are the 23 second-level codes; a confusion matrix is ``(..., 23, 23)``, ``[true, predicted]``, in
taxonomy order (:data:`hac_utils.taxonomy.CLASSES`, not the alphabet). Everything is a fraction in [0, 1];
multiply by 100 when printing.

A clip earns credit 1 for the exact class, 0.375 for another class of the same family, 0 otherwise. (The
ancestor sets {family, class} share one of two members, times the task's factor 0.75.) For each class c:
``P_c`` is the mean credit over clips predicted c, ``R_c`` over clips whose truth is c, ``F_c`` their harmonic
mean. hP, hR and hF are plain means over the classes present in the truth; hF is the mean of ``F_c``, not the
F of hP and hR. hA is the mean over true classes of the mean credit, with 0.5 for the same family.

A true class that nobody predicted has no ``P_c``. ``"drop"``, the official script, leaves it out of hP, hR
and hF; ``"zero"``, the strict reading, keeps it with ``P_c = F_c = 0`` and its own ``R_c``.

References
----------
Kiritchenko et al. 2005 (set-based hP, hR); DCASE 2026 Task 1 baseline, ``evaluate.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .errors import HacError, did_you_mean, first_few
from .taxonomy import CLASSES, N_CLASSES, SAME_FAMILY

SAME_FAMILY_CREDIT = 0.375
SAME_FAMILY_CREDIT_HA = 0.5
NEVER_PREDICTED = ("drop", "zero")

Labels = Sequence[str] | np.ndarray

_POSITION = pd.Index(CLASSES)
_SAME = SAME_FAMILY.astype(np.float64)


def class_positions(y: Labels, name: str = "y") -> np.ndarray:
    """Position of each code in taxonomy order, int, shape (n,). Unknown codes are a :class:`HacError`."""
    values = np.asarray(y, dtype=object)
    if values.ndim != 1:
        raise HacError(f"{name} has shape {values.shape}", name, "give one class code per clip, shape (n,)")
    position = _POSITION.get_indexer(pd.Index(values, dtype=object))
    if (position < 0).any():
        unknown = sorted({str(v) for v in values[position < 0]})
        raise HacError(f"unknown class codes: {first_few(unknown)}", name, did_you_mean(unknown[0], CLASSES))
    return position


def confusion_matrix(y_true: Labels, y_pred: Labels) -> np.ndarray:
    """Counts of (true, predicted) pairs, int64, shape (23, 23), taxonomy order.

    Parameters
    ----------
    y_true, y_pred : array of str, shape (n,), n > 0
        Second-level BST codes, e.g. ``"fx-n"``.

    Raises
    ------
    HacError
        No clips, two different lengths, or a code that is none of the 23.
    """
    true, pred = _pair(y_true, y_pred)
    return np.bincount(true * N_CLASSES + pred, minlength=N_CLASSES**2).reshape(N_CLASSES, N_CLASSES)


def credit(
    y_true: Labels,
    y_pred: Labels,
    same_family: float = SAME_FAMILY_CREDIT,
) -> np.ndarray:
    """Credit of each clip, shape (n,): 1 exact, `same_family` for another class of the family, else 0."""
    true, pred = _pair(y_true, y_pred)
    return np.where(true == pred, 1.0, np.where(SAME_FAMILY[true, pred], same_family, 0.0))


def scores(confusion: np.ndarray, never_predicted: str = "drop") -> dict[str, Any]:
    """Every summary figure of one confusion matrix, or of a batch of them.

    Parameters
    ----------
    confusion : array of counts, shape (..., 23, 23)
        ``[true, predicted]``, taxonomy order; counts may be weights.
    never_predicted : {"drop", "zero"}
        What happens to a true class given to no clip; see the module's conventions.

    Returns
    -------
    dict
        ``hP hR hF hA accuracy macro_accuracy family_accuracy macro_family_accuracy`` in [0, 1] and ``n``.
        Floats for one matrix, arrays of shape (...) for a batch. The macro figures are means over the true
        classes (``macro_family_accuracy``: of the share of clips put in the right family). hP, hR and hF are
        0 when every true class is dropped, as in the official script.
    """
    _check_reading(never_predicted)
    c = _counts(confusion)
    stats = _class_stats(c)
    present = stats["n"] > 0
    kept = present & (stats["n_predicted"] > 0) if never_predicted == "drop" else present
    total = stats["n"].sum(-1)
    out = {
        "hP": _mean_over(stats["P"], kept),
        "hR": _mean_over(stats["R"], kept),
        "hF": _mean_over(stats["F"], kept),
        "hA": _mean_over(_share(stats["hit"] + SAME_FAMILY_CREDIT_HA * stats["sister"], stats["n"]), present),
        "accuracy": _share(stats["hit"].sum(-1), total),
        "macro_accuracy": _mean_over(_share(stats["hit"], stats["n"]), present),
        "family_accuracy": _share((stats["hit"] + stats["sister"]).sum(-1), total),
        "macro_family_accuracy": _mean_over(_share(stats["hit"] + stats["sister"], stats["n"]), present),
        "n": total,
    }
    if c.ndim > 2:
        return out
    return {k: float(v) for k, v in out.items() if k != "n"} | {
        "n": int(total) if float(total).is_integer() else float(total)
    }


def per_class(confusion: np.ndarray) -> pd.DataFrame:
    """One row per class, taxonomy order: class, n, n_predicted, accuracy, hP, hR, hF (fractions).

    The official reading: hP, hR and hF are NaN for a class absent from the truth or never predicted. Accuracy
    (the class's recall) is NaN only for a class absent from the truth. The means of hP, hR and hF over the
    rows are the official figures (0 when no row is left).
    """
    c = _counts(confusion)
    if c.ndim != 2:
        raise HacError(f"a confusion matrix of shape {c.shape}", "confusion", "give one matrix, shape (23, 23)")
    stats = _class_stats(c)
    present = stats["n"] > 0
    kept = present & (stats["n_predicted"] > 0)
    frame = pd.DataFrame({"class": list(CLASSES), "n": stats["n"], "n_predicted": stats["n_predicted"]})
    frame["accuracy"] = np.where(present, _share(stats["hit"], stats["n"]), np.nan)
    for name, key in (("hP", "P"), ("hR", "R"), ("hF", "F")):
        frame[name] = np.where(kept, stats[key], np.nan)
    if np.issubdtype(np.asarray(confusion).dtype, np.integer):
        frame[["n", "n_predicted"]] = frame[["n", "n_predicted"]].astype("int64")
    return frame


def hierarchical_f1(y_true: Labels, y_pred: Labels, *, never_predicted: str = "drop") -> float:
    """Macro hierarchical F-score (hF), the ranking metric of DCASE 2026 Task 1.

    Parameters
    ----------
    y_true, y_pred : array of str, shape (n,), n > 0
        Second-level BST codes, e.g. ``"fx-n"``.
    never_predicted : {"drop", "zero"}
        A true class given to no clip leaves the mean (baseline script) or counts 0.

    Returns
    -------
    float in [0, 1]. Multiply by 100 when printing, not before. 0 when every true class was dropped.

    References
    ----------
    Kiritchenko et al. 2005 (set-based hP, hR); DCASE 2026 Task 1 baseline, ``evaluate.py``.
    """
    return scores(confusion_matrix(y_true, y_pred), never_predicted)["hF"]


def hierarchical_accuracy(y_true: Labels, y_pred: Labels) -> float:
    """Hierarchical accuracy (hA): mean over true classes of the mean credit, 0.5 for the same family.

    Parameters
    ----------
    y_true, y_pred : array of str, shape (n,), n > 0
        Second-level BST codes, e.g. ``"fx-n"``.

    Returns
    -------
    float in [0, 1]. Not the ranking metric. Classes nobody predicted stay in.
    """
    return scores(confusion_matrix(y_true, y_pred))["hA"]


def _pair(y_true: Labels, y_pred: Labels) -> tuple[np.ndarray, np.ndarray]:
    true, pred = class_positions(y_true, "y_true"), class_positions(y_pred, "y_pred")
    if len(true) != len(pred):
        raise HacError(
            f"{len(true)} true classes but {len(pred)} predictions",
            "y_true, y_pred",
            "give both for the same clips, in the same order",
        )
    if len(true) == 0:
        raise HacError("no clips to score", "y_true, y_pred", "give at least one clip")
    return true, pred


def _check_reading(never_predicted: str) -> None:
    if never_predicted not in NEVER_PREDICTED:
        raise HacError(
            f"never_predicted is {never_predicted!r}",
            "never_predicted",
            did_you_mean(str(never_predicted), NEVER_PREDICTED),
        )


def _counts(confusion: np.ndarray) -> np.ndarray:
    c = np.asarray(confusion, dtype=np.float64)
    if c.ndim < 2 or c.shape[-2:] != (N_CLASSES, N_CLASSES):
        raise HacError(
            f"a confusion matrix of shape {c.shape}",
            "confusion",
            "give counts [true, predicted], shape (..., 23, 23)",
        )
    if c.size == 0 or not np.isfinite(c).all() or (c < 0).any():
        raise HacError(
            "a confusion matrix that is empty, or holds negative or non-finite counts",
            "confusion",
            "give counts of clips",
        )
    if (c.sum((-2, -1)) == 0).any():
        raise HacError("no clips to score: a confusion matrix of zeros", "confusion", "give at least one clip")
    return c


def _class_stats(c: np.ndarray) -> dict[str, np.ndarray]:
    """Per class, each (..., 23): n, n_predicted, hit (exact), sister (true class, same family), P, R, F."""
    n, n_predicted = c.sum(-1), c.sum(-2)
    hit = np.diagonal(c, axis1=-2, axis2=-1)
    rows, columns = np.einsum("...ij,ij->...i", c, _SAME), np.einsum("...ij,ij->...j", c, _SAME)
    p = _share(hit + SAME_FAMILY_CREDIT * (columns - hit), n_predicted)
    r = _share(hit + SAME_FAMILY_CREDIT * (rows - hit), n)
    return {
        "n": n,
        "n_predicted": n_predicted,
        "hit": hit,
        "sister": rows - hit,
        "P": p,
        "R": r,
        "F": _share(2 * p * r, p + r),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def _mean_over(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Mean of the kept entries of the last axis; 0 where none is kept, as in the official script."""
    return np.where(kept, values, 0.0).sum(-1) / np.maximum(kept.sum(-1), 1)

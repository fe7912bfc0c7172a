"""The predictions table, the one table that flows through the house.

Columns: ``sound_id`` (str), ``system`` (str), ``seed`` (int), ``fold`` (int), then one
probability column per class, named by its code, in taxonomy order. One row per clip, system,
seed. A user's own predictions in this form work everywhere ours do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .errors import HacError, first_few
from .io import read_table, write_parquet
from .taxonomy import CLASSES

KEYS = ["sound_id", "system", "seed", "fold"]

#: Columns of a data set's metadata table, in the order of the published ones.
METADATA_COLUMNS = [
    "sound_id",
    "class",
    "class_idx",
    "class_top",
    "confidence",
    "uploader",
    "license",
    "title",
    "tags",
    "description",
]


def predictions_table(
    sound_id: Sequence,
    proba: np.ndarray,
    classes: Sequence[str],
    *,
    system: str,
    seed: int,
    fold: int | np.ndarray,
) -> pd.DataFrame:
    """Build a predictions table.

    Parameters
    ----------
    sound_id : sequence, shape (n,)
    proba : array, shape (n, len(classes))
        Rows sum to 1.
    classes : sequence of str
        What the columns of `proba` mean, in any order; classes it lacks get probability 0.
    """
    frame = pd.DataFrame(np.asarray(proba, dtype=np.float64), columns=list(classes)).reindex(
        columns=list(CLASSES), fill_value=0.0
    )
    keys = pd.DataFrame({"sound_id": [str(i) for i in sound_id], "system": system, "seed": int(seed), "fold": fold})
    keys["fold"] = keys["fold"].astype("int64")
    return pd.concat([keys, frame], axis=1)


def validate_predictions(frame: pd.DataFrame, where: str = "predictions") -> pd.DataFrame:
    """Check a predictions table and return it in canonical form (columns ordered, ids as text).

    Raises
    ------
    HacError
        Missing columns, duplicate rows, NaN, negative values, or rows that do not sum to 1 (± 1e-3).
    """
    missing = [c for c in [*KEYS, *CLASSES] if c not in frame.columns]
    if missing:
        raise HacError(
            f"the predictions table lacks the columns {first_few(missing)}",
            where,
            "columns needed: sound_id, system, seed, fold and one probability column per class code (m-sp … ss-s)",
        )
    frame = frame[[*KEYS, *CLASSES]].copy()
    frame["sound_id"] = frame["sound_id"].astype(str)
    try:
        frame[["seed", "fold"]] = frame[["seed", "fold"]].astype("int64")
        frame[list(CLASSES)] = frame[list(CLASSES)].astype("float64")
    except (ValueError, TypeError) as e:
        raise HacError(
            f"a column does not hold numbers: {e}",
            where,
            "seed and fold are integers, class columns are probabilities",
        ) from None
    double = frame.duplicated(["sound_id", "system", "seed"])
    if double.any():
        raise HacError(
            f"duplicate (sound_id, system, seed) rows: {first_few(frame.loc[double, 'sound_id'].tolist())}",
            where,
            "keep one row per clip, system and seed",
        )
    p = frame[list(CLASSES)].to_numpy()
    bad = ~np.isfinite(p).all(axis=1) | (p < -1e-9).any(axis=1)
    if bad.any():
        raise HacError(
            f"probabilities that are NaN, infinite or negative: {first_few(frame.loc[bad, 'sound_id'].tolist())}",
            where,
            "give finite probabilities",
        )
    off = np.abs(p.sum(axis=1) - 1) > 1e-3
    if off.any():
        i = int(np.flatnonzero(off)[0])
        raise HacError(
            f"probabilities that do not sum to 1: {first_few(frame.loc[off, 'sound_id'].tolist())}; the first sums to {p[i].sum():.4f}",
            where,
            "apply a softmax or divide each row by its sum",
        )
    return frame


def read_predictions(path: Path | str) -> pd.DataFrame:
    """Read and check a predictions table (.parquet or .csv)."""
    return validate_predictions(read_table(path), str(path))


def write_predictions(path: Path | str, frame: pd.DataFrame) -> None:
    """Check and write a predictions table, sorted by system, seed and id."""
    frame = validate_predictions(frame, str(path))
    write_parquet(path, frame.sort_values(["system", "seed", "sound_id"], kind="stable").reset_index(drop=True))


def proba_of(frame: pd.DataFrame) -> np.ndarray:
    """The probability block, shape (n, 23), taxonomy order."""
    return frame[list(CLASSES)].to_numpy(dtype=np.float64)


def argmax_codes(proba: np.ndarray) -> np.ndarray:
    """Most probable class code per row, shape (n,); `proba` (n, 23) in taxonomy order."""
    return np.array(CLASSES)[np.asarray(proba).argmax(axis=1)]


def mean_over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Average the probabilities of each (sound_id, system) over its seeds; seed becomes -1."""
    out = frame.groupby(["system", "sound_id", "fold"], sort=True, as_index=False)[list(CLASSES)].mean()
    out["seed"] = -1
    return out[[*KEYS, *CLASSES]]

"""Who is trained on and who is scored: the official folds and the report's uploader-disjoint split.

A split is a table with one row per (fold, clip): ``fold`` (int), ``sound_id`` (str) and ``part``
("train", "val" or "test"). In the fixed split "val" is scored as well (the report does so, which
is optimistic), so it has no "test" rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

from .errors import HacError, first_few
from .io import read_table, sha256_text


@dataclass(frozen=True)
class Fold:
    """Row numbers of one fold's parts; `scored` is test where there is one, else val."""

    fold: int
    train: np.ndarray
    val: np.ndarray
    scored: np.ndarray


def _groups(frame: pd.DataFrame) -> np.ndarray:
    """Uploader of each clip; an unknown uploader is a group of its own."""
    own = "\x00" + frame["sound_id"]
    return frame["uploader"].where(frame["uploader"] != "", own).to_numpy()


def _rows(fold: int, ids: np.ndarray, **parts: np.ndarray) -> pd.DataFrame:
    blocks = [
        pd.DataFrame({"fold": fold, "sound_id": ids[np.sort(rows)], "part": part}) for part, rows in parts.items()
    ]
    return pd.concat(blocks, ignore_index=True)


def _smallest(frame: pd.DataFrame) -> int:
    """Clips of the smallest class; a table that cannot be cut at all is an error."""
    counts = frame["class"].value_counts()
    if len(frame) < 4 or counts.max() < 2:
        raise HacError(
            f"{len(frame)} clips in {len(counts)} classes are too few for a split",
            "column class",
            "give at least 4 clips, and 2 or more in some class",
        )
    return int(counts.min())


def _inner(rows: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The official inner split: one stratified 80/20 cut of the training part."""
    try:
        train, val = next(StratifiedShuffleSplit(1, test_size=0.2, random_state=seed).split(rows, y[rows]))
    except ValueError:  # a class with one clip, or fewer clips than classes in the 20 %: cannot be stratified
        order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
        cut = max(1, len(rows) // 5)
        train, val = order[cut:], order[:cut]
    return rows[np.sort(train)], rows[np.sort(val)]


def official5(frame: pd.DataFrame, *, folds: int = 5, seed: int = 1821) -> tuple[pd.DataFrame, list[str]]:
    """The official cross-validation: StratifiedKFold on rows in metadata order, inner 20 % validation.

    The number of folds is lowered, with a note, when the smallest class has fewer clips.
    """
    y = frame["class"].to_numpy()
    smallest = _smallest(frame)
    k = max(2, min(folds, smallest))
    notes = [] if k == folds else [f"folds lowered from {folds} to {k}: the smallest class has {smallest} clips"]
    ids = frame["sound_id"].to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes smaller than k are said in the notes
        parts = list(StratifiedKFold(k, shuffle=True, random_state=seed).split(ids, y))
    tables = []
    for fold, (rest, test) in enumerate(parts):
        train, val = _inner(rest, y, seed)
        tables.append(_rows(fold, ids, train=train, val=val, test=test))
    return pd.concat(tables, ignore_index=True), notes


def _affordable(frame: pd.DataFrame, folds: int, groups: np.ndarray) -> int:
    """How many uploader-disjoint folds the smallest class and the number of uploaders allow, at least 2."""
    smallest, uploaders = _smallest(frame), len(set(groups))
    if uploaders < 2:
        raise HacError(
            "all clips have the same uploader: an uploader-disjoint split is not possible",
            "column uploader",
            "leave the column empty to treat every clip as its own uploader",
        )
    return max(2, min(folds, smallest, uploaders))


def _grouped(
    k: int, seed: int, ids: np.ndarray, y: np.ndarray, groups: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes smaller than k
        return list(StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(ids, y, groups))


def fixed(frame: pd.DataFrame, *, folds: int = 5, seed: int = 1821) -> tuple[pd.DataFrame, list[str]]:
    """The report's fixed split: fold 0 of StratifiedGroupKFold by uploader; no uploader on both sides."""
    y, ids, groups = frame["class"].to_numpy(), frame["sound_id"].to_numpy(), _groups(frame)
    k = _affordable(frame, folds, groups)
    notes = (
        []
        if k == folds
        else [
            f"the fixed split holds out 1/{k} instead of 1/{folds}: the smallest class has {_smallest(frame)} clips, and there are {len(set(groups))} uploaders"
        ]
    )
    train, val = next(iter(_grouped(k, seed, ids, y, groups)))
    lost = sorted(set(y[val]) - set(y[train]))
    if lost:
        notes.append(
            f"classes only in the held-out part of the fixed split, so never learned there: {first_few(lost, 23)}"
        )
    return _rows(0, ids, train=train, val=val), notes


def uploader5(frame: pd.DataFrame, *, folds: int = 5, seed: int = 1821) -> tuple[pd.DataFrame, list[str]]:
    """Uploader-disjoint cross-validation: no uploader on both sides of a fold, nor of its inner validation."""
    y, ids, groups = frame["class"].to_numpy(), frame["sound_id"].to_numpy(), _groups(frame)
    k = _affordable(frame, folds, groups)
    notes = [] if k == folds else [f"uploader-disjoint folds lowered from {folds} to {k}"]
    tables = []
    for fold, (rest, test) in enumerate(_grouped(k, seed, ids, y, groups)):
        inner = min(5, len(set(groups[rest])), np.unique(y[rest], return_counts=True)[1].max())
        train, val = (
            next(iter(_grouped(inner, seed, ids[rest], y[rest], groups[rest])))
            if inner > 1
            else (np.arange(len(rest)), np.array([], int))
        )
        tables.append(_rows(fold, ids, train=rest[train], val=rest[val], test=test))
    return pd.concat(tables, ignore_index=True), notes


PROTOCOLS = {"official5": official5, "fixed": fixed, "uploader5": uploader5}

PARTS = ("train", "val", "test")


def read_split(path: Path | str, frame: pd.DataFrame) -> pd.DataFrame:
    """Read a split table of the user's own: columns fold, sound_id, part ("train", "val" or "test").

    Raises
    ------
    HacError
        A column is missing, a part is unknown, an id is not in `frame` or twice in one fold, a fold
        lacks a training part or has nothing to score.
    """
    where = str(path)
    split = read_table(path)
    missing = [c for c in ("fold", "sound_id", "part") if c not in split.columns]
    if missing:
        raise HacError(f"the split lacks the columns {first_few(missing)}", where, "columns: fold, sound_id, part")
    if split.empty:
        raise HacError("the split has no rows", where, "one row per fold and clip")
    split = split[["fold", "sound_id", "part"]].astype(str)
    fold = pd.to_numeric(split["fold"], errors="coerce")
    if fold.isna().any() or (fold % 1 != 0).any():
        raise HacError(
            f"folds that are not whole numbers: {first_few(sorted(set(split['fold'][fold.isna() | (fold % 1 != 0)])))}",
            f"{where}, column fold",
            "number the folds 0, 1, 2 …",
        )
    split["fold"] = fold.astype("int64")
    odd = sorted(set(split["part"]) - set(PARTS))
    if odd:
        raise HacError(f"unknown parts {first_few(odd)}", f"{where}, column part", "use train, val and test")
    unknown = sorted(set(split["sound_id"]) - set(frame["sound_id"]))
    if unknown:
        raise HacError(
            f"clips that the data set lacks: {first_few(unknown)}",
            f"{where}, column sound_id",
            "does the split belong to this data set?",
        )
    double = split.duplicated(["fold", "sound_id"])
    if double.any():
        raise HacError(
            f"clips twice in one fold: {first_few(split.loc[double, 'sound_id'].tolist())}",
            where,
            "a clip is in one part of a fold",
        )
    for number, rows in split.groupby("fold"):
        parts = set(rows["part"])
        if "train" not in parts or not parts & {"val", "test"}:
            raise HacError(
                f"fold {number} has only {first_few(sorted(parts))}",
                where,
                "every fold needs train rows, and val or test rows to score",
            )
    return split.sort_values(["fold", "part", "sound_id"], kind="stable").reset_index(drop=True)


def folds_of(split: pd.DataFrame, frame: pd.DataFrame) -> Iterator[Fold]:
    """The folds of a saved split as row numbers into `frame`; every id must be there."""
    position = pd.Series(np.arange(len(frame)), index=frame["sound_id"])
    unknown = sorted(set(split["sound_id"]) - set(position.index))
    if unknown:
        raise HacError(
            f"the split names clips that the data set lacks: {first_few(unknown)}",
            "split",
            "make the split again for this data set",
        )
    for fold, rows in split.groupby("fold", sort=True):
        part = {p: np.sort(position[r["sound_id"]].to_numpy()) for p, r in rows.groupby("part")}
        val = part.get("val", np.array([], dtype=int))
        yield Fold(int(fold), part["train"], val, part.get("test", val))


def report_fold(fold: Fold, *, choose: bool = True) -> Fold:
    """The report's way with a fold: trained on all but the scored part, which also chooses the epoch.

    That is optimistic. With `choose` False nothing chooses and the last epoch counts; the difference between
    the two is what the choice brings.
    """
    train = np.sort(np.concatenate([fold.train, fold.val])) if fold.scored is not fold.val else fold.train
    return Fold(fold.fold, train, fold.scored if choose else fold.scored[:0], fold.scored)


def split_hash(split: pd.DataFrame) -> str:
    """Content hash of a split; every result names the one it used."""
    ordered = split.sort_values(["fold", "part", "sound_id"], kind="stable")
    return sha256_text("\n".join(f"{f},{s},{p}" for f, s, p in ordered.itertuples(index=False)))[:16]


def uploader_leakage(split: pd.DataFrame, frame: pd.DataFrame) -> float:
    """Share of scored clips (with a known uploader) whose uploader also has clips in the same fold's training part."""
    uploader = frame["uploader"].to_numpy()
    seen = total = 0
    for fold in folds_of(split, frame):
        trained = set(
            uploader[np.concatenate([fold.train, fold.val] if fold.scored is not fold.val else [fold.train])]
        ) - {""}
        scored = uploader[fold.scored]
        known = scored != ""
        total += int(known.sum())
        seen += sum(u in trained for u in scored[known])
    return seen / total if total else 0.0

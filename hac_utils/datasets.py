"""Dataset folders in the BSD10k layout: metadata table and sound files, read and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from . import synth
from .audio import SUFFIXES
from .config import Profile
from .errors import HacError, first_few
from .io import read_table
from .taxonomy import CLASS_IDX, CLASSES, is_leftover

COLUMNS = ["sound_id", "class", "class_idx", "class_top", "confidence", "uploader", "license", "title", "tags", "description"]
TEXT_COLUMNS = ["title", "tags", "description"]
NEEDED = ["sound_id", "class", *TEXT_COLUMNS]


@dataclass(frozen=True)
class Dataset:
    """One corpus.

    Attributes
    ----------
    frame : DataFrame, one row per clip in metadata order
        `COLUMNS`; `class` is "" in an unlabelled set, `confidence` float (NaN where empty).
    audio : dict sound_id -> file
    missing_audio : sound_ids of the table without a file, when there is an audio folder at all
    notes : what was noticed while reading, in sentences
    """

    name: str
    folder: Path
    frame: pd.DataFrame
    audio: dict[str, Path]
    missing_audio: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def has_audio(self) -> bool:
        return bool(self.audio)


def find_metadata(folder: Path | str) -> Path:
    """The metadata table of a dataset folder: ``metadata/*_metadata.csv``, ``metadata.csv``, or ``metadata/metadata.csv``."""
    folder = Path(folder)
    if not folder.is_dir():
        raise HacError("no such folder", str(folder), "give a dataset folder in the BSD10k layout: DATA=path/to/folder")
    found = sorted((folder / "metadata").glob("*_metadata.csv")) or [p for p in (folder / "metadata.csv", folder / "metadata" / "metadata.csv") if p.is_file()]
    if not found:
        raise HacError("no metadata table in the dataset folder", str(folder), "put it at metadata/NAME_metadata.csv or metadata.csv (columns: " + ", ".join(COLUMNS) + ")")
    if len(found) > 1:
        raise HacError(f"more than one metadata table: {first_few([p.name for p in found])}", str(folder / "metadata"), "keep one")
    return found[0]


def _class_codes(frame: pd.DataFrame, where: str) -> pd.Series:
    """The class column, checked: a second-level code or one of the leftovers that are dropped later."""
    codes = frame["class"].str.strip()
    unknown = ~codes.isin(CLASSES) & ~codes.map(is_leftover)
    if unknown.any():
        rows = [f"row {i + 2}: sound_id {frame['sound_id'][i]}, class {codes[i]!r}" for i in np.flatnonzero(unknown)]
        raise HacError(f"unknown classes in {first_few(rows)}", f"{where}, column class", "use the 23 second-level BST codes: " + ", ".join(CLASSES))
    return codes


def read_metadata(path: Path | str) -> tuple[pd.DataFrame, list[str]]:
    """Read and check a metadata table.

    Returns
    -------
    frame : canonical columns; clips with ``-other`` and family-only codes are dropped
    notes : what was dropped or filled in

    Raises
    ------
    HacError
        A column is missing, an id is empty or double, a class is unknown, a confidence is not 1–5.
    """
    where = str(path)
    frame = read_table(path)
    frame.columns = [str(c).strip() for c in frame.columns]
    twice = sorted(set(frame.columns[frame.columns.duplicated()]))
    if twice:
        raise HacError(f"columns that appear twice: {first_few(twice)}", where, "keep one column of each name")
    unlabelled = "anonymous_id" in frame.columns and "class" not in frame.columns
    if "anonymous_id" in frame.columns and "sound_id" not in frame.columns:
        frame = frame.rename(columns={"anonymous_id": "sound_id"})
    needed = [c for c in NEEDED if not (unlabelled and c == "class")]
    missing = [c for c in needed if c not in frame.columns]
    if missing:
        raise HacError(f"the metadata lacks the columns {first_few(missing)}", where, "columns found: " + ", ".join(map(str, frame.columns)))
    if frame.empty:
        raise HacError("the metadata has no rows", where, "give a table with one row per sound")
    frame = frame.astype(object).where(frame.notna(), "").astype(str).reset_index(drop=True)
    frame["sound_id"] = frame["sound_id"].str.strip()
    empty = frame["sound_id"] == ""
    if empty.any():
        raise HacError(f"empty sound_id in rows {first_few((np.flatnonzero(empty) + 2).tolist())}", f"{where}, column sound_id", "give every clip an id")
    double = frame["sound_id"].duplicated()
    if double.any():
        raise HacError(f"duplicate sound_id {first_few(sorted(set(frame.loc[double, 'sound_id'])))}", f"{where}, column sound_id", "keep one row per clip")
    odd = frame["sound_id"].str.contains(r"[/\\\x00-\x1f]|^\.{1,2}$", regex=True)
    if odd.any():
        raise HacError(f"sound_id that cannot be a file name: {first_few([ascii(i) for i in frame.loc[odd, 'sound_id']])}", f"{where}, column sound_id", "ids must not contain path separators")

    notes = []
    for column in COLUMNS:
        if column not in frame.columns:
            frame[column] = ""
    if unlabelled:
        frame["class"] = ""
    else:
        frame["class"] = _class_codes(frame, where)
        leftover = frame["class"].map(is_leftover)
        if leftover.any():
            notes.append(f"{int(leftover.sum())} clips with -other or family-only codes left out, as the official preparation does")
            frame = frame[~leftover].reset_index(drop=True)
            if frame.empty:
                raise HacError("only -other and family-only classes in the metadata", where, "give clips with second-level classes")
    confidence = pd.to_numeric(frame["confidence"].replace("", np.nan), errors="coerce")
    wrong = (confidence.isna() & (frame["confidence"] != "")) | (confidence < 1) | (confidence > 5)
    if wrong.any():
        rows = [f"sound_id {frame['sound_id'][i]}: {frame['confidence'][i]!r}" for i in np.flatnonzero(wrong)]
        raise HacError(f"confidence that is not 1 to 5: {first_few(rows)}", f"{where}, column confidence", "use 1 … 5, or leave it empty")
    frame["confidence"] = confidence.astype("float64")
    frame["class_idx"] = frame["class"].map(CLASS_IDX).fillna(-1).astype("int64")
    frame["class_top"] = frame["class"].str.split("-").str[0]
    return frame[COLUMNS], notes


def find_audio(folder: Path | str, ids: list[str]) -> dict[str, Path]:
    """sound_id -> file under ``audio/``; the first of `SUFFIXES` wins. Empty when there is no audio folder."""
    audio = Path(folder) / "audio"
    if not audio.is_dir():
        return {}
    wanted = set(ids)
    rank = {s: r for r, s in enumerate(SUFFIXES)}
    found: dict[str, Path] = {}
    for path in sorted(audio.iterdir()):
        r = rank.get(path.suffix.lower())
        if r is None or path.stem not in wanted:
            continue
        if path.stem not in found or r < rank[found[path.stem].suffix.lower()]:
            found[path.stem] = path
    return {i: found[i] for i in ids if i in found}


def read_dataset(folder: Path | str, name: str = "") -> Dataset:
    """Read a dataset folder.

    ``audio/`` may be absent (then only text stages run). A clip of the table whose file is missing
    is listed in `missing_audio`; an audio folder that matches no clip at all is an error.
    """
    folder = Path(folder)
    metadata = find_metadata(folder)
    frame, notes = read_metadata(metadata)
    ids = frame["sound_id"].tolist()
    audio = find_audio(folder, ids)
    missing: list[str] = []
    if (folder / "audio").is_dir():
        missing = [i for i in ids if i not in audio]
        if not audio:
            raise HacError(f"none of the {len(ids)} sound_ids has a file in the audio folder (first: {ids[0]})", str(folder / "audio"), "files are named <sound_id>.wav (or " + " ".join(SUFFIXES[1:]) + "); does the metadata belong to this folder?")
        if missing:
            notes.append(f"{len(missing)} clips have no sound file and are skipped")
    else:
        notes.append("no audio folder: only the stages that need no audio run")
    return Dataset(name or folder.name, folder, frame, audio, missing, notes)


def open_corpora(profile: Profile, generated: Path) -> dict[str, Dataset]:
    """The corpora of a run by role: "dev" always, "noisy" and "evaluation" where there are any.

    The demo profile makes its corpus under `generated` first.
    """
    if profile.kind == "demo":
        c = profile.corpus
        synth.generate(generated, clips=c.clips, noisy=c.noisy, evaluation=c.evaluation, seed=c.seed, workers=profile.workers)
        folders = {"dev": generated / "BSD10k", "noisy": generated / "BSD35k-CS", "evaluation": generated / "eval"}
    else:
        folders = {"dev": Path(profile.data), "noisy": Path(profile.noisy), "evaluation": Path(profile.evaluation)}
        folders = {role: f for role, f in folders.items() if getattr(profile, "data" if role == "dev" else role)}
    return {role: read_dataset(folder) for role, folder in folders.items()}


def describe(dataset: Dataset) -> pd.DataFrame:
    """Clips, mean confidence and uploaders by class, in taxonomy order."""
    grouped = dataset.frame.groupby("class")
    out = pd.DataFrame({"n": grouped.size(), "mean_confidence": grouped["confidence"].mean(), "uploaders": grouped["uploader"].nunique()})
    out = out.reindex(list(CLASSES))
    out[["n", "uploaders"]] = out[["n", "uploaders"]].fillna(0).astype(int)
    return out.rename_axis("class").reset_index()


def join_text(frame: pd.DataFrame, fields: tuple[str, ...] = ("title", "tags", "description")) -> list[str]:
    """One text per clip: the fields in this order, HTML tags removed, tags' commas as spaces; "" when all are empty."""
    parts = []
    for column in fields:
        text = frame[column].fillna("")
        if column == "tags":
            text = text.str.replace(",", " ")
        parts.append(text.str.replace(r"<[^<>]*>", " ", regex=True).str.replace(r"\s+", " ", regex=True).str.strip())
    return [". ".join(p for p in row if p) for row in zip(*parts, strict=True)]

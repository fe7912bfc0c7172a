"""Dataset folders in the BSD10k layout: metadata table and sound files, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from . import fetch, records, synth
from .audio import SUFFIXES
from .config import Profile
from .errors import HacError
from .metadata import COLUMNS, TEXT_COLUMNS, find_metadata, read_metadata
from .taxonomy import CLASSES

__all__ = [
    "COLUMNS",
    "TEXT_COLUMNS",
    "Dataset",
    "describe",
    "find_audio",
    "find_metadata",
    "join_text",
    "open_corpora",
    "read_dataset",
    "read_metadata",
]


#: what a record is for in a run
ROLES = {"bsd10k": "dev", "bsd35k": "noisy", "eval": "evaluation"}


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


def has_metadata(folder: Path | str) -> bool:
    """The folder holds a metadata table, so it is a dataset folder and not just sounds."""
    try:
        find_metadata(folder)
    except HacError:
        return False
    return True


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
            raise HacError(
                f"none of the {len(ids)} sound_ids has a file in the audio folder (first: {ids[0]})",
                str(folder / "audio"),
                "files are named <sound_id>.wav (or "
                + " ".join(SUFFIXES[1:])
                + "); does the metadata belong to this folder?",
            )
        if missing:
            notes.append(f"{len(missing)} clips have no sound file and are skipped")
    else:
        notes.append("no audio folder: only the stages that need no audio run")
    return Dataset(name or folder.name, folder, frame, audio, missing, notes)


def open_corpora(profile: Profile, generated: Path) -> dict[str, Dataset]:
    """The corpora of a run by role: "dev" always, "noisy" and "evaluation" where there are any.

    The demo profile makes its corpus under `generated` first; a records profile fetches what is not in
    the cache yet (metadata and embeddings, never sounds), unless a folder is given.
    """
    if profile.kind == "demo":
        c = profile.corpus
        synth.generate(
            generated,
            clips=c.clips,
            noisy=c.noisy,
            evaluation=c.evaluation,
            seed=c.seed,
            workers=profile.workers,
        )
        folders = {
            "dev": generated / "BSD10k",
            "noisy": generated / "BSD35k-CS",
            "evaluation": generated / "eval",
        }
    else:
        given = {"dev": profile.data, "noisy": profile.noisy, "evaluation": profile.evaluation}
        folders = {role: Path(folder) for role, folder in given.items() if folder}
        if profile.kind == "records" and "dev" not in folders:
            fetched = fetch.get(profile.records)
            folders = {ROLES[name]: folder for name, folder in fetched.items()} | folders
    corpora = {role: read_dataset(folder) for role, folder in folders.items()}
    if profile.kind == "records" and not profile.data and records.is_local():
        corpora["dev"].notes.append(
            f"fetched from the test server {records.base_url()}: these are not the published files"
        )
    return corpora


def describe(dataset: Dataset) -> pd.DataFrame:
    """Clips, mean confidence and uploaders by class, in taxonomy order."""
    grouped = dataset.frame.groupby("class")
    out = pd.DataFrame(
        {
            "n": grouped.size(),
            "mean_confidence": grouped["confidence"].mean(),
            "uploaders": grouped["uploader"].nunique(),
        }
    )
    out = out.reindex(list(CLASSES))
    out[["n", "uploaders"]] = out[["n", "uploaders"]].fillna(0).astype(int)
    return out.rename_axis("class").reset_index()


def join_text(frame: pd.DataFrame, fields: Sequence[str] = TEXT_COLUMNS) -> list[str]:
    """One text per clip: the fields in this order, HTML tags removed, tags' commas as spaces; "" when all are empty."""
    parts = []
    for column in fields:
        text = frame[column].fillna("")
        if column == "tags":
            text = text.str.replace(",", " ")
        parts.append(text.str.replace(r"<[^<>]*>", " ", regex=True).str.replace(r"\s+", " ", regex=True).str.strip())
    return [". ".join(p for p in row if p) for row in zip(*parts, strict=True)]

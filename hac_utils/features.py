"""The CLAP embeddings that come with the challenge data, packed once into one file per modality.

The records hold one ``features/clap_audio_embeddings/<sound_id>.npy`` and one
``features/clap_text_embeddings/<sound_id>.npy`` per clip, 512 values of L2 norm 1
(LAION-CLAP ``630k-audioset-fusion-best.pt``). Opening 35,000 files takes seconds, opening one takes
milliseconds: ``packed/clap_audio.npy`` beside them holds the vectors, ``packed/clap_audio.parquet``
says which file, of which size and time, each row came from. The pack is a cache: it is made again
when a file was added, removed or changed, or when the pack itself is damaged.
"""

from __future__ import annotations

import logging
import os
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .audio import failures_table
from .errors import HacError
from .io import read_npy, read_table, write_npy, write_parquet
from .metadata import releases

log = logging.getLogger(__name__)

DIM = 512
KINDS = {"audio": "clap_audio_embeddings", "text": "clap_text_embeddings"}

#: A file of one vector is 2,176 bytes as float32, twice that as float64; anything much larger is something else.
MAX_BYTES = 65_536

#: How far the L2 norm may be from 1 before :func:`off_norm` names the clip.
NORM_TOLERANCE = 1e-3

_THREADS, _CHUNK = 8, 256
_SPOT_CHECKS = 64


def source_folder(folder: Path | str, kind: str) -> Path:
    """Where the loose embeddings of a dataset folder lie; `kind` is "audio" or "text"."""
    if kind not in KINDS:
        raise HacError(f"no embeddings of kind {kind!r}", "features", "known: " + ", ".join(KINDS))
    return Path(folder) / "features" / KINDS[kind]


def _pack_files(folder: Path | str, kind: str) -> tuple[Path, Path]:
    base = Path(folder) / "packed"
    return base / f"clap_{kind}.npy", base / f"clap_{kind}.parquet"


def _scan(folder: Path | str, kind: str) -> list[tuple[str, int, int]]:
    """(sound_id, size, mtime_ns) of the loose files, sorted; a link that leads nowhere has size -1."""
    source, rows = source_folder(folder, kind), []
    if not source.is_dir():
        return rows
    fd = os.open(source, os.O_RDONLY)  # looking files up from here is faster than by their whole path
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.name.endswith(".npy") and not entry.name.startswith("."):
                    try:
                        s = entry.stat()
                    except OSError:
                        rows.append((entry.name[:-4], -1, 0))
                    else:
                        rows.append((entry.name[:-4], s.st_size, s.st_mtime_ns))
    finally:
        os.close(fd)
    rows.sort()
    return rows


def list_source(folder: Path | str, kind: str) -> pd.DataFrame:
    """The loose files as a table (sound_id, size, mtime_ns), sorted by id; empty when there is no such folder."""
    rows = pd.DataFrame(_scan(folder, kind), columns=["sound_id", "size", "mtime_ns"])
    return rows.astype({"sound_id": "str", "size": "int64", "mtime_ns": "int64"})


def _read_one(path: str) -> tuple[np.ndarray | None, str]:
    """One vector, float32 (512,), or the reason why not."""
    if not os.path.isfile(path):
        return None, "not a regular file"
    size = os.path.getsize(path)
    if size == 0:
        return None, "the file is empty"
    if size > MAX_BYTES:
        return None, f"{size} bytes, too large for one vector of {DIM}"
    try:
        vector = read_npy(path)
    except HacError as e:
        return None, e.what
    if vector.shape not in ((DIM,), (1, DIM)):
        return None, f"shape {vector.shape} instead of ({DIM},)"
    if not np.issubdtype(vector.dtype, np.floating):
        return None, f"dtype {vector.dtype} instead of a floating-point type"
    with np.errstate(over="ignore"):
        vector = vector.reshape(DIM).astype(np.float32)
    if not np.isfinite(vector).all():
        return None, "values that are NaN or infinite"
    if not vector.any():
        return None, "all values are zero"
    return vector, ""


def read_loose(folder: Path | str, kind: str, ids: Sequence[str]) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """Read single files, in the order of `ids`, with a thread pool; nothing is written.

    Returns
    -------
    ids : those that could be read
    X : float32 (k, 512)
    bad : sound_id -> reason
    """
    source = str(source_folder(folder, kind))
    X, kept, bad = np.empty((len(ids), DIM), np.float32), [], {}
    chunks = [ids[i : i + _CHUNK] for i in range(0, len(ids), _CHUNK)]
    bar = tqdm(total=len(ids), desc=f"read {kind} embeddings", unit="file", disable=None, mininterval=1.0)
    with ThreadPoolExecutor(_THREADS) as pool, bar:
        results = pool.map(lambda chunk: [_read_one(f"{source}/{i}.npy") for i in chunk], chunks)
        for chunk, done in zip(chunks, results, strict=True):
            bar.update(len(chunk))
            for sound_id, (vector, reason) in zip(chunk, done, strict=True):
                if vector is None:
                    bad[sound_id] = reason
                else:
                    X[len(kept)] = vector
                    kept.append(sound_id)
    return kept, X[: len(kept)], bad


def pack(folder: Path | str, ids: Sequence[str], kind: str) -> tuple[list[str], np.ndarray, pd.DataFrame]:
    """Read the loose embeddings and write the pack: the rows of `ids` first, in their order, then all other files.

    A folder that cannot be written to is only logged. Returns and raises what :func:`load` does.
    """
    listing = list_source(folder, kind)
    _refuse_strangers(folder, kind, ids, set(listing["sound_id"]))
    position = {i: k for k, i in enumerate(ids)}
    order = sorted(listing["sound_id"], key=lambda i: (position.get(i, len(position)), i))
    kept, X, bad = read_loose(folder, kind, order)
    row = {i: k for k, i in enumerate(kept)}
    index = listing.assign(
        row=[row.get(i, -1) for i in listing["sound_id"]],
        crc32=[zlib.crc32(X[row[i]]) if i in row else 0 for i in listing["sound_id"]],
        reason=[bad.get(i, "") for i in listing["sound_id"]],
    )
    array, table = _pack_files(folder, kind)
    try:
        write_npy(array, X)
        write_parquet(table, index)
    except HacError as e:
        log.warning("embeddings not packed: %s (%s)", e.what, e.where)
    # the vectors in memory, not the file just written: another process may have replaced it by now
    return _select(folder, kind, index, X, ids)


def load(folder: Path | str, ids: Sequence[str], kind: str) -> tuple[list[str], np.ndarray, pd.DataFrame]:
    """The provided embeddings of some clips, from the pack; the pack is made first where it is missing or stale.

    Parameters
    ----------
    folder : dataset folder with ``features/`` (or only ``packed/``)
    ids : sound_ids wanted
    kind : {"audio", "text"}

    Returns
    -------
    ids : list of str, length k, in the order given; those that have an embedding
    X : float32 (k, 512), memory-mapped and read-only where the pack has that order, else a copy
    failures : table (sound_id, stage, reason) of the others

    Raises
    ------
    HacError
        No embeddings at all, or not one for these clips (named by data set where it can be told).
    """
    found = read_pack(folder, kind)
    if isinstance(found, str):
        log.info("packing %s embeddings of %s: %s", kind, folder, found)
        return pack(folder, ids, kind)
    index, X = found
    _refuse_strangers(folder, kind, ids, set(index["sound_id"].tolist()))
    return _select(folder, kind, index, X, ids)


def inspect(folder: Path | str, ids: Sequence[str], kind: str) -> tuple[list[str], np.ndarray, pd.DataFrame, list[str]]:
    """What :func:`load` would give, and the ids of embeddings that are in none of `ids`. Nothing is written."""
    if source_folder(folder, kind).is_dir():
        index = list_source(folder, kind)
        _refuse_strangers(folder, kind, ids, set(index["sound_id"]))
        kept, X, bad = read_loose(folder, kind, index["sound_id"][index["sound_id"].isin(set(ids))].tolist())
        row = {i: k for k, i in enumerate(kept)}
        index = index.assign(
            row=[row.get(i, -1) for i in index["sound_id"]],
            reason=[bad.get(i, "") for i in index["sound_id"]],
        )
    else:
        found = read_pack(folder, kind)
        if isinstance(found, str):
            raise HacError(
                f"no {kind} embeddings here: {found}",
                str(source_folder(folder, kind)),
                "unpack features.zip into the dataset folder",
            )
        index, X = found
        _refuse_strangers(folder, kind, ids, set(index["sound_id"]))
    return *_select(folder, kind, index, X, ids), sorted(set(index["sound_id"]) - set(ids))


def has_embeddings(folder: Path | str, kind: str) -> bool:
    """There are single files or a pack to read; they may still be bad."""
    return source_folder(folder, kind).is_dir() or all(p.is_file() for p in _pack_files(folder, kind))


def read_pack(folder: Path | str, kind: str) -> tuple[pd.DataFrame, np.ndarray] | str:
    """(index, memory-mapped vectors) of the pack, or a sentence why it cannot be used."""
    array, table = _pack_files(folder, kind)
    if not (array.is_file() and table.is_file()):
        return "no pack yet"
    try:
        index = read_table(table)
        X = np.load(array, mmap_mode="r", allow_pickle=False)
    except (HacError, ValueError, OSError, EOFError):
        return "the pack is damaged"
    if list(index.columns) != ["sound_id", "size", "mtime_ns", "row", "crc32", "reason"]:
        return "the pack is of another version"
    rows = index["row"].to_numpy()
    good = np.flatnonzero(rows >= 0)
    if (
        X.shape != (len(good), DIM)
        or X.dtype != np.float32
        or not np.array_equal(np.sort(rows[good]), np.arange(len(good)))
    ):
        return "the pack is damaged"
    crc = index["crc32"].to_numpy()
    for k in good[np.unique(np.linspace(0, len(good) - 1, _SPOT_CHECKS).astype(int))] if len(good) else []:
        if zlib.crc32(np.ascontiguousarray(X[rows[k]])) != crc[k]:
            return "the pack is damaged"
    if source_folder(folder, kind).is_dir():
        if _scan(folder, kind) != list(
            zip(index["sound_id"].tolist(), index["size"].tolist(), index["mtime_ns"].tolist(), strict=True)
        ):
            return "the single files changed"
    return index, X


def _select(
    folder: Path | str, kind: str, index: pd.DataFrame, X: np.ndarray, ids: Sequence[str]
) -> tuple[list[str], np.ndarray, pd.DataFrame]:
    names = index["sound_id"].tolist()
    row = dict(zip(names, index["row"].tolist(), strict=True))
    kept = [i for i in ids if row.get(i, -1) >= 0]
    if len(kept) == len(ids):
        failures = failures_table([])
    else:
        reason = dict(zip(names, index["reason"].tolist(), strict=True))
        failures = failures_table(
            [
                (i, f"{kind} embedding", reason.get(i, f"no file {KINDS[kind]}/{i}.npy"))
                for i in ids
                if row.get(i, -1) < 0
            ]
        )
    if not kept:
        first = failures.iloc[0]
        raise HacError(
            f"none of the {len(ids)} clips has a usable {kind} embedding; the first: {first['reason']}",
            f"{source_folder(folder, kind)} (sound_id {first['sound_id']})",
            "unpack features.zip again",
        )
    rows = np.array([row[i] for i in kept])
    ordered = rows[0] + len(rows) == rows[-1] + 1 and bool((np.diff(rows) == 1).all())
    return kept, X[rows[0] : rows[-1] + 1] if ordered else X[rows], failures


def _refuse_strangers(folder: Path | str, kind: str, ids: Sequence[str], present: set[str]) -> None:
    """No embeddings at all, or none of these clips: an error that says whose embeddings they seem to be."""
    source = source_folder(folder, kind)
    if not len(ids):
        raise HacError("no clips to load embeddings for", str(source), "give at least one sound_id")
    if not present:
        raise HacError(
            f"no {kind} embeddings here",
            str(source),
            "unpack features.zip into the dataset folder (hac data get), or run with audio",
        )
    if present.isdisjoint(ids):
        ours, theirs = data_set_of(ids, folder), data_set_of(present, source.resolve())
        named = f": the table is {ours}, the embeddings are those of {theirs}" if theirs and theirs != ours else ""
        raise HacError(
            f"none of the {len(ids)} clips has one of the {len(present)} {kind} embeddings{named or ', which belong to another data set'} "
            f"(first id of the table {ids[0]}, of the embeddings {min(present)})",
            str(source),
            f"put the features of {ours if named else 'this data set'} there, or give the other data set's folder",
        )


def data_set_of(ids: Sequence[str] | set[str], path: Path | str) -> str:
    """ "BSD10k" or "BSD35k-CS" by their ids, else by the folder's name, else "" (for messages)."""
    known = releases()
    ids = set(ids)
    low, high = known["id_range"]["BSD35k-CS"]
    if len(ids & set(known["relabelled"])) >= 0.5 * len(known["relabelled"]):
        return "BSD10k"
    if all(i.isascii() and i.isdigit() and low <= int(i) <= high for i in ids):
        return "BSD35k-CS"
    names = [part for part in reversed(Path(path).parts) if re.match(r"BSD(10|35)k", part, re.IGNORECASE)]
    return ("BSD35k-CS" if "35" in names[0][:5] else "BSD10k") if names else ""


def off_norm(ids: Sequence[str], X: np.ndarray) -> list[str]:
    """The ids whose vector has an L2 norm that is not 1 within `NORM_TOLERANCE`."""
    norms = np.sqrt(np.einsum("ij,ij->i", X, X, dtype=np.float64))
    return [ids[k] for k in np.flatnonzero(np.abs(norms - 1) > NORM_TOLERANCE)]

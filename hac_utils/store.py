"""Embeddings on disk in shards that are whole or absent; a vector is found by its id and the hash of its content.

``OUT/<encoder>-<key8>/`` holds the vectors of one encoder with one setting, under a key made of everything
a vector depends on:

- ``meta.json``: the key and what it was made of
- ``shard-00000.npy``: float32 (n, dim), and ``shard-00000.parquet``: which row is whose, and what failed;
  the table is written last, so a shard without one does not exist
- ``index.parquet``, ``failures.parquet``: the outcome of the latest extraction, by sound_id
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .errors import HacError, first_few
from .io import dump_json, read_json, read_table, sha256_text, write_json, write_npy, write_parquet

log = logging.getLogger(__name__)

#: Raised by hand when the same settings come to mean other vectors.
EXTRACT_VERSION = 1

_TYPES = {
    "sound_id": "str",
    "sha256": "str",
    "row": "int64",
    "crc32": "int64",
    "stage": "str",
    "reason": "str",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one item: a vector (dim,), or the stage at which it failed and why.

    `sha256` is that of the file's bytes or the text; "" when the file could not be read.
    """

    sound_id: str
    sha256: str
    vector: np.ndarray | None = None
    stage: str = ""
    reason: str = ""


@dataclass
class Store:
    """One encoder's folder. Make it with :func:`open_store`; call `scan` before looking anything up.

    Attributes
    ----------
    good : (sound_id, sha256) -> (shard, row)
    failed : sound_id -> {(sha256, stage, reason)} of all failures ever written
    shards : numbers of the shards that exist
    """

    folder: Path
    dim: int
    good: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    failed: dict[str, set[tuple[str, str, str]]] = field(default_factory=dict)
    shards: set[int] = field(default_factory=set)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One writer at a time; a second process waits. Leftovers of a killed one are removed."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            f = open(self.folder / ".lock", "a")
        except OSError as e:
            raise HacError(
                f"cannot write: {e.strerror}", str(self.folder), "choose a folder you can write to"
            ) from None
        with f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                log.warning("another process is extracting into %s: waiting for it", self.folder)
                fcntl.flock(f, fcntl.LOCK_EX)
            for leftover in self.folder.glob(".*.tmp*"):
                leftover.unlink(missing_ok=True)
            yield

    def _files(self, number: int) -> tuple[Path, Path]:
        return self.folder / f"shard-{number:05d}.npy", self.folder / f"shard-{number:05d}.parquet"

    def _read_shard(self, number: int) -> tuple[pd.DataFrame, np.ndarray] | None:
        """Index and vectors (memory-mapped) of a shard, or None when it is damaged."""
        array, table = self._files(number)
        try:
            index = read_table(table)
            if list(index.columns) != list(_TYPES):
                return None
            n = int((index["row"] >= 0).sum())
            X = np.load(array, mmap_mode="r", allow_pickle=False) if n else np.empty((0, self.dim), np.float32)
        except (HacError, ValueError, OSError, EOFError):
            return None
        kept = index[index["row"] >= 0]
        if X.shape != (n, self.dim) or X.dtype != np.float32 or kept["row"].tolist() != list(range(n)):
            return None
        if [zlib.crc32(x) for x in X] != kept["crc32"].tolist():
            return None
        return index, X

    def scan(self, *, repair: bool = False) -> None:
        """Read what there is. A damaged shard does not count; with `repair` (under the lock) it is removed."""
        self.good, self.failed, self.shards = {}, {}, set()
        for path in sorted(self.folder.glob("shard-*.parquet")):
            match = re.fullmatch(r"shard-(\d{5,})", path.stem)
            if not match:
                continue
            number = int(match[1])
            found = self._read_shard(number)
            if found is None:
                log.warning("%s is damaged: its clips are computed again", path)
                if repair:
                    self._remove(number)
            else:
                self._note(number, found[0])

    def _note(self, number: int, index: pd.DataFrame) -> None:
        self.shards.add(number)
        for r in index.itertuples(index=False):
            if r.row >= 0:
                self.good[r.sound_id, r.sha256] = (number, r.row)
                self.failed.setdefault(r.sound_id, set())
            else:
                self.failed.setdefault(r.sound_id, set()).add((r.sha256, r.stage, r.reason))

    def _remove(self, number: int) -> None:
        array, table = self._files(number)
        table.unlink(missing_ok=True)
        array.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove every shard (under the lock)."""
        for path in sorted(self.folder.glob("shard-*.parquet")) + sorted(self.folder.glob("shard-*.npy")):
            path.unlink()
        self.good, self.failed, self.shards = {}, {}, set()

    def knows(self, sound_id: str) -> bool:
        """Whether any outcome of this id was ever written."""
        return sound_id in self.failed

    def free_numbers(self) -> Iterator[int]:
        """Shard numbers not in use, ascending."""
        number = 0
        while True:
            if number not in self.shards:
                yield number
            number += 1

    def write(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Write one shard, whole or not at all (under the lock)."""
        vectors = [o.vector for o in outcomes if o.vector is not None]
        rows = iter(range(len(vectors)))
        index = pd.DataFrame(
            [
                (o.sound_id, o.sha256, -1, 0, o.stage, o.reason)
                if o.vector is None
                else (
                    o.sound_id,
                    o.sha256,
                    next(rows),
                    zlib.crc32(np.ascontiguousarray(o.vector, np.float32)),
                    "",
                    "",
                )
                for o in outcomes
            ],
            columns=list(_TYPES),
        ).astype(_TYPES)
        array, table = self._files(number)
        if vectors:
            write_npy(array, np.stack(vectors).astype(np.float32, copy=False))
        else:
            array.unlink(missing_ok=True)  # of a shard that was never finished
        write_parquet(table, index)
        self._note(number, index)

    def finish(self, wanted: Mapping[str, str], failures: pd.DataFrame) -> None:
        """Write the outcome of an extraction: `wanted` is sound_id -> sha256 of the items that have a vector."""
        places = [(i, wanted[i], *self.good[i, wanted[i]]) for i in sorted(wanted)]
        index = pd.DataFrame(places, columns=["sound_id", "sha256", "shard", "row"]).astype(
            {"sound_id": "str", "sha256": "str", "shard": "int64", "row": "int64"}
        )
        write_parquet(self.folder / "failures.parquet", failures)
        write_parquet(self.folder / "index.parquet", index)

    def read(self, wanted: Mapping[str, str]) -> np.ndarray:
        """Vectors of sound_id -> sha256, in this order: float32 (n, dim); memory-mapped where they are one whole shard."""
        places = np.array([self.good[item] for item in wanted.items()], dtype=np.int64).reshape(-1, 2)
        out = np.empty((len(places), self.dim), np.float32)
        for number in np.unique(places[:, 0]).tolist():
            X = np.load(self._files(number)[0], mmap_mode="r", allow_pickle=False)
            here = places[:, 0] == number
            rows = places[here, 1]
            if here.all() and np.array_equal(rows, np.arange(len(X))):
                return X
            out[here] = X[rows]
        return out


def content_key(document: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of everything the vectors depend on, and `EXTRACT_VERSION`."""
    return sha256_text(dump_json({**document, "extract_version": EXTRACT_VERSION}))


def open_store(out: Path | str, name: str, dim: int, document: Mapping[str, Any]) -> Store:
    """The store of an encoder under `out`; the folder is made when the store is locked, `meta.json` by :func:`describe`."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "encoder"
    return Store(Path(out) / f"{safe}-{content_key(document)[:8]}", dim)


def describe(store: Store, name: str, document: Mapping[str, Any]) -> None:
    """Write ``meta.json``, or check that it is of the same key (under the lock)."""
    meta = {
        "encoder": name,
        "dim": store.dim,
        "key": content_key(document),
        "made_of": {**document, "extract_version": EXTRACT_VERSION},
    }
    path = store.folder / "meta.json"
    if path.is_file():
        if read_json(path).get("key") != meta["key"]:
            raise HacError("the store was made with other settings", str(path), "choose another output folder")
        return
    write_json(path, meta)


def load(folder: Path | str, ids: Sequence[str] | None = None) -> tuple[list[str], np.ndarray]:
    """The vectors of the latest extraction into a store's folder.

    Parameters
    ----------
    folder : ``OUT/<encoder>-<key8>``
    ids : sound_ids wanted, in this order; None for all, sorted

    Returns
    -------
    ids, X : float32 (n, dim)

    Raises
    ------
    HacError
        No finished extraction, or ids without a vector.
    """
    folder = Path(folder)
    index = read_table(folder / "index.parquet")
    wanted = dict(zip(index["sound_id"].tolist(), index["sha256"].tolist(), strict=True))
    if ids is not None:
        missing = [i for i in ids if i not in wanted]
        if missing:
            raise HacError(
                f"{len(missing)} of {len(ids)} clips have no embedding: {first_few(missing)}",
                str(folder / "index.parquet"),
                "see failures.parquet beside it, or run hac extract again",
            )
        wanted = {i: wanted[i] for i in ids}
    store = Store(folder, int(read_json(folder / "meta.json")["dim"]))
    store.scan()
    lost = [i for i, sha in wanted.items() if (i, sha) not in store.good]
    if lost:
        raise HacError(
            f"damaged shards: {first_few(lost)} are lost",
            str(folder),
            "run hac extract again: it computes what is missing",
        )
    return list(wanted), store.read(wanted)

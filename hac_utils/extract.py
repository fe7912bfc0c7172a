"""Sounds and texts to embeddings on disk; a clip that cannot be decoded is listed and left out.

Sounds are decoded in worker processes, which on a CPU also encode; a GPU's encoder is in the main process.
Clips are sorted by id and cut into shards, shards into batches, so a vector never depends on the order of the
input, on the number of workers or on where an earlier run was killed.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from . import features
from .audio import DECODING, FFMPEG_SUFFIXES, MAX_SECONDS, SUFFIXES, failures_table
from .batches import Read, beside, decoding_part, file_hash, finish_batch, is_audio, read_sound
from .encoders import TEXT_ENCODERS
from .errors import HacError, first_few
from .io import sha256_text
from .pool import Died, ordered
from .store import Outcome, Store, describe, open_store

if TYPE_CHECKING:  # without it decoding processes start twice as fast: it brings scipy.signal along
    from .datasets import Dataset

#: Encoder name for the LAION-CLAP embeddings that the challenge provides with its data sets.
PROVIDED = "clap-provided"

#: Fewer clips are not worth the start of processes.
_FEW = 32


@dataclass(frozen=True)
class Shard:
    """A shard to be made: its number and ids; `again` for items that failed before or changed."""

    number: int
    ids: list[str]
    again: bool


@dataclass(frozen=True)
class Summary:
    """What an extraction did.

    Attributes
    ----------
    computed, reused : items encoded (or tried) now, and items that had a vector already
    failures : table (sound_id, stage, reason)
    seconds, model_seconds : wall time, and the part of it spent in the encoder's network (of several processes
        the mean)
    """

    encoder: str
    store: Store
    hashes: dict[str, str]
    computed: int
    reused: int
    failures: pd.DataFrame
    seconds: float
    model_seconds: float = 0.0

    def read(self, ids: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """Those of `ids` that have a vector, in this order, and float32 (k, dim)."""
        wanted = {i: self.hashes[i] for i in ids if i in self.hashes}
        return list(wanted), self.store.read(wanted)

    def table(self) -> pd.DataFrame:
        """One row for people."""
        rate = self.computed / self.seconds if self.seconds else 0.0
        return pd.DataFrame([{
            "encoder": self.encoder, "embedded": len(self.hashes), "computed now": self.computed, "kept": self.reused, "failed": len(self.failures),
            "seconds": round(self.seconds, 1), "clips/s": round(rate, 1), "in the model": f"{100 * self.model_seconds / self.seconds:.0f} %" if self.seconds else "", "store": str(self.store.folder),
        }])  # fmt: skip


def store_document(encoder: Any) -> dict[str, Any]:
    """Everything the vectors of an encoder depend on besides the items."""
    decode = (
        {
            **DECODING,
            "sample_rate": encoder.sample_rate,
            "max_seconds": getattr(encoder, "max_seconds", MAX_SECONDS),
        }
        if is_audio(encoder)
        else {}
    )
    return {"encoder": encoder.name, "settings": encoder.settings(), "decode": decode}


def open_for(encoder: Any, out: Path | str) -> Store:
    """The store of this encoder under `out`.

    Raises
    ------
    HacError
        A text encoder that is fitted per fold: its vectors depend on other texts.
    """
    if encoder.name in TEXT_ENCODERS:
        raise HacError(
            f"the {encoder.name} encoder is fitted on the training texts of a fold, so it has no vectors of its own",
            "--encoder",
            "the notebooks use it; extract with clap",
        )
    return open_store(out, encoder.name, encoder.dim, store_document(encoder))


def plan(
    items: Mapping[str, Path | str], store: Store, *, audio: bool, shard_size: int
) -> tuple[list[Shard], dict[str, str]]:
    """What is missing, in shards, and sound_id -> sha256 of what is there.

    Only items that the store knows are hashed now. New items come first, sorted and cut at fixed places, so that
    a run that was killed goes on exactly where it would have; items that failed or changed come after them.
    """
    known = sorted(i for i in items if store.knows(i))
    with ThreadPoolExecutor(8) as pool:
        hashes = dict(zip(known, pool.map(file_hash if audio else sha256_text, [items[i] for i in known]), strict=True))
    there = {i: sha for i, sha in hashes.items() if (i, sha) in store.good}
    numbers = store.free_numbers()
    shards = []
    for again, ids in (
        (False, sorted(set(items) - set(known))),
        (True, [i for i in known if i not in there]),
    ):
        shards += [Shard(next(numbers), ids[k : k + shard_size], again) for k in range(0, len(ids), shard_size)]
    return shards, there


def commit(store: Store, shard: Shard, outcomes: Sequence[Outcome]) -> None:
    """Write a finished shard; what failed again in the same way is not written twice."""
    if shard.again:
        outcomes = [
            o
            for o in outcomes
            if o.vector is not None or (o.sha256, o.stage, o.reason) not in store.failed.get(o.sound_id, ())
        ]
    if outcomes:
        store.write(shard.number, outcomes)


def extract(
    items: Mapping[str, Path | str],
    encoder: Any,
    out: Path | str,
    *,
    workers: int = 2,
    batch_size: int = 16,
    shard_size: int = 256,
    resume: bool = True,
) -> Summary:
    """Embed sounds or texts into the encoder's store under `out`; what is there already is kept.

    Parameters
    ----------
    items : sound_id -> sound file, or -> text for a text encoder
    encoder : name, dim, sample_rate (audio only), settings() and ``encode(batch, ids) -> float32 (n, dim)``
    workers : decoding processes, on a CPU also encoding ones; 0, or few items: all is done in this one
    batch_size : clips encoded together. Batches never cross shards.
    shard_size : clips a shard; as much work is lost at most when the process is killed
    resume : False removes what the store holds and starts again

    Returns
    -------
    Summary. Items that failed are in its `failures` and in ``failures.parquet``; they are tried again next time.

    Raises
    ------
    HacError
        Files that cannot be written, worker processes that keep dying.
    """
    start = time.perf_counter()
    store = open_for(encoder, out)
    with store.lock():
        describe(store, encoder.name, store_document(encoder))
        store.scan(repair=True)
        if not resume:
            store.clear()
        shards, hashes = plan(items, store, audio=is_audio(encoder), shard_size=shard_size)
        ids = [i for s in shards for i in s.ids]
        reused, failed, model_seconds = len(hashes), [], 0.0
        reads = _reads(items, ids, encoder, workers, ahead=batch_size + 2 * workers)
        try:
            with tqdm(
                total=len(items),
                initial=reused,
                desc=f"embed ({encoder.name})",
                unit="clip",
                disable=None,
                mininterval=1.0,
            ) as bar:
                for shard in shards:
                    outcomes: list[Outcome] = []
                    for k in range(0, len(shard.ids), batch_size):
                        batch = [(i, next(reads)) for i in shard.ids[k : k + batch_size]]
                        began = time.perf_counter()
                        outcomes += finish_batch(encoder, batch)
                        here = 0.0 if beside(encoder) else time.perf_counter() - began
                        model_seconds += here + sum(read.seconds for _, read in batch)
                        bar.update(len(batch))
                        if not hashes and not any(o.vector is not None for o in outcomes):
                            _refuse_if_broken(encoder, outcomes)
                    commit(store, shard, outcomes)
                    hashes |= {o.sound_id: o.sha256 for o in outcomes if o.vector is not None}
                    failed += [(o.sound_id, o.stage, o.reason) for o in outcomes if o.vector is None]
        finally:
            reads.close()
        failures = failures_table(failed)
        store.finish(hashes, failures)
    if beside(encoder) and _parallel(workers, ids):
        model_seconds /= workers
    return Summary(encoder.name, store, hashes, len(ids), reused, failures, time.perf_counter() - start, model_seconds)


def _parallel(workers: int, ids: list[str]) -> bool:
    return workers >= 1 and len(ids) >= _FEW


def _refuse_if_broken(encoder: Any, outcomes: Sequence[Outcome]) -> None:
    """When the encoder has failed on all of several clips, and on nothing but clips so far, it is not the clips."""
    reasons = [o.reason for o in outcomes if o.stage == "encode"]
    if len(reasons) > 1 and len(set(reasons)) == 1:
        raise HacError(
            f"{reasons[0]} (on each of the first {len(reasons)} clips)",
            encoder.name,
            "check the encoder's weights, device and memory",
        )


def _reads(items: Mapping[str, Path | str], ids: list[str], encoder: Any, workers: int, ahead: int) -> Iterator[Read]:
    """What was read of each of `ids`, in order."""
    if not is_audio(encoder):
        for i in ids:
            yield Read(sha256_text(items[i]), items[i])
        return
    tasks = [(i, os.fspath(items[i]), decoding_part(encoder)) for i in ids]
    if not _parallel(workers, ids):
        yield from map(read_sound, tasks)
        return
    for result in ordered(read_sound, tasks, workers=workers, ahead=ahead):
        yield Read("", None, "decode", result.reason) if isinstance(result, Died) else result


def sounds_in(path: Path | str) -> dict[str, Path]:
    """sound_id -> file of a dataset folder, of any folder of sounds, or of one sound file.

    In a folder without metadata the id is the path below it, without the ending; anything but letters, digits,
    ``.``, ``_`` and ``-`` becomes ``_``. Where two files would get one id, both get a piece of their path's hash.

    Raises
    ------
    HacError
        No such folder, or no sounds in it.
    """
    from .datasets import find_metadata, read_dataset

    path = Path(path)
    if path.is_file():
        return {_safe_id(path.name): path}
    try:
        find_metadata(path)
    except HacError:
        pass
    else:
        found = read_dataset(path).audio
        if not found:
            raise HacError("the dataset has no sounds", str(path / "audio"), "hac data get NAME --audio")
        return found
    if not path.is_dir():
        raise HacError("no such folder", str(path), "give a dataset folder, a folder of sounds, or a sound file")
    suffixes, names = SUFFIXES + FFMPEG_SUFFIXES, []
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(d for d in folders if not d.startswith("."))
        for name in sorted(files + folders):  # a folder called x.wav is listed, and fails by name
            if Path(name).suffix.lower() in suffixes and not name.startswith("."):
                names.append(os.path.relpath(os.path.join(folder, name), path))
    if not names:
        raise HacError("no sounds in the folder", str(path), "sounds end in " + " ".join(suffixes))
    counts = Counter(_safe_id(n) for n in names)
    return {
        _safe_id(n) if counts[_safe_id(n)] == 1 else f"{_safe_id(n)}-{_short_hash(n)}": path / n for n in sorted(names)
    }


def _safe_id(name: str) -> str:
    stem = re.sub(r"[^\w.-]+", "_", os.path.splitext(name)[0].replace(os.sep, "__")).strip(".") or "_"
    return stem if len(stem) <= 100 else f"{stem[:90]}-{_short_hash(name)}"


def _short_hash(name: str) -> str:
    return sha256_text(os.fsencode(name).hex())[:8]


def embed_audio(
    paths: dict[str, Path], encoder: str, workers: int = 2, *, store: Path | None = None
) -> tuple[list[str], np.ndarray, pd.DataFrame]:
    """Embed sound files, through the store under the folder `store` (else nothing is kept).

    Returns
    -------
    ids : list of str, length k, in the order of `paths`
    X : float32, shape (k, 512)
    failures : table (sound_id, stage, reason)
    """
    from .catalog import audio_encoder

    with tempfile.TemporaryDirectory(prefix="hac-store-") as nowhere:
        done = extract(paths, audio_encoder(encoder), store or nowhere, workers=workers)
        ids, X = done.read(list(paths))
        return ids, np.array(X), done.failures.assign(stage="audio embedding")


@dataclass(frozen=True)
class Embedded:
    """A corpus after extraction: the clips that are kept, and their vectors.

    Attributes
    ----------
    frame : the metadata rows that are kept, with a column ``path`` ("" without a sound file)
    audio : float32 (len(frame), 512), or None when there is neither sound nor a provided embedding
    text : float32 (len(frame), 512), or None when the text encoder is fitted per fold (:func:`embed_texts`)
    failures : table (sound_id, stage, reason) of the clips left out
    """

    frame: pd.DataFrame
    audio: np.ndarray | None
    text: np.ndarray | None
    failures: pd.DataFrame


def embed_corpus(
    dataset: Dataset, audio_encoder: str, text_encoder: str, workers: int = 2, *, store: Path | None = None
) -> Embedded:
    """Embed a corpus, or take the embeddings that came with it ("clap-provided"); keep the clips that have all.

    `store` is a folder that keeps what was embedded, so that a run that was killed goes on where it stopped.
    """
    ids = dataset.frame["sound_id"].tolist()
    vectors: dict[str, tuple[list[str], np.ndarray]] = {}
    failures = [failures_table([(i, "audio file", "no file for this sound_id") for i in dataset.missing_audio])]
    if audio_encoder == PROVIDED:
        failures = []
        *vectors["audio"], bad = features.load(dataset.folder, ids, "audio")
        failures.append(bad)
    elif dataset.has_audio:
        *vectors["audio"], bad = embed_audio(dataset.audio, audio_encoder, workers, store=store)
        failures.append(bad)
        if not vectors["audio"][0]:
            raise HacError(
                f"none of the {len(bad)} sound files could be read; the first: {bad['reason'].iloc[0]}",
                str(dataset.folder / "audio"),
                f"check the files {first_few(bad['sound_id'].tolist())}",
            )
    if text_encoder == PROVIDED:
        *vectors["text"], bad = features.load(dataset.folder, ids, "text")
        failures.append(bad)
    elif text_encoder not in TEXT_ENCODERS:
        from . import catalog, templates

        vectors["text"] = (ids, catalog.text_encoder(text_encoder).encode(templates.DEFAULT(dataset.frame)))
    have = [set(names) for names, _ in vectors.values()]
    kept = [i for i in ids if all(i in h for h in have)]
    frame = dataset.frame.set_index("sound_id").loc[kept].reset_index()[dataset.frame.columns]
    frame["path"] = [str(dataset.audio.get(i, "")) for i in kept]
    out = {
        kind: X if list(names) == kept else X[pd.Index(names).get_indexer(kept)] for kind, (names, X) in vectors.items()
    }
    table = pd.concat(failures, ignore_index=True).drop_duplicates("sound_id", ignore_index=True)
    return Embedded(frame, out.get("audio"), out.get("text"), table)


def embed_texts(
    encoder: str, train: Sequence[str], corpora: dict[str, Sequence[str]], *, seed: int
) -> dict[str, np.ndarray]:
    """Fit a text encoder on the training texts only, then embed each corpus: name -> (n, 512)."""
    fitted = TEXT_ENCODERS[encoder](seed).fit(train)
    return {name: fitted.encode(texts) for name, texts in corpora.items()}

"""From files and texts to outcomes: an item is read in one process, and encoded with its batch in another."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .audio import MAX_SECONDS, load_audio
from .errors import HacError
from .io import sha256_file
from .store import Outcome


def beside(encoder: Any) -> bool:
    """Whether the encoder does its work in the decoding processes."""
    return getattr(encoder, "beside", False)


def is_audio(encoder: Any) -> bool:
    """Audio encoders have a sample rate; the others take texts."""
    return hasattr(encoder, "sample_rate")


@dataclass(frozen=True)
class Read:
    """A file after decoding: its hash and the encoder's input (or already a vector), or the reason why not.

    `seconds` were spent in the encoder's network.
    """

    sha256: str
    value: np.ndarray | None
    stage: str = ""
    reason: str = ""
    seconds: float = 0.0


def read_sound(task: tuple[str, str, Any]) -> Read:
    """(sound_id, path, encoder) to what the encoder's network gets, or to the vector of one that encodes here."""
    sound_id, path, encoder = task
    sha = ""
    try:
        before = _state(path)
        sha = file_hash(path)
        audio = load_audio(path, encoder.sample_rate, getattr(encoder, "max_seconds", MAX_SECONDS))
        if _state(path) != before:
            raise HacError("the file changed while it was read", path)
    except HacError as e:
        return Read(sha, None, "decode", e.what)
    with _threads().limit(limits=1):  # another number of threads gives other last bits
        try:
            value = encoder.prepare(audio, sound_id) if hasattr(encoder, "prepare") else audio
        except Exception as e:
            return Read(sha, None, "encode", _failure(encoder, e))
        if not beside(encoder):
            return Read(sha, value)
        began = time.perf_counter()
        outcome = encode_batch(encoder, [(sound_id, Read(sha, value))])[0]
    return Read(sha, outcome.vector, outcome.stage, outcome.reason, time.perf_counter() - began)


@lru_cache(maxsize=1)
def _threads() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@dataclass(frozen=True)
class _Spec:
    """What a decoding process needs to know of an encoder that stays in the main process."""

    name: str
    sample_rate: int
    max_seconds: float | None


def decoding_part(encoder: Any) -> Any:
    """What travels to a decoding process: an encoder with work there, else only its name, rate and length."""
    if beside(encoder) or hasattr(encoder, "prepare"):
        return encoder
    return _Spec(encoder.name, encoder.sample_rate, getattr(encoder, "max_seconds", MAX_SECONDS))


def _state(path: str) -> tuple[int, int] | None:
    try:
        s = os.stat(path)
    except (OSError, ValueError):
        return None
    return s.st_size, s.st_mtime_ns


def file_hash(path: Path | str) -> str:
    """SHA-256 of a regular file's bytes; "" for anything that cannot be read."""
    try:
        return sha256_file(path) if os.path.isfile(path) else ""
    except (OSError, ValueError):
        return ""


def encode_batch(encoder: Any, batch: Sequence[tuple[str, Read]]) -> list[Outcome]:
    """Encode what was decoded. If the encoder fails on the batch, its items are tried one by one, and the bad ones listed.

    `batch` is (sound_id, what was read); failed reads pass through.
    """
    good = [(i, r) for i, r in batch if r.value is not None]
    vectors: dict[str, np.ndarray] = {}
    reasons: dict[str, str] = {}
    try:
        if good:
            X = _encode(encoder, good)
            vectors = {i: x for (i, _), x in zip(good, X, strict=True)}
    except Exception:  # one bad clip must not cost its neighbours
        for i, r in good:
            try:
                vectors[i] = _encode(encoder, [(i, r)])[0]
            except Exception as e:
                reasons[i] = _failure(encoder, e)
    for i, x in vectors.items():
        if x.shape != (encoder.dim,) or not np.isfinite(x).all():
            reasons[i] = f"the {encoder.name} encoder gave values that are not finite"
    return [_outcome(i, r, vectors.get(i), reasons.get(i, "")) for i, r in batch]


def _encode(encoder: Any, good: Sequence[tuple[str, Read]]) -> np.ndarray:
    values = [r.value for _, r in good]
    if hasattr(encoder, "prepare"):
        return encoder.encode_prepared(values)
    return encoder.encode(values, [i for i, _ in good]) if is_audio(encoder) else encoder.encode(values)


def _failure(encoder: Any, error: Exception) -> str:
    said = error.what if isinstance(error, HacError) else f"{type(error).__name__}: {error}"
    return f"the {encoder.name} encoder failed: {said}".splitlines()[0]


def _outcome(sound_id: str, read: Read, vector: np.ndarray | None, reason: str) -> Outcome:
    if read.value is None:
        return Outcome(sound_id, read.sha256, None, read.stage, read.reason)
    if reason:
        return Outcome(sound_id, read.sha256, None, "encode", reason)
    return Outcome(sound_id, read.sha256, np.asarray(vector, np.float32))


def finish_batch(encoder: Any, batch: Sequence[tuple[str, Read]]) -> list[Outcome]:
    """:func:`encode_batch`, unless the encoder has done its work beside the decoding."""
    if beside(encoder):
        return [_outcome(i, r, r.value, "") for i, r in batch]
    return encode_batch(encoder, batch)

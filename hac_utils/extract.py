"""Sounds and texts to embeddings on disk; a clip that cannot be decoded is listed and left out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from .audio import failures_table, load_audio, map_clips
from .datasets import Dataset
from .encoders import AUDIO_ENCODERS, TEXT_ENCODERS
from .errors import HacError, first_few


@lru_cache(maxsize=2)
def _encoder(name: str):
    return AUDIO_ENCODERS[name]()


def _encode_one(task: tuple[str, str, str]) -> tuple[str, np.ndarray | None, str]:
    sound_id, path, name = task
    encoder = _encoder(name)
    try:
        vector = encoder.encode([load_audio(path, encoder.sample_rate)])[0]
    except HacError as e:
        return sound_id, None, e.what
    if not np.isfinite(vector).all():
        return sound_id, None, f"the {name} encoder gave values that are not finite"
    return sound_id, vector, ""


def embed_audio(paths: dict[str, Path], encoder: str, workers: int = 2) -> tuple[list[str], np.ndarray, pd.DataFrame]:
    """Embed sound files.

    Each clip is encoded on its own, so its vector does not depend on order, batch or workers.

    Returns
    -------
    ids : list of str, length k
    X : float32, shape (k, 512)
    failures : table (sound_id, stage, reason)
    """
    done = map_clips(_encode_one, [(i, str(p), encoder) for i, p in paths.items()], workers, f"embed ({encoder})")
    good = [(i, v) for i, v, _ in done if v is not None]
    failures = failures_table([(i, "audio embedding", reason) for i, v, reason in done if v is None])
    X = np.stack([v for _, v in good]) if good else np.empty((0, AUDIO_ENCODERS[encoder].dim), np.float32)
    return [i for i, _ in good], X, failures


def embed_corpus(dataset: Dataset, encoder: str, workers: int = 2) -> tuple[pd.DataFrame, np.ndarray | None, pd.DataFrame]:
    """Embed a corpus and keep the clips that could be.

    Returns
    -------
    frame : the metadata rows that are kept, with a column ``path`` ("" without audio)
    X : float32 (len(frame), 512), or None when the corpus has no audio
    failures : table (sound_id, stage, reason) of the clips left out
    """
    frame = dataset.frame.assign(path="")
    if not dataset.has_audio:
        return frame, None, failures_table([])
    ids, X, failed = embed_audio(dataset.audio, encoder, workers)
    if not ids:
        reason = failed["reason"].iloc[0]
        raise HacError(f"none of the {len(failed)} sound files could be read; the first: {reason}", str(dataset.folder / "audio"), f"check the files {first_few(failed['sound_id'].tolist())}")
    missing = failures_table([(i, "audio file", "no file for this sound_id") for i in dataset.missing_audio])
    frame = frame.set_index("sound_id").loc[ids].reset_index()[frame.columns]
    frame["path"] = [str(dataset.audio[i]) for i in ids]
    return frame, X, pd.concat([missing, failed], ignore_index=True)


def embed_texts(encoder: str, train: Sequence[str], corpora: dict[str, Sequence[str]], *, seed: int) -> dict[str, np.ndarray]:
    """Fit a text encoder on the training texts only, then embed each corpus: name -> (n, 512)."""
    fitted = TEXT_ENCODERS[encoder](seed).fit(train)
    return {name: fitted.encode(texts) for name, texts in corpora.items()}

"""Sounds and texts to embeddings on disk; a clip that cannot be decoded is listed and left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from . import features
from .audio import failures_table, load_audio, map_clips
from .datasets import Dataset
from .encoders import AUDIO_ENCODERS, TEXT_ENCODERS
from .errors import HacError, first_few

#: Encoder name for the LAION-CLAP embeddings that the challenge provides with its data sets.
PROVIDED = "clap-provided"


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


def embed_corpus(dataset: Dataset, audio_encoder: str, text_encoder: str, workers: int = 2) -> Embedded:
    """Embed a corpus, or take the embeddings that came with it ("clap-provided"); keep the clips that have all."""
    ids = dataset.frame["sound_id"].tolist()
    vectors: dict[str, tuple[list[str], np.ndarray]] = {}
    failures = [failures_table([(i, "audio file", "no file for this sound_id") for i in dataset.missing_audio])]
    if audio_encoder == PROVIDED:
        failures = []
        *vectors["audio"], bad = features.load(dataset.folder, ids, "audio")
        failures.append(bad)
    elif dataset.has_audio:
        *vectors["audio"], bad = embed_audio(dataset.audio, audio_encoder, workers)
        failures.append(bad)
        if not vectors["audio"][0]:
            raise HacError(f"none of the {len(bad)} sound files could be read; the first: {bad['reason'].iloc[0]}", str(dataset.folder / "audio"), f"check the files {first_few(bad['sound_id'].tolist())}")
    if text_encoder == PROVIDED:
        *vectors["text"], bad = features.load(dataset.folder, ids, "text")
        failures.append(bad)
    have = [set(names) for names, _ in vectors.values()]
    kept = [i for i in ids if all(i in h for h in have)]
    frame = dataset.frame.set_index("sound_id").loc[kept].reset_index()[dataset.frame.columns]
    frame["path"] = [str(dataset.audio.get(i, "")) for i in kept]
    out = {kind: X if list(names) == kept else X[pd.Index(names).get_indexer(kept)] for kind, (names, X) in vectors.items()}
    table = pd.concat(failures, ignore_index=True).drop_duplicates("sound_id", ignore_index=True)
    return Embedded(frame, out.get("audio"), out.get("text"), table)


def embed_texts(encoder: str, train: Sequence[str], corpora: dict[str, Sequence[str]], *, seed: int) -> dict[str, np.ndarray]:
    """Fit a text encoder on the training texts only, then embed each corpus: name -> (n, 512)."""
    fitted = TEXT_ENCODERS[encoder](seed).fit(train)
    return {name: fitted.encode(texts) for name, texts in corpora.items()}

"""The encoders that need no download, behind the interface that CLAP will use.

An encoder has ``name``, ``dim``, ``encode(batch) -> float32 (n, dim)``, rows of unit L2 norm, and
``settings()``: all that a vector depends on beside its input, as JSON, the weights by their SHA-256.
An audio encoder also has ``sample_rate`` and ``window`` (what it does with short and long clips, in a
sentence), and ``encode(batch, ids)`` takes waveforms and sound ids; only an encoder that draws random
parts of a clip needs the ids, to seed the draw. A text encoder takes strings. One that is fitted, on
the training part of a fold only, has ``fit(texts)``.

Where the work of an audio encoder is done is its own business: ``beside`` is True when it encodes in the
decoding processes, beside the decoding; ``prepare(audio, sound_id) -> array`` is the part before the network,
always done there, and ``encode_prepared(batch)`` the network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .errors import HacError

DIM = 512


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows scaled to unit L2 norm, float32; a zero row stays zero."""
    x = np.asarray(x, dtype=np.float32)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1.0)


def torch_device(name: str) -> Any:
    """The torch device of a name: "cpu", "cuda" (also "cuda:1"), or "auto", a GPU where there is one."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise HacError(f"no device is called {name!r}", "device", "use 'cpu', 'cuda' or 'auto'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise HacError("no GPU here", f"device {name!r}", "use device 'cpu' or 'auto'")
    return device


class Travels:
    """Of an audio encoder with a network: in another process it arrives without, and loads it there once.

    On a CPU it encodes beside the decoding, in one thread a process: that scales better than one network on
    all cores, and the number of cores leaves no mark in the last bits. On a GPU one process has the network.
    """

    device: str

    @property
    def beside(self) -> bool:
        return torch_device(self.device).type == "cpu"

    def __reduce__(self) -> tuple:
        plain = (str, int, bool, Path, type(None))
        state = {k: v for k, v in sorted(self.__dict__.items()) if isinstance(v, plain)}
        return _arrive, (type(self), tuple(state.items()))


@lru_cache(maxsize=4)
def _arrive(cls: type, state: tuple) -> Any:
    encoder = cls.__new__(cls)
    encoder.__dict__.update(state)
    return encoder


@contextlib.contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """`n` torch threads inside, as many as before afterwards; 0 changes nothing."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=4)
def _mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    import librosa

    return librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=50, fmax=14_000)


class LogMelEncoder:
    """Statistics of the log-mel spectrogram: 64 bands × 8 statistics = 512 values.

    Window policy: the whole clip (at most 30 s); clips below one frame are zero-padded to it.
    Statistics per band over time: mean, standard deviation, 10th, 50th and 90th percentile, mean
    absolute change from frame to frame, onset (maximum minus median) and decay (last third minus
    first third). Each is brought to a common range by fixed constants, so that nothing is fitted.
    """

    name = "logmel"
    dim = DIM
    beside = True
    sample_rate = 32_000
    window = "the whole clip; clips below one frame (32 ms) are zero-padded to it"
    n_fft, hop, n_mels, floor_db = 1024, 320, 64, -80.0
    #: fixed centre and spread (dB) of the eight statistics
    _centre = np.array([-40.0, 8.0, -50.0, -40.0, -30.0, 3.0, 20.0, 0.0])
    _spread = np.array([20.0, 6.0, 20.0, 20.0, 20.0, 2.5, 15.0, 12.0])

    def spectrogram(self, audio: np.ndarray) -> np.ndarray:
        """Log-mel power in dB re 1 (floor −80), float32, shape (64, frames); `audio` (n,) at `sample_rate`."""
        if audio.shape[0] < self.n_fft:
            audio = np.pad(audio, (0, self.n_fft - audio.shape[0]))
        frames = np.lib.stride_tricks.sliding_window_view(audio, self.n_fft)[:: self.hop]
        window = np.hanning(self.n_fft + 1)[:-1].astype(np.float32)
        power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2 / (window.sum() ** 2)
        mel = power.astype(np.float32) @ _mel_filters(self.sample_rate, self.n_fft, self.n_mels).T
        # librosa's filters have unit area per Hz; x n_fft bins keeps a full-scale sine near 0 dB
        return (10 * np.log10(np.maximum(mel * self.n_fft, 10 ** (self.floor_db / 10)))).T.astype(np.float32)

    def encode(self, batch: Sequence[np.ndarray], ids: Sequence[str] | None = None) -> np.ndarray:
        """Waveforms, each float32 (n,) at `sample_rate`, to (len(batch), 512)."""
        return unit_rows(np.stack([self._statistics(self.spectrogram(a)) for a in batch]))

    def settings(self) -> dict:
        """What a vector depends on, beside the waveform."""
        return {
            "encoder": self.name,
            "version": 1,
            "sample_rate": self.sample_rate,
            "n_fft": self.n_fft,
            "hop": self.hop,
            "n_mels": self.n_mels,
            "floor_db": self.floor_db,
            "centre": self._centre.tolist(),
            "spread": self._spread.tolist(),
        }

    def _statistics(self, db: np.ndarray) -> np.ndarray:
        p10, p50, p90 = np.percentile(db, [10, 50, 90], axis=1)
        change = np.abs(np.diff(db, axis=1)).mean(axis=1) if db.shape[1] > 1 else np.zeros(db.shape[0])
        third = max(1, db.shape[1] // 3)
        decay = db[:, -third:].mean(axis=1) - db[:, :third].mean(axis=1)
        stats = np.stack([db.mean(axis=1), db.std(axis=1), p10, p50, p90, change, db.max(axis=1) - p50, decay])
        return ((stats - self._centre[:, None]) / self._spread[:, None]).ravel()


class TfidfEncoder:
    """TF-IDF of words (1–2) and character n-grams (2–5), reduced to 512 dimensions by a truncated SVD.

    Fitted on the training texts of a fold only. A training part too small for 512 directions gives
    fewer; the rest is zero.
    """

    name = "tfidf"
    dim = DIM

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, texts: Sequence[str]) -> TfidfEncoder:
        """Learn vocabulary, document frequencies and directions from `texts`."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_union

        if not any(t.strip() for t in texts):
            raise HacError(
                "all training texts are empty",
                "title, tags, description",
                "text heads need some text; use an audio-only run",
            )
        least = 2 if len(texts) >= 500 else 1
        self.vectorizer_ = make_union(
            TfidfVectorizer(
                ngram_range=(1, 2),
                sublinear_tf=True,
                min_df=least,
                token_pattern=r"(?u)\b\w+\b",
                dtype=np.float32,
            ),
            TfidfVectorizer(
                analyzer="char_wb",
                ngram_range=(2, 5),
                sublinear_tf=True,
                min_df=2 * least,
                max_features=60_000,
                dtype=np.float32,
            ),
        )
        try:
            tfidf = self.vectorizer_.fit_transform(texts)
        except ValueError:  # every n-gram is rarer than min_df
            self.vectorizer_.set_params(**{f"{n}__min_df": 1 for n, _ in self.vectorizer_.transformer_list})
            try:
                tfidf = self.vectorizer_.fit_transform(texts)
            except ValueError:
                raise HacError(
                    "the training texts hold no word",
                    "title, tags, description",
                    "text heads need some text; use an audio-only run",
                ) from None
        k = min(self.dim, min(tfidf.shape) - 1)
        with np.errstate(invalid="ignore"):  # equal texts have no variance to explain
            self.svd_ = TruncatedSVD(k, n_iter=2, random_state=self.seed).fit(tfidf) if k > 0 else None
        return self

    def encode(self, batch: Sequence[str]) -> np.ndarray:
        """Texts to (len(batch), 512); a text without a known n-gram is the zero vector."""
        tfidf = self.vectorizer_.transform(batch)
        out = np.zeros((tfidf.shape[0], self.dim), dtype=np.float32)
        if self.svd_ is not None:
            reduced = self.svd_.transform(tfidf)
            out[:, : reduced.shape[1]] = reduced
        return unit_rows(out)

    def settings(self) -> dict:
        """What a vector depends on, beside its text and the texts of `fit`."""
        return {"encoder": self.name, "version": 1, "seed": self.seed, "words": [1, 2], "characters": [2, 5]}


AUDIO_ENCODERS = {"logmel": LogMelEncoder}
TEXT_ENCODERS = {"tfidf": TfidfEncoder}

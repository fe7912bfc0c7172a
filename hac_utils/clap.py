"""LAION-CLAP embeddings of sounds and texts: the fused model, in laion-clap's own code or in transformers.

Both backends share one preprocessing, which follows laion-clap's ``get_audio_features`` (checked against
it in the tests), except that a clip's random windows depend on the clip alone. They load the published
checkpoint ``630k-audioset-fusion-best.pt``; transformers also loads its hub twin, ``laion/clap-htsat-fused``.

References
----------
Wu et al. 2023, "Large-Scale Contrastive Language-Audio Pretraining with Feature Fusion and
Keyword-to-Caption Augmentation"; https://github.com/LAION-AI/CLAP.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from . import weights as published
from .clap_model import BACKENDS, build, first_line, quiet
from .compat import ensure
from .encoders import DIM, Travels, torch_device, torch_threads, unit_rows
from .errors import HacError, did_you_mean
from .io import sha256_file, sha256_text

SAMPLE_RATE = 48_000
WINDOW = 480_000  # samples: 10 s
HOP, N_FFT, BANDS = 480, 1024, 64
FRAMES = WINDOW // HOP + 1
TOKENS = 77

#: The published checkpoint; an equally built one may stand in for it.
CHECKPOINT = "630k-audioset-fusion-best.pt"

_BLOCK = 4096  # frames of which the spectrogram exists at a time
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")

# waveform to input -------------------------------------------------------------------------------


def quantise(audio: np.ndarray) -> np.ndarray:
    """To 16-bit integers and back, as laion-clap does (clip to ±1, × 32767, cut); float32, same shape."""
    whole = (np.clip(audio, -1.0, 1.0).astype(np.float32) * np.float32(32767)).astype(np.int16)
    return whole.astype(np.float32) / np.float32(32767)


def log_mel(audio: np.ndarray) -> Any:
    """Mel power in dB (at least -100), float32 tensor (n // 480 + 1, 64); `audio` (n,) at 48 kHz, n > 512.

    Computed in blocks, so that an hour of sound needs little more memory than its waveform.
    """
    import torch

    filters, window = torch.from_numpy(_filters()), torch.hann_window(N_FFT)
    padded = torch.nn.functional.pad(torch.tensor(audio)[None], (N_FFT // 2, N_FFT // 2), mode="reflect")[0]
    frames, parts = audio.shape[0] // HOP + 1, []
    for start in range(0, frames, _BLOCK):
        stop = min(start + _BLOCK, frames)
        part = padded[start * HOP : (stop - 1) * HOP + N_FFT]
        power = torch.stft(part, N_FFT, HOP, window=window, center=False, return_complex=True).abs().square()
        parts.append(10 * (power.T @ filters).clamp(min=1e-10).log10())
    return torch.cat(parts)


@cache
def _filters() -> np.ndarray:
    import librosa

    bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=BANDS, fmin=50, fmax=14_000, htk=True, norm=None)
    return np.ascontiguousarray(bank.T, dtype=np.float32)


def chunk_starts(frames: int, sound_id: str, seed: int) -> list[int]:
    """First frames of the three windows of a clip of `frames` > 1001: one in each third of the possible ones.

    They depend on seed and sound id alone; laion-clap draws them from numpy's global state.
    """
    digest = int.from_bytes(hashlib.sha256(sound_id.encode("utf-8", "surrogatepass")).digest(), "big")
    rng = np.random.default_rng([seed, digest])
    thirds = np.array_split(np.arange(frames - FRAMES + 1), 3)
    return [int(rng.choice(third)) if len(third) else 0 for third in thirds]


def prepare(audio: np.ndarray, sound_id: str, seed: int) -> Any:
    """A waveform as the model's input.

    Parameters
    ----------
    audio : float (n,) at 48 kHz, full scale ±1; an empty one counts as one sample of silence

    Returns
    -------
    float32 tensor (1, 1001, 64) for a clip of one window (up to one hop above 10 s it is still one), else
        (4, 1001, 64): the whole clip shrunk to one window, and three windows of it
    """
    import torch

    audio = quantise(np.asarray(audio).reshape(-1) if np.size(audio) else np.zeros(1))
    n = audio.shape[0]
    if n < WINDOW:
        whole = np.tile(audio, WINDOW // n)
        audio = np.pad(whole, (0, WINDOW - whole.shape[0]))
    mel = log_mel(audio)
    if mel.shape[0] <= FRAMES:
        return mel[None]
    shrunk = torch.nn.functional.interpolate(
        mel[None, None], size=(FRAMES, BANDS), mode="bilinear", align_corners=False, antialias=True
    )[0, 0]
    chunks = [mel[start : start + FRAMES] for start in chunk_starts(mel.shape[0], sound_id, seed)]
    return torch.stack([shrunk, *chunks])


class _Clap:
    """What both encoders share: which weights, and how they become a model."""

    name = "clap"
    dim = DIM
    part = ""

    def __init__(
        self,
        backend: str = "transformers",
        weights: str = "",
        seed: int = 0,
        device: str = "cpu",
        autocast: bool = False,
    ) -> None:
        if backend not in BACKENDS:
            near = did_you_mean(backend, BACKENDS)
            raise HacError(f"no CLAP backend is called {backend!r}", "backend", near)
        self.backend, self.seed, self.autocast = backend, int(seed), bool(autocast)
        self.device = device
        self.weights = str(weights)
        self._file = None if self.weights == "random" else self._find(self.weights)

    def _find(self, weights: str) -> Path:
        """The file with the weights: a checkpoint (.pt), or the model file of a Hugging Face folder."""
        path = Path(weights).expanduser() if weights else published.get("clap", offline=True)
        names = (CHECKPOINT, "model.safetensors", "pytorch_model.bin")
        files = [path] if path.is_file() else [path / n for n in names if (path / n).is_file()]
        if not files:
            raise HacError(f"no CLAP weights here ({' or '.join(names)})", str(path), "hac weights get clap")
        if files[0].suffix != ".pt" and self.backend == "laion":
            fix = "use backend 'transformers', or: hac weights get clap"
            raise HacError("the laion backend loads laion-clap's own checkpoint only", str(files[0]), fix)
        return files[0]

    @cached_property
    def _weights_sha256(self) -> str:
        if self._file is not None:
            return published.checked_sha256(self._file)
        digest = hashlib.sha256()
        for name, value in sorted(self._model.state_dict().items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def _model(self) -> Any:
        ensure()
        import torch

        if self._file is not None:
            self._weights_sha256  # noqa: B018  a file that was tampered with is not opened
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = build(self._file, self.backend, self.part)
        return model.eval().requires_grad_(False).to(torch_device(self.device))

    def _run(self, call: Callable[..., Any], items: list) -> np.ndarray:
        """Unit vectors (n, 512). One item at a time on a CPU, where a batch gains nothing and would leave its
        mark in the last bits (sounds in one thread, too); all together on a GPU."""
        import torch

        model, device, out = self._model, torch_device(self.device), []
        step = 1 if device.type == "cpu" else max(1, len(items))
        for start in range(0, len(items), step):
            with (
                torch_threads(1 if device.type == "cpu" and self.part == "audio" else 0),
                torch.inference_mode(),
                torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
                torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.autocast),
            ):
                out.append(call(model, device, items[start : start + step]).float().cpu().numpy())
        return unit_rows(np.concatenate(out)) if out else np.empty((0, self.dim), np.float32)

    def _settings(self) -> dict:
        return {
            "encoder": self.name,
            "version": 1,
            "part": self.part,
            "backend": self.backend,
            "autocast": self.autocast,
            "weights": self._file.name if self._file else "random",
            "weights_sha256": self._weights_sha256,
        }


class ClapEncoder(Travels, _Clap):
    """CLAP embeddings of sounds: 512 values, as the challenge provides them.

    Parameters
    ----------
    backend : {"transformers", "laion"}
        The same to cosine 0.9999 and better.
    weights : str
        Checkpoint of laion-clap, or (transformers only) a Hugging Face folder; ``""`` is the published
        checkpoint as fetched by ``hac weights get clap``, ``"random"`` an untrained model.
    seed : int
        Of the windows of clips over 10 s, and of random weights.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"auto"``. A CPU gives the same bytes for a clip in any batch; GPUs differ
        from it, and from batch to batch, by rounding.
    autocast : bool
        Run the model in bfloat16 where torch thinks it safe.
    """

    part = "audio"
    sample_rate = SAMPLE_RATE
    window = (
        "clips up to 10 s are repeated whole and zero-padded to 10 s; of longer ones, the whole clip shrunk "
        "to 10 s and three windows of 10 s (front, middle, back), drawn by seed and sound id, are fused"
    )

    def encode(self, batch: Sequence[np.ndarray], ids: Sequence[str] | None = None) -> np.ndarray:
        """Waveforms, each float (n,) at 48 kHz, to unit vectors (len(batch), 512); `ids` are their sound ids.

        Raises
        ------
        HacError
            A clip over 10 s without an id.
        """
        ensure()
        if ids is None and any(np.size(audio) >= WINDOW + HOP for audio in batch):
            raise HacError("clips over 10 s need their sound ids", "ClapEncoder.encode", "encode(batch, ids)")
        names = [""] * len(batch) if ids is None else [str(i) for i in ids]
        return self.encode_prepared([self.prepare(a, i) for a, i in zip(batch, names, strict=True)])

    def prepare(self, audio: np.ndarray, sound_id: str) -> np.ndarray:
        """A waveform, float (n,) at 48 kHz, to mel windows, float32 (1, 1001, 64), or (4, 1001, 64) above 10 s."""
        with torch_threads(1):
            return prepare(audio, sound_id, self.seed).numpy()

    def encode_prepared(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        """What :meth:`prepare` gave to unit vectors (len(batch), 512)."""
        ensure()
        return self._run(self._call, list(batch))

    def _call(self, model: Any, device: Any, items: list[np.ndarray]) -> Any:
        import torch

        longer = torch.tensor([[len(windows) > 1] for windows in items], device=device)
        channels = 4 if longer.any() else 1  # the model reads the other three of longer clips only
        mel = torch.stack([torch.tensor(windows).expand(channels, -1, -1) for windows in items]).to(device)
        if self.backend == "laion":
            pairs = zip(mel, longer, strict=True)
            return model.get_audio_embedding([{"mel_fusion": m, "longer": flag} for m, flag in pairs])
        return model(input_features=mel, is_longer=longer).audio_embeds

    def settings(self) -> dict:
        """What a vector depends on, beside waveform, id and (to rounding) the machine."""
        return self._settings() | {"seed": self.seed, "sample_rate": self.sample_rate, "window": self.window}


class ClapTextEncoder(_Clap):
    """CLAP embeddings of texts: 512 values, cut at 77 RoBERTa tokens.

    Parameters
    ----------
    backend, weights, seed, device, autocast : as in :class:`ClapEncoder`
    tokenizer : str
        Folder with a RoBERTa tokenizer; ``""`` is that of the weights, or with random weights the
        published one.
    """

    part = "text"

    def __init__(
        self,
        backend: str = "transformers",
        weights: str = "",
        seed: int = 0,
        device: str = "cpu",
        autocast: bool = False,
        tokenizer: str = "",
    ) -> None:
        super().__init__(backend, weights, seed, device, autocast)
        if tokenizer:
            self.tokenizer = Path(tokenizer).expanduser()
        else:
            self.tokenizer = self._file.parent if self._file else published.get("clap", offline=True)

    @cached_property
    def _tokenize(self) -> Any:
        ensure()
        from transformers import AutoTokenizer

        where, fix = str(self.tokenizer), "hac weights get clap"
        try:
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError) as e:
            raise HacError(f"no tokenizer here: {first_line(e)}", where, fix) from None
        if len(tokenizer) <= 1000:  # what transformers makes of a folder without a vocabulary, without a word
            raise HacError(f"the tokenizer is empty: it knows {len(tokenizer)} tokens", where, fix)
        return tokenizer

    def encode(self, batch: Sequence[str]) -> np.ndarray:
        """Texts to unit vectors (len(batch), 512)."""
        ensure()
        known, words = len(self._tokenize), self._words
        if known > words:
            what = f"the tokenizer knows {known:,} tokens, the model {words:,}"
            raise HacError(what, str(self.tokenizer), "use the tokenizer that belongs to the weights")
        return self._run(self._call, [str(text) for text in batch])

    @property
    def _words(self) -> int:
        branch = self._model.text_branch if self.backend == "laion" else self._model.text_model
        return branch.embeddings.word_embeddings.num_embeddings

    def _call(self, model: Any, device: Any, items: list[str]) -> Any:
        padding = False if len(items) == 1 else "max_length"  # padding is masked: it only costs time
        cut = {"truncation": True, "max_length": TOKENS}
        tokens = self._tokenize(items, padding=padding, **cut, return_tensors="pt")
        tokens = {name: tokens[name].to(device) for name in ("input_ids", "attention_mask")}
        return model.get_text_embedding(tokens) if self.backend == "laion" else model(**tokens).text_embeds

    def settings(self) -> dict:
        """What a vector depends on, beside its text and (to rounding) the machine."""
        files = [self.tokenizer / name for name in _TOKENIZER_FILES]
        found = {path.name: sha256_file(path) for path in files if path.is_file()}
        seed = {"seed": self.seed} if self._file is None else {}
        tokenizer = sha256_text(json.dumps(found, sort_keys=True))
        return self._settings() | seed | {"tokens": TOKENS, "tokenizer_sha256": tokenizer}

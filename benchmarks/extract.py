"""Extraction, side by side with the plain way: decoding, decoding with log-mel, and real-size CLAP end to end.

    python benchmarks/extract.py [CLIPS [ROUNDS [CLAP_CLIPS]]]

Makes CLIPS (default 300) synthetic 30-second stereo sounds (WAV, FLAC, OGG in turn) in a temporary folder, and
CLAP_CLIPS (default 1000) as BSD10k has them: mono WAV, 44.1 kHz, 0.05 to 30 s, 11.6 s on average.
The plain way is a loop over ``librosa.load`` and an encoder, one clip at a time, as a user would write it;
ours is :func:`hac_utils.extract.extract` with two worker processes, hashing and store included, and
neither the start of processes nor the loading of models is left out. Rounds are interleaved, figures are medians.
CLAP: the full-size fused model with random weights, float32, against laion-clap's own
``get_audio_embedding_from_filelist``, one clip a call, its model loaded beforehand; ours loads it in each worker
process, which the time includes. The last line is JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import librosa
import numpy as np
import soundfile as sf

from hac_utils import extract
from hac_utils.encoders import LogMelEncoder

RATE, SECONDS = 44_100, 30
WORKERS = 2


class Nothing:
    """An encoder that costs nothing: what is timed is decoding, resampling to 48 kHz, and the store."""

    name, dim, sample_rate = "nothing", 2, 48_000

    def settings(self) -> dict:
        return {}

    def encode(self, batch: list[np.ndarray], ids: list[str] | None = None) -> np.ndarray:
        return np.array([[a.shape[0], 1] for a in batch], np.float32)


def sound(k: int) -> np.ndarray:
    """Noise bursts and a tone, 30 s."""
    t = np.arange(RATE * SECONDS) / RATE
    noise = np.random.default_rng([k, 77]).normal(size=t.size) * (np.sin(2 * np.pi * t) > 0)
    return 0.2 * np.sin(2 * np.pi * (200 + 37 * k) * t) + 0.1 * noise


def make_like_bsd10k(folder: Path, n: int) -> dict[str, Path]:
    """Mono 16-bit WAV; lengths exponential with mean 13 s, cut to 0.05 … 30 s (mean 11.6)."""
    seconds = np.random.default_rng(78).exponential(13, n).clip(0.05, SECONDS)
    paths = {f"b{k:04d}": folder / f"b{k:04d}.wav" for k in range(n)}
    for (k, path), length in zip(enumerate(paths.values()), seconds, strict=True):
        sf.write(path, sound(k)[: round(RATE * length)], RATE, "PCM_16")
    return paths


def make(folder: Path, n: int) -> dict[str, Path]:
    """30 s, stereo; the formats in turn."""
    paths = {}
    for k in range(n):
        wave = sound(k)
        end, kind = (("wav", "PCM_16"), ("flac", "PCM_16"), ("ogg", "VORBIS"))[k % 3]
        paths[f"{k:04d}"] = folder / f"{k:04d}.{end}"
        with sf.SoundFile(paths[f"{k:04d}"], "w", RATE, 2, kind) as f:
            for part in np.array_split(
                np.stack([wave, 0.7 * wave], 1), 60
            ):  # libsndfile's Vorbis writer dislikes long blocks
                f.write(part)
    return paths


def plain(paths: dict[str, Path], encoder) -> np.ndarray:
    """A user's loop."""
    return np.concatenate([encoder.encode([librosa.load(p, sr=encoder.sample_rate)[0]], [i]) for i, p in paths.items()])


def ours(paths: dict[str, Path], encoder, shares: list[float]) -> np.ndarray:
    with tempfile.TemporaryDirectory(prefix="hac-store-") as out:
        done = extract.extract(paths, encoder, out, workers=WORKERS, batch_size=8)
        shares.append(done.model_seconds / done.seconds)
        return np.array(done.read(list(paths))[1])


def race(
    paths: dict[str, Path], rounds: int, ways: dict[str, Callable[[], np.ndarray]], tolerance: float
) -> dict[str, float]:
    """Median seconds of each way, rounds interleaved; all must give the same vectors."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        truth = None
        for way, run in ways.items():
            start = time.perf_counter()
            X = run()
            seconds[way].append(time.perf_counter() - start)
            truth = X if truth is None else truth
            if X.shape != truth.shape or np.abs(X - truth).max() > tolerance:
                raise AssertionError(f"{way}: other vectors than the first way (up to {np.abs(X - truth).max():.2g})")
    return {way: float(np.median(s)) for way, s in seconds.items()}


def show(title: str, n: int, seconds: dict[str, float]) -> float:
    base, new = list(seconds.values())[0], list(seconds.values())[-1]
    print(f"\n{title}, {n} clips")
    for way, s in seconds.items():
        print(f"  {way:58}{s:8.2f} s{n / s:8.2f} clips/s")
    print(f"  ratio {base / new:.2f}")
    return base / new


def laion_file_list(model) -> Callable[[list[str]], np.ndarray]:
    """laion-clap's own file-list call around `model`; its import asks for tokenizers, which audio does not need."""
    from hac_utils.compat import ensure

    ensure()
    import transformers

    nothing = mock.MagicMock()
    names = ("BertTokenizer", "RobertaTokenizer", "BartTokenizer")
    with mock.patch.multiple(transformers, **dict.fromkeys(names, nothing)):
        from laion_clap.hook import CLAP_Module
    import laion_clap

    settings = json.loads((Path(laion_clap.__file__).parent / "clap_module/model_configs/HTSAT-tiny.json").read_text())
    me = SimpleNamespace(model=model, model_cfg=settings, enable_fusion=True)
    return lambda files: CLAP_Module.get_audio_embedding_from_filelist(me, files)


def clap(paths: dict[str, Path], rounds: int) -> dict[str, float]:
    """End to end: the same random weights in laion-clap's call and in our engine."""
    import torch

    from hac_utils.clap import ClapEncoder

    encoder = ClapEncoder(weights="random")  # as `hac extract` has it: transformers' code, of the same network
    encoder.settings()
    call, shares = laion_file_list(ClapEncoder(backend="laion", weights="random")._model), []

    def one_at_a_time() -> np.ndarray:
        return np.concatenate([call([str(p)]) for p in paths.values()])

    def without_gradients() -> np.ndarray:
        with torch.no_grad():  # the call itself records every clip for gradients that nobody asks for
            return one_at_a_time()

    call([str(next(iter(paths.values())))])
    # random windows of clips over 10 s differ between the two by design: only finite unit vectors are asked
    seconds = race(
        paths,
        rounds,
        {
            "laion-clap, file list of one": one_at_a_time,
            "the same inside torch.no_grad()": without_gradients,
            f"extract, {WORKERS} worker processes": lambda: ours(paths, encoder, shares),
        },
        2.0,  # and the two have other random weights
    )
    ratio = show("CLAP, full size, random weights, float32, lengths as in BSD10k", len(paths), seconds)
    print(f"  share of the workers' time in the network {np.median(shares):.2f} (their start and loading included)")
    base, kinder, new = seconds.values()
    print(f"  ratio {kinder / new:.2f} against the call inside torch.no_grad()")
    per_core = len(paths) / new / WORKERS
    estimate(per_core, per_core / max(1e-9, 1 - float(np.median(shares))))
    return {
        "clap_speedup": round(ratio, 2),
        "clap_speedup_no_grad": round(kinder / new, 2),
        "clap_share_network": round(float(np.median(shares)), 3),
        "clap_clips_s": round(len(paths) / new, 2),
        "clap_clips_s_laion": round(len(paths) / base, 2),
    }


def estimate(per_core: float, prepared_per_core: float, sounds: int = 700_000) -> None:
    """On paper: all of Freesound, cut at 30 s like BSD10k. The CPU rates are measured above, the GPU's is computed.

    One clip costs 12 GFLOP in the network (torch's FlopCounterMode). An H100 is taken at 30 % of its 67 TFLOP/s in
    float32, and is fed by 16 cores that decode and make the mel windows.
    """
    gpu = min(0.30 * 67e12 / 12e9, 16 * prepared_per_core)
    print(
        f"\nOn paper, {sounds:,} sounds: a core does {per_core:.2f} clips/s alone, prepares {prepared_per_core:.0f} for a GPU"
    )
    print(f"  {'machine':40}{'clips/s':>10}{'hours':>9}{'cost':>9}   at $0.04 a core-hour, $3 a GPU-hour with 16 cores")
    for name, rate, price in (
        ("16 cores", 16 * per_core, 16 * 0.04),
        ("256 cores", 256 * per_core, 256 * 0.04),
        *((f"{k} GPU{'s' * (k > 1)} with {16 * k} cores", k * gpu, 3.0 * k) for k in (1, 4, 16)),
    ):
        hours = sounds / rate / 3600
        print(f"  {name:40}{rate:10.1f}{hours:9.2f}{'$' + format(hours * price, '.2f'):>9}")


def main(n: int, rounds: int, clap_clips: int) -> None:
    with tempfile.TemporaryDirectory(prefix="hac-extract-") as name:
        paths, result = make(Path(name), n), {}
        list(
            map(librosa.load, list(paths.values())[:3])
        )  # files in the page cache are read again anyway; this loads librosa
        for title, encoder in (
            ("decode + resample", Nothing()),
            ("decode + resample + log-mel", LogMelEncoder()),
        ):
            ways = {
                "librosa.load, one after another": lambda e=encoder: plain(paths, e),
                f"extract, {WORKERS} worker processes": lambda e=encoder: ours(paths, e, []),
            }
            key = "decode_speedup" if encoder.name == "nothing" else "logmel_speedup"
            seconds = race(
                paths, rounds, ways, 1.0 if encoder.name == "nothing" else 1e-3
            )  # librosa rounds the length up
            result[key] = round(show(title, n, seconds), 2)
            result[key.replace("speedup", "clips_s")] = round(n / list(seconds.values())[1], 1)
        if clap_clips:
            result |= clap(make_like_bsd10k(Path(name), clap_clips), rounds)
        print(json.dumps(result))


if __name__ == "__main__":
    given = [int(a) for a in sys.argv[1:4]]
    main(*(given + [300, 3, 1000][len(given) :]))

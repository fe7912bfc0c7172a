"""Sound files to mono float32 waveforms at a wanted rate; a bad file is named, never fatal."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf
import soxr
from tqdm.auto import tqdm

from .errors import HacError

#: Endings that libsndfile reads, in order of preference when a clip exists in several.
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au")

#: Longest stretch decoded from one file; the data sets cut at 30 s.
MAX_SECONDS = 30.0

#: Full scale is 1. Floating-point files may exceed it a little; far more means a wrong export (or breaks float16).
MAX_PEAK = 1000.0


def load_audio(path: Path | str, sample_rate: int, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """Decode, average the channels, resample.

    Returns
    -------
    float32, shape (n,), nominally in [-1, 1]; at most `max_seconds` long.

    Raises
    ------
    HacError
        Missing, empty, not audio, truncated to nothing, non-finite samples, or a peak above `MAX_PEAK`.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise OSError("not a regular file")
        with sf.SoundFile(path) as f:
            rate = f.samplerate
            data = f.read(int(max_seconds * rate), dtype="float32", always_2d=True)
    except Exception as e:  # libsndfile and soundfile raise many unrelated types for damaged files
        if not path.exists():
            reason = "no such file"
        elif path.is_dir():
            reason = "a folder, not a file"
        elif not path.is_file():
            reason = "not a regular file"
        elif path.stat().st_size == 0:
            reason = "the file is empty"
        else:
            reason = "not readable as audio: " + (str(e).split(": ", 1)[-1].strip().rstrip(".") or type(e).__name__)
        raise HacError(reason, str(path), "replace the file, or leave the clip out of the metadata") from None
    if data.shape[0] == 0:
        raise HacError("no samples in the file", str(path), "the file may be truncated: fetch it again")
    if not np.isfinite(data).all():
        raise HacError("samples that are NaN or infinite", str(path), "export the file again")
    peak = float(np.abs(data).max())
    if peak > MAX_PEAK:
        raise HacError(f"samples up to {peak:.3g}, where full scale is 1", str(path), "export the file again, scaled to [-1, 1]")
    mono = data.mean(axis=1)
    if rate != sample_rate:
        try:
            mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
        except (ValueError, RuntimeError, MemoryError) as e:
            raise HacError(f"cannot resample from {rate} Hz: {e}", str(path), "export the file at an ordinary rate, such as 44100 Hz") from None
        if mono.shape[0] == 0:  # a handful of samples at a high rate
            mono = np.zeros(1, dtype=np.float32)
    return np.ascontiguousarray(mono, dtype=np.float32)


def fit_length(audio: np.ndarray, n: int) -> np.ndarray:
    """Repeat a short clip, or cut a long one, to `n` samples."""
    if audio.shape[0] < n:
        audio = np.tile(audio, -(-n // audio.shape[0]))
    return audio[:n]


def _load_one(task: tuple[str, str, int, float]) -> tuple[str, np.ndarray | None, str]:
    sound_id, path, sample_rate, seconds = task
    try:
        audio = load_audio(path, sample_rate, max_seconds=seconds)
        return sound_id, fit_length(audio, int(round(seconds * sample_rate))).astype(np.float16), ""
    except HacError as e:
        return sound_id, None, e.what


def map_clips(function, tasks: list, workers: int, desc: str) -> list:
    """``[function(t) for t in tasks]`` in order, in `workers` processes, with a progress bar.

    `function` is a module-level function, the tasks are small and picklable.
    """
    bar = {"desc": desc, "unit": "clip", "disable": None, "mininterval": 1.0}
    if workers <= 1 or len(tasks) < 32:
        return [function(t) for t in tqdm(tasks, **bar)]
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
            return list(tqdm(pool.map(function, tasks, chunksize=16), total=len(tasks), **bar))
    except BrokenProcessPool:
        raise HacError(f"a worker process died ({desc})", f"{workers} workers", "set workers: 1 in the profile; is there enough memory?") from None


def failures_table(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    """(sound_id, stage, reason) rows as a table, sorted by id."""
    return pd.DataFrame(sorted(rows), columns=["sound_id", "stage", "reason"], dtype="str")


def load_clips(paths: dict[str, Path], sample_rate: int, seconds: float, workers: int = 2) -> tuple[list[str], np.ndarray, pd.DataFrame]:
    """The first `seconds` of many clips, as one block.

    Returns
    -------
    ids : list of str, length k, in the order of `paths`
    waves : float16 (half the memory; 11 bits at every level), shape (k, seconds * sample_rate)
        Short clips are repeated.
    failures : table (sound_id, stage, reason)
    """
    tasks = [(i, str(p), sample_rate, seconds) for i, p in paths.items()]
    done = map_clips(_load_one, tasks, workers, "decode")
    good = [(i, a) for i, a, _ in done if a is not None]
    failures = failures_table([(i, "decode", reason) for i, a, reason in done if a is None])
    width = int(round(seconds * sample_rate))
    waves = np.stack([a for _, a in good]) if good else np.empty((0, width), np.float16)
    return [i for i, _ in good], waves, failures


def load_waves(paths: dict[str, Path], sample_rate: int, seconds: float, workers: int = 2) -> np.ndarray:
    """`load_clips` for files that were readable before; one that no longer is, is an error. float16 (n, samples)."""
    _, waves, failures = load_clips(paths, sample_rate, seconds, workers)
    if len(failures):
        first = failures.iloc[0]
        raise HacError(f"{len(failures)} sound files changed since the extraction; the first: {first['reason']}", str(paths[first["sound_id"]]), "run notebook 01 again")
    return waves

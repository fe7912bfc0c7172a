"""Sound files to mono float32 waveforms at a wanted rate; a bad file is named, never fatal."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
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

#: Values (samples x channels) decoded at a time, 1 MiB as float32: small enough for the processor's cache.
BLOCK = 2**18

#: What ffmpeg may open, where it is installed and libsndfile fails: containers that hold sound, no playlists.
FFMPEG_FORMATS = (
    "mov,mp4,m4a,matroska,webm,aac,asf,amr,ac3,eac3,ape,wv,tta,caf,avi,flv,mpeg,mpegts,wav,w64,mp3,ogg,flac,aiff"
)

#: Endings that only ffmpeg reads.
FFMPEG_SUFFIXES = (".m4a", ".mp4", ".aac", ".webm", ".mka", ".wma", ".amr", ".ac3", ".ape", ".wv", ".3gp")

#: ffmpeg is stopped after this long on one file.
FFMPEG_SECONDS = 600.0

#: Part of the content key of an embedding: how a waveform comes from a file.
DECODING = {"channels": "mean", "resampler": "soxr HQ", "version": 1}

#: Full scale is 1. Floating-point files may exceed it a little; far more means a wrong export (or breaks float16).
MAX_PEAK = 1000.0


def stream_audio(path: Path | str, sample_rate: int, max_seconds: float | None = MAX_SECONDS) -> Iterator[np.ndarray]:
    """Decode, average the channels, resample; block by block, so that memory does not grow with the file.

    The blocks put together are what decoding and resampling the whole file at once would give, bit for bit.

    Parameters
    ----------
    max_seconds : how much of the start is decoded; None for the whole file

    Yields
    ------
    float32, shape (k,), k > 0, nominally in [-1, 1]; at least one block.

    Raises
    ------
    HacError
        Missing, empty, not audio, truncated to nothing, non-finite samples, or a peak above `MAX_PEAK`.
    """
    path = Path(path)
    resampler = rate = None
    total = 0
    blocks = _blocks(path, sample_rate, max_seconds)
    while True:
        try:
            rate, data = next(blocks, (rate, None))
        except Exception as e:  # libsndfile and soundfile raise many unrelated types for damaged files
            raise HacError(
                _reason(path, e), str(path), "replace the file, or leave the clip out of the metadata"
            ) from None
        if data is None and rate is None:
            raise HacError("no samples in the file", str(path), "the file may be truncated: fetch it again")
        if data is not None:
            peak = float(max(data.max(), -data.min()))  # NaN stays NaN
            if not np.isfinite(peak):
                raise HacError("samples that are NaN or infinite", str(path), "export the file again")
            if peak > MAX_PEAK:
                raise HacError(
                    f"samples up to {peak:.3g}, where full scale is 1",
                    str(path),
                    "export the file again, scaled to [-1, 1]",
                )
        mono = np.empty(0, np.float32) if data is None else _mono(data)
        if rate != sample_rate:
            try:
                resampler = resampler or soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
                mono = resampler.resample_chunk(mono, last=data is None)
            except (ValueError, RuntimeError, MemoryError) as e:
                raise HacError(
                    f"cannot resample from {rate} Hz: {e}",
                    str(path),
                    "export the file at an ordinary rate, such as 44100 Hz",
                ) from None
        if data is None and total + mono.shape[0] == 0:  # a handful of samples at a high rate
            mono = np.zeros(1, np.float32)
        total += mono.shape[0]
        if mono.shape[0]:
            yield mono
        if data is None:
            return


def _mono(data: np.ndarray) -> np.ndarray:
    if data.shape[1] == 1:
        return np.ascontiguousarray(data[:, 0])
    return (
        (data[:, 0] + data[:, 1]) / np.float32(2) if data.shape[1] == 2 else data.mean(axis=1)
    )  # the same values, faster


def _reason(path: Path, e: Exception) -> str:
    """Why a file could not be decoded, in a few words on one line."""
    try:
        if not path.exists():
            return "no such file"
        if path.is_dir():
            return "a folder, not a file"
        if not path.is_file():
            return "not a regular file"
        if path.stat().st_size == 0:
            return "the file is empty"
        with open(path, "rb"):
            pass
    except OSError as error:
        return f"cannot be opened: {error.strerror or type(error).__name__}"
    except ValueError:  # a null byte in the name
        return "no such file"
    text = " ".join(str(e).split(": ", 1)[-1].split()).rstrip(".")
    return f"not readable as audio: {text or type(e).__name__}"


def _blocks(path: Path, sample_rate: int, max_seconds: float | None) -> Iterator[tuple[int, np.ndarray]]:
    """(rate, float32 (k, channels)) from libsndfile, or from ffmpeg where there is one and libsndfile cannot open the file."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise OSError("not a regular file")
    try:
        f = sf.SoundFile(path)
    except sf.LibsndfileError:
        ffmpeg = shutil.which("ffmpeg")
        if ffmpeg is None or not path.exists() or path.stat().st_size == 0:
            raise
        yield from _ffmpeg_blocks(ffmpeg, path, sample_rate, max_seconds)
        return
    with f:
        left = None if max_seconds is None else int(max_seconds * f.samplerate)
        size = _block_frames(f.channels, f.samplerate, sample_rate)
        while left is None or left > 0:
            data = f.read(size if left is None else min(size, left), dtype="float32", always_2d=True)
            if data.shape[0] == 0:
                return
            yield f.samplerate, data
            left = None if left is None else left - data.shape[0]


def _block_frames(channels: int, rate: int, sample_rate: int) -> int:
    """Frames of a block: at most `BLOCK` values before, and 4 x `BLOCK` after resampling."""
    return max(1, min(BLOCK // channels, int(4 * BLOCK * rate / sample_rate)))


def _ffmpeg_blocks(
    ffmpeg: str, path: Path, sample_rate: int, max_seconds: float | None
) -> Iterator[tuple[int, np.ndarray]]:
    """The same from ffmpeg: it writes an .au stream, whose header names rate and channels, to a pipe."""
    command = [
        ffmpeg,
        "-v",
        "error",
        "-nostdin",
        "-protocol_whitelist",
        "file,pipe",
        "-format_whitelist",
        FFMPEG_FORMATS,
    ]
    command += [
        "-i",
        "file:" + os.path.abspath(path),
        "-vn",
        "-sn",
        "-dn",
        "-map",
        "0:a:0",
        "-map_metadata",
        "-1",
        "-c:a",
        "pcm_f32be",
    ]
    command += ["-t", str(max_seconds)] if max_seconds is not None else []
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            [*command, "-f", "au", "pipe:1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
        ) as process,
    ):
        late = threading.Timer(FFMPEG_SECONDS, process.kill)
        late.daemon = True
        late.start()
        left = None
        try:
            head = process.stdout.read(24)
            if len(head) == 24 and head[:4] == b".snd":
                offset, _, _, rate, channels = struct.unpack(">5I", head[4:])
                process.stdout.read(offset - 24)
                size = 4 * channels * _block_frames(channels, rate, sample_rate)
                left = None if max_seconds is None else int(max_seconds * rate)
                while (left is None or left > 0) and (data := process.stdout.read(size)):
                    block = (
                        np.frombuffer(data[: len(data) // (4 * channels) * 4 * channels], ">f4")
                        .astype(np.float32)
                        .reshape(-1, channels)[:left]
                    )
                    if block.shape[0] == 0:
                        break
                    yield rate, block
                    left = None if left is None else left - block.shape[0]
            process.stdout.close()
            if left == 0:
                return
            code = process.wait()
            if not late.is_alive():
                raise TimeoutError(f"ffmpeg took more than {FFMPEG_SECONDS} s")
            complaints.seek(0)
            words = complaints.read(2000).decode("utf-8", "replace").strip().splitlines()
            if code:
                raise OSError("ffmpeg: " + (words[-1].split(": ")[-1] if words else f"exit code {code}"))
        finally:
            late.cancel()
            process.kill()


def load_audio(path: Path | str, sample_rate: int, max_seconds: float | None = MAX_SECONDS) -> np.ndarray:
    """:func:`stream_audio` as one array: float32, shape (n,), contiguous, n > 0."""
    blocks = list(stream_audio(path, sample_rate, max_seconds))
    if len(blocks) == 1:
        return blocks[0]
    out = np.empty(sum(len(b) for b in blocks), np.float32)
    at = 0
    for k, block in enumerate(blocks):
        out[at : at + len(block)] = block
        at, blocks[k] = at + len(block), None  # a long file is not held twice
    return out


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
        raise HacError(
            f"a worker process died ({desc})",
            f"{workers} workers",
            "set workers: 1 in the profile; is there enough memory?",
        ) from None


def failures_table(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    """(sound_id, stage, reason) rows as a table, sorted by id."""
    return pd.DataFrame(sorted(rows), columns=["sound_id", "stage", "reason"], dtype="str")


def load_clips(
    paths: dict[str, Path], sample_rate: int, seconds: float, workers: int = 2
) -> tuple[list[str], np.ndarray, pd.DataFrame]:
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
        raise HacError(
            f"{len(failures)} sound files changed since the extraction; the first: {first['reason']}",
            str(paths[first["sound_id"]]),
            "run notebook 01 again",
        )
    return waves

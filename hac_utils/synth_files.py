"""Audio files of the synthetic demo corpus: a clip's sounds in its uploader's room, gear and container."""

from __future__ import annotations

import io as _io
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import lfilter

from . import synth_audio, synth_sources
from .io import write_bytes

SAMPLE_RATES = (16000, 22050, 32000, 44100, 48000)

#: Container name -> soundfile format and subtype.
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "wav24": ("WAV", "PCM_24"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


@dataclass(frozen=True)
class Uploader:
    """Recording and writing habits; levels in dB below the signal, times in seconds."""

    name: str
    seed: int
    reverb: float
    wet: float
    floor: float
    floor_colour: float
    cut: float
    tilt: float
    peak: float
    container: str
    sr: int
    stereo: float
    license: str
    text: dict


@dataclass(frozen=True)
class Clip:
    """All that is needed to render one file, in any process."""

    path: str
    key: tuple[int, ...]
    weights: tuple[tuple[str, float], ...]
    seconds: float
    uploader: Uploader


def render(clip: Clip) -> bytes:
    """The encoded audio file of one clip."""
    rng, up = np.random.default_rng([*clip.key, 1]), clip.uploader
    sr = up.sr if rng.random() < 0.85 else int(rng.choice(SAMPLE_RATES[1:3]))
    n = max(int(clip.seconds * sr), 64)
    x = sum(w * synth_sources.unit(synth_audio.RECIPES[code](rng, n, sr)) for code, w in clip.weights)
    x = synth_sources.unit(x)
    if up.wet > 0.03:
        x = synth_sources.room(np.random.default_rng([up.seed, 3]), x, sr, up.reverb, up.wet)
    x = x + up.tilt * lfilter([0.1], [1, -0.9], x)
    floor = up.floor + rng.normal(0, 4)
    x = synth_sources.unit(x) + 10 ** (-max(floor, 3) / 20) * synth_sources.coloured(rng, n, up.floor_colour)
    x = synth_sources.lowpass(x, sr, up.cut * rng.uniform(0.85, 1.15))
    if rng.random() < up.stereo:
        x = np.stack([x, rng.uniform(0.4, 1) * np.roll(x, int(rng.integers(0, 20)))], axis=1)
    peak = 10 ** (min(up.peak + rng.normal(0, 3), -0.2) / 20)
    x = (peak / max(np.abs(x).max(), 1e-9) * x).astype(np.float32)
    return encode(x, sr, Path(clip.path).suffix[1:], up.container)


def encode(x: np.ndarray, sr: int, extension: str, container: str) -> bytes:
    kind, subtype = FORMATS[container if extension == "wav" else extension]
    buffer = _io.BytesIO()
    sf.write(buffer, x, sr, format=kind, subtype=subtype)
    return _fixed_serial(buffer.getvalue()) if kind == "OGG" else buffer.getvalue()


def _crc_table() -> list[int]:
    table = []
    for i in range(256):
        r = i << 24
        for _ in range(8):
            r = ((r << 1) ^ 0x04C11DB7 if r & 0x80000000 else r << 1) & 0xFFFFFFFF
        table.append(r)
    return table


_CRC = _crc_table()


def _fixed_serial(data: bytes) -> bytes:
    """`data` with stream serial number 1 in every Ogg page (RFC 3533, section 6).

    libsndfile draws the number from the clock, so the same sound would give other bytes each time.
    """
    out, at = bytearray(data), 0
    while at < len(out):
        segments = out[at + 26]
        end = at + 27 + segments + sum(out[at + 27 : at + 27 + segments])
        struct.pack_into("<I", out, at + 14, 1)
        struct.pack_into("<I", out, at + 22, 0)
        crc = 0
        for byte in out[at:end]:
            crc = ((crc << 8) & 0xFFFFFFFF) ^ _CRC[(crc >> 24) ^ byte]
        struct.pack_into("<I", out, at + 22, crc)
        at = end
    return bytes(out)


def render_missing(root: str, clips: Sequence[Clip]) -> int:
    """Render and write clips; writing waits for the disk, so one thread does it beside the rendering."""
    with ThreadPoolExecutor(1) as writers:
        written = [writers.submit(write_bytes, Path(root) / clip.path, render(clip)) for clip in clips]
    for future in written:
        future.result()
    return len(clips)

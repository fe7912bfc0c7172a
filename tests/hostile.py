"""Make a folder of hostile sound files: ``python tests/hostile.py FOLDER`` (300 of them)."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import numpy as np
import soundfile as sf

FORMATS = {
    "wav": "PCM_16",
    "flac": "PCM_16",
    "ogg": "VORBIS",
    "mp3": "MPEG_LAYER_III",
    "aiff": "PCM_16",
    "au": "PCM_16",
}
NAMES = [
    "日本語",
    "naïve café",
    "line\nbreak",
    "tab\there",
    "a'b\"c",
    "$(reboot)",
    ";ls",
    "-rf",
    "%s%n",
    "emoji 🎵",
    "x..",
    "con",
    " ",
    "a" * 200,
    "dot.in.name",
    "\u202eabc",
    "\\",
    "*?[a]",
    "\x7f",
    "ä̈",
]


def tone(n: int, rate: int, channels: int = 1) -> np.ndarray:
    wave = 0.4 * np.sin(2 * np.pi * 440 * np.arange(n) / rate)
    return np.stack([wave * (k + 1) / channels for k in range(channels)], axis=1).astype(np.float32)


def riff(
    data: bytes,
    *,
    riff_size: int,
    data_size: int,
    rate: int = 16_000,
    channels: int = 1,
    bits: int = 16,
    kind: int = 1,
    align: int | None = None,
) -> bytes:
    """A WAV file by hand, with any lies in its header."""
    align = channels * bits // 8 if align is None else align
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * align & 0xFFFFFFFF, align & 0xFFFF, bits)
    return (
        b"RIFF"
        + struct.pack("<I", riff_size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + fmt
        + b"data"
        + struct.pack("<I", data_size)
        + data
    )


def make(folder: Path) -> int:
    """Write the files; returns how many there are (300, one less where permissions mean nothing: for root)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([300, 7])
    rate = 16_000

    def write(name: str, data: np.ndarray, rate: int = rate, subtype: str | None = None) -> Path:
        sf.write(folder / name, data, rate, subtype=subtype)
        return folder / name

    for end, subtype in FORMATS.items():  # 6 x 11: cut at every tenth
        whole = write(f"whole.{end}", tone(20_000, rate), subtype=subtype).read_bytes()
        for tenth in range(10):
            (folder / f"cut{tenth}.{end}").write_bytes(whole[: len(whole) * tenth // 10])
    good = (folder / "whole.wav").read_bytes()
    for end in FORMATS:  # 6 x 4: empty, text, zeros, noise
        (folder / f"empty.{end}").touch()
        (folder / f"text.{end}").write_text("once upon a time\n" * 40, encoding="utf-8")
        (folder / f"zeros.{end}").write_bytes(bytes(5000))
        (folder / f"noise.{end}").write_bytes(rng.bytes(5000))
    for end in FORMATS:  # 6 x 2: wrong ending
        for other in [o for o in FORMATS if o != end][:2]:
            (folder / f"really-{other}.{end}").write_bytes((folder / f"whole.{other}").read_bytes())
    for head in (
        b"\x89PNG\r\n\x1a\n",
        b"%PDF-1.7\n",
        b"PK\x03\x04",
        b"\x1f\x8b\x08",
        b"\x7fELF",
        b"<html>",
        b"GIF89a",
        b"#EXTM3U\n",
        b"ffconcat version 1.0\n",
        b"ID3\x03\x00\x00\x7f\x7f\x7f\x7f",
    ):
        (folder / f"head-{head[:4].hex()}.mp3").write_bytes(head + rng.bytes(900))  # 10
    for n in (1, 2, 3, 5, 10, 100):  # 6 x 3: a handful of samples
        for r in (1000, 44_100, 384_000):
            write(f"n{n}-{r}.wav", tone(n, r), r)
    for r in (1, 8, 100, 1000, 3999, 22_050, 96_000, 192_000, 384_000, 1_000_000):  # 10 rates
        write(f"rate{r}.wav", tone(4000, r), r)
    for channels in (2, 3, 6, 8, 16, 64, 255, 1024):  # 8
        write(f"channels{channels}.wav", tone(2000, rate, channels), subtype="FLOAT")
    for subtype in (
        "PCM_U8",
        "PCM_24",
        "PCM_32",
        "FLOAT",
        "DOUBLE",
        "ULAW",
        "ALAW",
        "MS_ADPCM",
        "IMA_ADPCM",
        "GSM610",
    ):  # 10
        write(f"sub-{subtype}.wav", tone(4000, rate), subtype=subtype)
    odd = {
        "nan": np.nan,
        "inf": np.inf,
        "minus-inf": -np.inf,
        "huge": 3e38,
        "int16-scale": 32_767.0,
        "tiny": 1e-40,
        "loud": 9.0,
        "too-loud": 1001.0,
        "minus-too-loud": -1001.0,
    }
    for name, value in odd.items():  # 9 x 3: one sample, all samples, the last sample
        for where in (slice(50, 51), slice(None), slice(-1, None)):
            data = tone(4000, rate)
            data[where] = value
            write(f"{name}-{where.start}-{where.stop}.wav", data, subtype="FLOAT")
    for level in (0.0, 1.0, -1.0, 0.5, 1e-5):  # 5: DC and silence
        write(f"dc{level}.wav", np.full(8000, level, np.float32), subtype="FLOAT")
    for hours in (1, 3):  # 2: hours of silence, a few kB as FLAC
        with sf.SoundFile(folder / f"silence{hours}h.flac", "w", 8000, 1, "PCM_16") as f:
            for _ in range(hours * 60):
                f.write(np.zeros(60 * 8000, np.int16))
    with sf.SoundFile(folder / "long.wav", "w", 8000, 1, "PCM_U8") as f:  # 1: half an hour of tone
        for _ in range(30):
            f.write(tone(60 * 8000, 8000))
    for k, name in enumerate(NAMES):  # 20 names
        (folder / (f"{name}{k}.wav" if name == " " else f"{name}.wav")).write_bytes(good)
    (folder / os.fsdecode(b"latin1-\xe4\xff.wav")).write_bytes(good)  # 1: a name that is not UTF-8
    pcm = tone(1000, rate)[:, 0].astype("<f4").tobytes()
    short = (tone(1000, rate)[:, 0] * 32767).astype("<i2").tobytes()
    top = 0xFFFFFFFF
    lies = {  # 25 headers
        "all-max": riff(short, riff_size=top, data_size=top), "data-max": riff(short, riff_size=2036, data_size=top),
        "data-2g": riff(short, riff_size=2036, data_size=2**31 - 1), "data-0": riff(short, riff_size=2036, data_size=0),
        "riff-0": riff(short, riff_size=0, data_size=2000), "rate-0": riff(short, riff_size=2036, data_size=2000, rate=0),
        "rate-max": riff(short, riff_size=2036, data_size=2000, rate=top), "rate-2g": riff(short, riff_size=2036, data_size=2000, rate=2**31 - 1),
        "rate-1": riff(short, riff_size=2036, data_size=2000, rate=1), "channels-0": riff(short, riff_size=2036, data_size=2000, channels=0),
        "channels-max": riff(short, riff_size=2036, data_size=2000, channels=65_535), "channels-1000": riff(short, riff_size=2036, data_size=2000, channels=1000),
        "bits-0": riff(short, riff_size=2036, data_size=2000, bits=0), "bits-1": riff(short, riff_size=2036, data_size=2000, bits=1),
        "bits-64": riff(short, riff_size=2036, data_size=2000, bits=64), "bits-max": riff(short, riff_size=2036, data_size=2000, bits=65_535),
        "align-0": riff(short, riff_size=2036, data_size=2000, align=0), "align-max": riff(short, riff_size=2036, data_size=2000, align=65_535),
        "kind-0": riff(short, riff_size=2036, data_size=2000, kind=0), "kind-mp3": riff(short, riff_size=2036, data_size=2000, kind=0x55),
        "kind-ext": riff(short, riff_size=2036, data_size=2000, kind=0xFFFE), "float-as-int": riff(pcm, riff_size=4036, data_size=4000, bits=16),
        "noise-as-float": riff(rng.bytes(4000), riff_size=4036, data_size=4000, bits=32, kind=3), "odd-size": riff(short[:-1], riff_size=2035, data_size=1999),
        "twice": riff(short, riff_size=2036, data_size=2000) * 2,
    }  # fmt: skip
    for name, data in lies.items():
        (folder / f"lie-{name}.wav").write_bytes(data)
    (folder / "flac-huge.flac").write_bytes(
        b"fLaC\x80\x00\x00\x22" + struct.pack(">HH", 4096, 4096) + bytes(6) + b"\xff" * 8 + bytes(16) + rng.bytes(500)
    )
    (folder / "au-huge.au").write_bytes(struct.pack(">4s5I", b".snd", 24, top, 3, 16_000, 1) + short)
    (folder / "au-offset.au").write_bytes(struct.pack(">4s5I", b".snd", top, top, 3, 16_000, 1) + short)
    for k in range(40):  # bytes flipped in good files
        end = list(FORMATS)[k % len(FORMATS)]
        hurt = bytearray((folder / f"whole.{end}").read_bytes())
        for position in rng.integers(0, 80 if k % 2 else len(hurt), 6):
            hurt[min(position, len(hurt) - 1)] = rng.integers(256)
        (folder / f"hurt{k}.{end}").write_bytes(hurt)
    (folder / "directory.wav").mkdir(exist_ok=True)
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "loop-a.wav").symlink_to("loop-b.wav")
    (folder / "loop-b.wav").symlink_to("loop-a.wav")
    (folder / "nowhere.wav").symlink_to("does-not-exist.wav")
    (folder / "up.wav").symlink_to("..")
    os.mkfifo(folder / "pipe.wav")
    (folder / "device.wav").symlink_to("/dev/zero")
    if os.geteuid() != 0:
        (folder / "secret.wav").write_bytes(good)
        (folder / "secret.wav").chmod(0)
    n = len(list(folder.iterdir()))
    for k in range(max(0, 300 - n)):
        (folder / f"more{k}.wav").write_bytes(good[: 44 + 37 * k])
    return len(list(folder.iterdir()))


if __name__ == "__main__":
    print(make(Path(sys.argv[1])), "files")

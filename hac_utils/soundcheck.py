"""Whether sound files can be decoded, and which of them are the same, in bounded time.

Of every file the header and the first second are decoded, and the end is looked at where the format
allows it (WAV, FLAC); whole files are read only where sizes and first bytes agree.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import soundfile as sf

from .audio import MAX_PEAK, load_audio
from .errors import HacError
from .io import sha256_file

_HEAD_BYTES = 65_536
_RATE = 8000


@dataclass(frozen=True)
class Sound:
    """One sound file: `reason` says why it cannot be used, "" when it can; `head` is a hash of its first bytes."""

    seconds: float
    reason: str
    size: int
    head: str


def probe(path: str) -> Sound:
    """Header, first second and (WAV, FLAC) end of one file; what only ffmpeg reads is decoded as a run would."""
    try:
        size = Path(path).stat().st_size if Path(path).is_file() else -1
        if size <= 0:
            return Sound(0.0, "the file is empty" if size == 0 else "not a regular file", size, "")
        with open(path, "rb") as f:
            head = sha256(f.read(_HEAD_BYTES)).hexdigest()
    except OSError as e:
        return Sound(0.0, f"not readable: {e.strerror}", -1, "")
    try:
        with sf.SoundFile(path) as f:
            seconds = f.frames / f.samplerate
            block = f.read(f.samplerate, dtype="float32", always_2d=True)
            whole = f.format != "FLAC" or f.frames <= len(block) or _reaches_end(f)
            declared = _declared_bytes(path, f.format)
    except Exception:  # libsndfile and soundfile raise many unrelated types for damaged files
        try:  # as a run would, with ffmpeg where there is one
            return Sound(load_audio(path, _RATE).shape[0] / _RATE, "", size, head)
        except HacError as e:
            return Sound(0.0, e.what, size, head)
    if len(block) == 0:
        reason = "no samples in the file"
    elif not np.isfinite(block).all():
        reason = "samples that are NaN or infinite"
    elif np.abs(block).max() > MAX_PEAK:
        reason = f"samples up to {np.abs(block).max():.3g}, where full scale is 1"
    elif not whole or declared > size:
        reason = "the end of the file is missing"
    else:
        reason = ""
    return Sound(seconds, reason, size, head)


def _reaches_end(f: sf.SoundFile) -> bool:
    """The last sample can be read; reliable for FLAC (WAV says its length itself, ogg and mp3 seek badly there)."""
    try:
        f.seek(f.frames - 1)
        return len(f.read(1)) == 1
    except sf.LibsndfileError:
        return False


def _declared_bytes(path: str, kind: str) -> int:
    """The least length of a WAV file by its own header, in bytes (some writers are 8 off); 0 for other formats and streams."""
    if kind != "WAV":
        return 0
    with open(path, "rb") as f:
        head = f.read(12)
    size = int.from_bytes(head[4:8], "little")
    return size if head[:4] == b"RIFF" and size < 0xFFFFFF00 else 0


def duplicates(paths: dict[str, Path], sounds: dict[str, Sound]) -> list[list[str]]:
    """Groups of ids with the same file content; whole files are hashed only where size and first bytes agree."""
    alike: dict[tuple[int, str], list[str]] = defaultdict(list)
    for sound_id, sound in sounds.items():
        alike[sound.size, sound.head].append(sound_id)
    groups = []
    for (size, head), ids in alike.items():
        content: dict[str, list[str]] = defaultdict(list)
        for sound_id in ids if len(ids) > 1 else []:
            content[head if size <= _HEAD_BYTES else sha256_file(paths[sound_id])].append(sound_id)
        groups += [same for same in content.values() if len(same) > 1]
    return groups

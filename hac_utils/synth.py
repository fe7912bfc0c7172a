"""The synthetic demo corpus: three data sets with the layout and the troubles of the real ones.

Nothing here is recorded. Each clip blends the sound and the words of a class with those of a class
it is easily mistaken for; the more even the blend, the more often the label falls on the other
side and the lower the annotators' confidence. Which classes are blended how often follows the
mean confidence per class of BSD10k v1.2, crowd labels of BSD35k-CS err at the published rates.
Every clip is drawn from ``default_rng([seed, corpus, index, ...])``: same settings, same bytes.
"""

from __future__ import annotations

import io as _io
import multiprocessing
import struct
import uuid
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf
from scipy.signal import lfilter
from tqdm import tqdm

from . import synth_audio, synth_text
from .errors import HacError, first_few
from .io import read_json, sha256_file, sha256_text, write_bytes, write_csv, write_json, write_text
from .taxonomy import CLASS_IDX, CLASSES, FAMILIES, INDEX, NAMES, family, is_leftover, long_name

#: Raise by one whenever the same settings give other bytes.
VERSION = 1

#: Clips per class in BSD10k v1.2 and BSD35k-CS, mean annotator confidence in BSD10k v1.2 (taxonomy order).
PRIOR_10K = (683, 721, 323, 606, 528, 566, 362, 297, 806, 177, 364, 1211, 201, 279, 975, 166, 652, 297, 208, 391, 207, 719, 217)
PRIOR_35K = (964, 1344, 2044, 2321, 293, 34, 43, 1360, 980, 50, 69, 4534, 1852, 1542, 1423, 730, 659, 839, 2000, 4831, 383, 2573, 596)
CONFIDENCE = (3.69, 3.50, 3.57, 3.95, 4.05, 3.92, 4.02, 3.39, 3.76, 3.25, 3.29, 3.61, 3.55, 3.54, 3.57, 3.55, 3.67, 3.14, 3.61, 3.49, 3.27, 3.22, 3.29)  # fmt: skip
RATINGS = (107, 748, 3281, 6043, 777)  # BSD10k v1.2 clips rated 1 … 5

#: Crowd labels outside the 23 classes; BSD35k-CS has no bare families, the corpus has a few so that readers meet them.
LEFTOVERS = {"m-other": 533, "is-other": 120, "sp-other": 108, "fx-other": 1143, "ss-other": 461, "fx": 90, "ss": 60}

#: Share of crowd labels that are right, where published; the other classes get what makes the mean `RIGHT`.
RIGHT_BY_CLASS = {"fx-v": 0.83, "m-m": 0.78, "fx-o": 0.78, "fx-m": 0.24, "is-p": 0.24, "ss-i": 0.25, "is-k": 0.28, "sp-c": 0.32}
RIGHT, RIGHT_FAMILY = 0.570, 0.751

#: What each class is blended with, most likely first.
NEIGHBOURS: dict[str, str] = {
    "m-sp": "is-p m-m", "m-si": "m-m is-s is-k is-w", "m-m": "m-si ss-s m-sp", "is-p": "m-sp fx-o", "is-s": "m-si is-k",
    "is-w": "m-si is-e", "is-k": "m-si is-s", "is-e": "fx-el m-si ss-s", "sp-s": "sp-p sp-c fx-h", "sp-c": "ss-u ss-i sp-s",
    "sp-p": "sp-s fx-el fx-ex", "fx-o": "fx-m ss-i fx-h", "fx-v": "ss-u fx-m", "fx-m": "fx-v fx-o ss-i", "fx-h": "sp-s fx-o fx-a",
    "fx-a": "ss-n fx-h", "fx-n": "ss-n ss-s", "fx-ex": "fx-el ss-s fx-o", "fx-el": "fx-ex is-e", "ss-n": "fx-n fx-a ss-u",
    "ss-i": "ss-u fx-o sp-c", "ss-u": "sp-c fx-v ss-i", "ss-s": "fx-ex m-m is-e",
}  # fmt: skip

LICENSES = ("http://creativecommons.org/publicdomain/zero/1.0/", "http://creativecommons.org/licenses/by/4.0/", "http://creativecommons.org/licenses/by-nc/4.0/")
RATES = (16000, 22050, 32000, 44100, 48000)
FORMATS = {"wav": ("WAV", "PCM_16"), "wav24": ("WAV", "PCM_24"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "mp3": ("MP3", "MPEG_LAYER_III")}
COLUMNS = ["sound_id", "class", "class_idx", "class_top", "confidence", "uploader", "license", "title", "tags", "description"]
README = """SYNTHETIC DEMO CORPUS

Every sound and every text in this folder was made by a program (hac_utils/synth.py, version {version},
seed {seed}). Nothing was recorded and nobody labelled it. It has the layout of {name} and imitates
its troubles, so that the whole analysis runs without a download. Numbers computed from it say
nothing about the real data set.
"""


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


# -- rendering ---------------------------------------------------------------------------------


def render(clip: Clip) -> bytes:
    """The encoded audio file of one clip."""
    rng, up = np.random.default_rng([*clip.key, 1]), clip.uploader
    sr = up.sr if rng.random() < 0.85 else int(rng.choice(RATES[1:3]))
    n = max(int(clip.seconds * sr), 64)
    x = sum(w * synth_audio.unit(synth_audio.RECIPES[code](rng, n, sr)) for code, w in clip.weights)
    x = synth_audio.unit(x)
    if up.wet > 0.03:
        x = synth_audio.room(np.random.default_rng([up.seed, 3]), x, sr, up.reverb, up.wet)
    x = x + up.tilt * lfilter([0.1], [1, -0.9], x)
    floor = up.floor + rng.normal(0, 4)
    x = synth_audio.unit(x) + 10 ** (-max(floor, 3) / 20) * synth_audio.coloured(rng, n, up.floor_colour)
    x = synth_audio.lowpass(x, sr, up.cut * rng.uniform(0.85, 1.15))
    if rng.random() < up.stereo:
        x = np.stack([x, rng.uniform(0.4, 1) * np.roll(x, int(rng.integers(0, 20)))], axis=1)
    peak = 10 ** (min(up.peak + rng.normal(0, 3), -0.2) / 20)
    x = (peak / max(np.abs(x).max(), 1e-9) * x).astype(np.float32)
    return _encode(x, sr, Path(clip.path).suffix[1:], up.container)


def _encode(x: np.ndarray, sr: int, extension: str, container: str) -> bytes:
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
    """`data` with stream serial number 1 in every Ogg page: libsndfile draws it from the clock (RFC 3533, section 6)."""
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


def _render_missing(root: str, clips: Sequence[Clip]) -> int:
    for clip in clips:
        path = Path(root) / clip.path
        if not path.exists():
            write_bytes(path, render(clip))
    return len(clips)


# -- planning ----------------------------------------------------------------------------------


def _apportion(weights: Sequence[float], total: int, least: int) -> np.ndarray:
    """Whole numbers near `weights`' shares of `total`, each at least `least`, summing to `total`."""
    w = np.asarray(weights, dtype=float)
    exact = np.maximum(w / w.sum() * total, least)
    over = exact > least
    exact[over] += (total - exact.sum()) * (exact[over] - least) / max((exact[over] - least).sum(), 1e-9)
    counts = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


def _draw_uploader(seed: int, corpus: int, index: int) -> Uploader:
    rng = np.random.default_rng([seed, corpus, index, 4])
    later = corpus == 2
    name = f"{synth_text.NAME_A[rng.integers(len(synth_text.NAME_A))]}{synth_text.NAME_B[rng.integers(len(synth_text.NAME_B))]}{corpus}{index:03d}"
    return Uploader(
        name=name,
        seed=int(rng.integers(2**31)),
        reverb=float(rng.uniform(0.04, 0.5)),
        wet=float(max(0.0, rng.uniform(-0.3, 0.45))),
        floor=float(rng.uniform(8, 50) + 3 * later),
        floor_colour=float(rng.uniform(0, 1.8)),
        cut=float(np.exp(rng.uniform(np.log(3000), np.log(20000))) * (1.15 if later else 1)),
        tilt=float(rng.uniform(0, 2) * (rng.random() < 0.5)),
        peak=float(-rng.gamma(1.5, 4)),
        container="wav" if later else str(rng.choice(list(FORMATS), p=[0.6, 0.08, 0.14, 0.09, 0.09])),
        sr=int(rng.choice(RATES, p=[0.12, 0.46, 0.3, 0.09, 0.03])),
        stereo=float(rng.choice([0, 0.1, 0.8], p=[0.6, 0.25, 0.15])),
        license=str(rng.choice(LICENSES, p=[0.74, 0.2, 0.06] if corpus == 1 else [0.33, 0.55, 0.12])),
        text=synth_text.habits(rng),
    )


def _assign_uploaders(rng: np.random.Generator, labels: np.ndarray, largest: float) -> np.ndarray:
    """Uploader number per clip: heavy-tailed sizes, few classes each, shape (n,)."""
    n = len(labels)
    waiting = {c: list(rng.permutation(np.flatnonzero(labels == c))) for c in dict.fromkeys(labels)}
    out, number, left = np.full(n, -1), 0, n
    while left:
        size = min(left, max(1, round(largest * n / (number + 1) ** 0.8)))
        codes = [c for c in waiting if waiting[c]]
        p = np.array([len(waiting[c]) for c in codes], float)
        k = min(1 if size < 5 else 1 + rng.poisson(size**0.5 / 3.5), len(codes))
        chosen = rng.choice(len(codes), k, replace=False, p=p / p.sum())
        share = rng.dirichlet(np.full(k, 1.5))
        for c, part in zip(chosen, share, strict=True):
            take = [waiting[codes[c]].pop() for _ in range(min(len(waiting[codes[c]]), max(1, round(part * size))))]
            out[take] = number
            left -= len(take)
        number += 1
    return out


def _ambiguity() -> np.ndarray:
    """How ambiguous each class is, 0 (rated highest) to 1 (rated lowest), shape (23,)."""
    c = np.array(CONFIDENCE)
    return (c.max() - c) / (c.max() - c.min())


def _mixes(rng: np.random.Generator, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A neighbour and its share of the clip, for clips that will carry these labels.

    A clip whose neighbour takes the share m is labelled with its own class with the probability
    ``1 / (1 + exp((m - 0.5) / 0.09))``; shares are drawn given that label.
    """
    ambiguity = _ambiguity()
    others, mix = np.empty(len(labels), dtype=object), np.zeros(len(labels))
    for i, code in enumerate(labels):
        a = ambiguity[INDEX[code]]
        names = NEIGHBOURS[code].split()
        p = 0.5 ** np.arange(len(names))
        others[i] = names[int(rng.choice(len(names), p=p / p.sum()))]
        if rng.random() < 0.12 + 0.8 * a:
            while True:
                m = rng.uniform(0.05, 0.45 + 0.35 * a)
                if rng.random() < 1 / (1 + np.exp((m - 0.5) / 0.09)):
                    break
            mix[i] = m
    return others, mix


def _ratings(rng: np.random.Generator, mix: np.ndarray) -> np.ndarray:
    """Confidence 1 … 5 per clip: falls with an even or contrary blend, overall shares as in BSD10k."""
    latent = -3.2 * np.minimum(mix, 0.7) + rng.normal(0, 0.42, len(mix))
    rank = (np.argsort(np.argsort(latent, kind="stable"), kind="stable") + 0.5) / len(mix)
    return 1 + np.searchsorted(np.cumsum(RATINGS) / sum(RATINGS), rank)


def _crowd_truth(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """What the clips behind these crowd labels really are, shape (n,) of class codes."""
    weight = dict(zip(CLASSES, PRIOR_35K, strict=True))
    known = sum(weight[c] * r for c, r in RIGHT_BY_CLASS.items())
    rest = (RIGHT * sum(PRIOR_35K) - known) / sum(w for c, w in weight.items() if c not in RIGHT_BY_CLASS)
    in_family = (RIGHT_FAMILY - RIGHT) / (1 - RIGHT)
    out = np.empty(len(labels), dtype=object)
    for i, code in enumerate(labels):
        siblings = [c for c in CLASSES if family(c) == family(code) and c != code]
        if is_leftover(code):
            out[i] = siblings[int(rng.integers(len(siblings)))]
        elif rng.random() < RIGHT_BY_CLASS.get(code, rest):
            out[i] = code
        elif rng.random() < in_family:
            near = [c for c in NEIGHBOURS[code].split() if c in siblings] or siblings
            pool = near if rng.random() < 0.6 else siblings
            out[i] = pool[int(rng.integers(len(pool)))]
        else:
            near = [c for c in NEIGHBOURS[code].split() if family(c) != family(code)]
            pool = near if near and rng.random() < 0.6 else [c for c in CLASSES if family(c) != family(code)]
            out[i] = pool[int(rng.integers(len(pool)))]
    return out


def _class_idx(code: str) -> int:
    if code in CLASS_IDX:
        return CLASS_IDX[code]
    return 100 * (1 + list(FAMILIES).index(family(code))) + (99 if code.endswith("-other") else 0)


def _seconds(rng: np.random.Generator, code: str) -> float:
    """Clip length: lognormal, median about 1.2 s, notes shorter and soundscapes longer."""
    factor = {"is": 0.75, "ss": 1.25, "m": 1.1}.get(family(code), 0.95)
    return round(float(np.clip(1.2 * factor * np.exp(rng.normal(0, 0.5) * (1.6 if rng.random() < 0.12 else 1)), 0.02, 8)), 3)


def _plan(corpus: int, folder: str, labels: np.ndarray, truth: np.ndarray, seed: int, ids: list[str]):
    """Clips, their metadata, and the generator's truth, for one corpus."""
    rng = np.random.default_rng([seed, corpus, 0, 5])
    others, mix = _mixes(rng, truth)
    if corpus == 1:  # a wrong crowd label is often half true
        half = (labels != truth) & np.isin(labels, CLASSES) & (rng.random(len(labels)) < 0.5)
        others[half], mix[half] = labels[half], rng.uniform(0.15, 0.45, int(half.sum()))
    ratings = _ratings(rng, mix)
    number = _assign_uploaders(rng, labels, 0.09 if corpus == 0 else 0.05)
    uploaders = [_draw_uploader(seed, corpus, k) for k in range(number.max() + 1)]
    clips, rows = [], []
    for i, (label, code, other, m) in enumerate(zip(labels, truth, others, mix, strict=True)):
        up = uploaders[number[i]]
        weights = ((code, 1 - m), (other, m)) if m > 0 else ((code, 1.0),)
        words = np.random.default_rng([seed, corpus, i, 2])
        seconds = _seconds(words, code)
        title, tags, description = synth_text.describe(words, up.text, dict(weights), i)
        extension = "wav" if seconds < 0.15 else up.container.removesuffix("24")
        clips.append(Clip(f"{folder}/audio/{ids[i]}.{extension}", (seed, corpus, i), weights, seconds, up))
        rows.append((ids[i], label, _class_idx(label), family(label), ratings[i], up.name, up.license, title, tags, description))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    strong = mix > 0.5
    hidden = pd.DataFrame({
        "sound_id": ids,
        "class": np.where(strong, others, truth),
        "second_class": np.where(mix == 0, "", np.where(strong, truth, others)),
        "mix": np.round(np.minimum(mix, 1 - mix), 4),
    })  # fmt: skip
    return clips, frame, hidden


def _number_ids(rng: np.random.Generator, n: int, first: int, last: int) -> list[str]:
    steps = rng.uniform(0.2, 1.8, n).cumsum()
    return [str(int(v)) for v in first + steps / max(steps[-1] if n else 1, 1) * (last - first) * 0.98]


def _description_table() -> pd.DataFrame:
    rows = []
    for code in CLASSES:
        things, kinds, _ = synth_text.LEXICON[code]
        text = f"Sounds of the class {NAMES[code]} ({FAMILIES[family(code)].lower()}), often {kinds[0]} or {kinds[1]}."
        rows.append((CLASS_IDX[code], code, long_name(code), FAMILIES[family(code)], NAMES[code].capitalize(), text, ", ".join(things[:6])))
    return pd.DataFrame(rows, columns=["class_idx", "class_key", "class_key_long", "top_level", "second_level", "description", "examples"])


# -- the corpus --------------------------------------------------------------------------------


def _plans(clips: int, noisy: int, evaluation: int, seed: int) -> tuple[list[Clip], dict[str, pd.DataFrame]]:
    """All clips, and all tables by their path under the root."""
    rng = np.random.default_rng([seed, 0, 0, 6])
    dev = rng.permutation(np.repeat(CLASSES, _apportion(PRIOR_10K, clips, min(20, clips // 25 if clips >= 25 else 1))))
    codes = [*CLASSES, *LEFTOVERS]
    crowd = rng.permutation(np.repeat(codes, _apportion([*PRIOR_35K, *LEFTOVERS.values()], noisy, int(noisy >= 100))))
    held = rng.permutation(np.repeat(CLASSES, _apportion([1] * len(CLASSES), evaluation, 0)))
    ids = (_number_ids(rng, clips, 1000, 790000), _number_ids(rng, noisy, 800000, 850000))
    ids_eval = sorted(str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(evaluation))
    audio, dev_rows, dev_truth = _plan(0, "BSD10k", dev, dev, seed, ids[0])
    crowd_truth = _crowd_truth(rng, crowd)
    more, noisy_rows, _ = _plan(1, "BSD35k-CS", crowd, crowd_truth, seed, ids[1])
    noisy_rows["confidence"] = ""
    last, eval_rows, _ = _plan(2, "eval", held, held, seed, ids_eval)
    eval_rows = eval_rows.rename(columns={"sound_id": "anonymous_id"})
    description = _description_table()
    tables = {
        "BSD10k/metadata/BSD10k_metadata.csv": dev_rows,
        "BSD10k/metadata/BST_description.csv": description,
        "BSD35k-CS/metadata/BSD35k-CS_metadata.csv": noisy_rows,
        "BSD35k-CS/metadata/BST_description.csv": description,
        "eval/metadata/eval_metadata.csv": eval_rows[["anonymous_id", "title", "tags", "description"]],
        "hidden/dev_truth.csv": dev_truth,
        "hidden/noisy_truth.csv": pd.DataFrame({"sound_id": ids[1], "class": crowd_truth}),
        "hidden/eval_truth.csv": eval_rows[["anonymous_id", "class"]],
    }
    return audio + more + last, tables


def _names_hash(root: Path) -> str:
    """Hash of the sorted audio file names; half-written files start with a dot."""
    names = sorted(p.relative_to(root).as_posix() for p in root.glob("*/audio/[!.]*"))
    return sha256_text("\n".join(names))


def generate(root: Path, *, clips: int = 1400, noisy: int = 1100, evaluation: int = 253, seed: int = 0, workers: int = 2) -> dict:
    """Write the synthetic demo corpus under `root`, or complete it; returns the content of ``corpus.json``.

    Parameters
    ----------
    root : Path
        Gets ``BSD10k/``, ``BSD35k-CS/``, ``eval/``, ``hidden/`` (the generator's own truth) and, last, ``corpus.json``.
    clips, noisy, evaluation : int
        Clips in the three sets; at least 23, 0 and 0.
    workers : int
        Processes; the bytes do not depend on it.

    Raises
    ------
    HacError
        Too few clips, a `root` that holds other data, no space, or a worker that died.
    """
    root = Path(root)
    if clips < len(CLASSES) or noisy < 0 or evaluation < 0:
        raise HacError(f"a corpus of {clips} + {noisy} + {evaluation} clips", "clips, noisy, evaluation", f"give at least {len(CLASSES)}, 0 and 0")
    settings = {"clips": clips, "noisy": noisy, "evaluation": evaluation, "seed": seed}
    done, begun = root / "corpus.json", root / "corpus.begun.json"
    key = {"settings": settings, "version": VERSION}
    if done.exists():
        corpus = read_json(done)
        if {k: corpus.get(k) for k in key} == key and _complete(root, corpus):
            return corpus
    _make_room(root, key, done, begun)
    write_json(begun, key)
    done.unlink(missing_ok=True)
    plan, tables = _plans(clips, noisy, evaluation, seed)
    _render_all(root, plan, workers)
    for path, frame in tables.items():
        write_csv(root / path, frame)
    for name in ("BSD10k", "BSD35k-CS", "eval"):
        write_text(root / name / "README.md", README.format(version=VERSION, seed=seed, name=name))
    corpus = key | {
        "name": "synthetic demo corpus",
        "counts": {"BSD10k": clips, "BSD35k-CS": noisy, "eval": evaluation},
        "audio_names_sha256": _names_hash(root),
        "metadata_sha256": {path: sha256_file(root / path) for path in sorted(tables)},
    }
    write_json(done, corpus)
    begun.unlink()
    return corpus


def _complete(root: Path, corpus: dict) -> bool:
    tables = corpus.get("metadata_sha256", {})
    whole = all((root / path).exists() and sha256_file(root / path) == digest for path, digest in tables.items())
    return whole and _names_hash(root) == corpus.get("audio_names_sha256")


def _make_room(root: Path, key: dict, done: Path, begun: Path) -> None:
    """Keep audio of the same settings, clear audio of other settings, refuse a folder that is not ours."""
    present = [p for name in ("BSD10k", "BSD35k-CS", "eval", "hidden") if (p := root / name).exists()]
    marker = next((p for p in (begun, done) if p.exists()), None)
    if marker is None:
        if present:
            raise HacError(f"the folder already holds {first_few([p.name for p in present])}, not written by this generator", str(root), "choose an empty folder")
    else:
        old = read_json(marker)
        if {k: old.get(k) for k in key} != key:
            for path in sorted(root.glob("*/audio/*")):
                if path.parent.parent in present:
                    path.unlink()


def _render_all(root: Path, plan: list[Clip], workers: int) -> None:
    todo = [clip for clip in plan if not (root / clip.path).exists()]
    batches = [todo[i : i + 16] for i in range(0, len(todo), 16)]
    with tqdm(total=len(todo), desc="synthetic demo corpus", unit="clip", disable=None) as bar:
        if workers <= 1 or len(batches) <= 1:
            for batch in batches:
                bar.update(_render_missing(str(root), batch))
            return
        pool = ProcessPoolExecutor(min(workers, len(batches)), mp_context=multiprocessing.get_context("spawn"))
        try:
            for future in as_completed([pool.submit(_render_missing, str(root), batch) for batch in batches]):
                bar.update(future.result())
        except BrokenProcessPool:
            raise HacError("a worker process died while making the synthetic demo corpus", str(root), "run it again with one worker; finished clips are kept") from None
        finally:
            pool.shutdown(cancel_futures=True)

"""Who uploads which clip of the synthetic demo corpus, how it is labelled and how sure its annotators are."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np
import pandas as pd

from . import synth_text
from .schema import METADATA_COLUMNS as COLUMNS
from .synth_files import FORMATS, SAMPLE_RATES, Clip, Uploader
from .taxonomy import CLASS_IDX, CLASSES, FAMILIES, INDEX, NAMES, family, is_leftover, long_name

#: Per class: clips in BSD10k v1.2, clips in BSD35k-CS, mean annotator confidence in BSD10k v1.2, and the
#: classes it is blended with, most likely first.
STATISTICS: dict[str, tuple[int, int, float, str]] = {
    "m-sp": (683, 964, 3.69, "is-p m-m"),
    "m-si": (721, 1344, 3.50, "m-m is-s is-k is-w"),
    "m-m": (323, 2044, 3.57, "m-si ss-s m-sp"),
    "is-p": (606, 2321, 3.95, "m-sp fx-o"),
    "is-s": (528, 293, 4.05, "m-si is-k"),
    "is-w": (566, 34, 3.92, "m-si is-e"),
    "is-k": (362, 43, 4.02, "m-si is-s"),
    "is-e": (297, 1360, 3.39, "fx-el m-si ss-s"),
    "sp-s": (806, 980, 3.76, "sp-p sp-c fx-h"),
    "sp-c": (177, 50, 3.25, "ss-u ss-i sp-s"),
    "sp-p": (364, 69, 3.29, "sp-s fx-el fx-ex"),
    "fx-o": (1211, 4534, 3.61, "fx-m ss-i fx-h"),
    "fx-v": (201, 1852, 3.55, "ss-u fx-m"),
    "fx-m": (279, 1542, 3.54, "fx-v fx-o ss-i"),
    "fx-h": (975, 1423, 3.57, "sp-s fx-o fx-a"),
    "fx-a": (166, 730, 3.55, "ss-n fx-h"),
    "fx-n": (652, 659, 3.67, "ss-n ss-s"),
    "fx-ex": (297, 839, 3.14, "fx-el ss-s fx-o"),
    "fx-el": (208, 2000, 3.61, "fx-ex is-e"),
    "ss-n": (391, 4831, 3.49, "fx-n fx-a ss-u"),
    "ss-i": (207, 383, 3.27, "ss-u fx-o sp-c"),
    "ss-u": (719, 2573, 3.22, "sp-c fx-v ss-i ss-n"),
    "ss-s": (217, 596, 3.29, "fx-ex m-m is-e"),
}
PRIOR_10K, PRIOR_35K, CONFIDENCE = (tuple(row[k] for row in STATISTICS.values()) for k in range(3))
NEIGHBOURS = {code: row[3].split() for code, row in STATISTICS.items()}
RATINGS = (107, 748, 3281, 6043, 777)  # BSD10k v1.2 clips rated 1 … 5

#: Crowd labels outside the 23 classes. BSD35k-CS has no bare families; the corpus has a few as a trap.
LEFTOVERS = {"m-other": 533, "is-other": 120, "sp-other": 108, "fx-other": 1143, "ss-other": 461}
LEFTOVERS |= {"fx": 90, "ss": 60}

#: Share of crowd labels that are right, where published; the other classes get what makes the mean `RIGHT`.
RIGHT_BY_CLASS = {
    "fx-v": 0.83,
    "m-m": 0.78,
    "fx-o": 0.78,
    "fx-m": 0.24,
    "is-p": 0.24,
    "ss-i": 0.25,
    "is-k": 0.28,
    "sp-c": 0.32,
}
RIGHT, RIGHT_FAMILY = 0.570, 0.751

LICENSES = (
    "http://creativecommons.org/publicdomain/zero/1.0/",
    "http://creativecommons.org/licenses/by/4.0/",
    "http://creativecommons.org/licenses/by-nc/4.0/",
)
SLOPE = 0.13  # how sharply the label turns where a blend is even


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
    first, second = (names[rng.integers(len(names))] for names in (synth_text.NAME_A, synth_text.NAME_B))
    return Uploader(
        name=f"{first}{second}{corpus}{index:03d}",
        seed=int(rng.integers(2**31)),
        reverb=float(rng.uniform(0.04, 0.5)),
        wet=float(max(0.0, rng.uniform(-0.3, 0.45))),
        floor=float(rng.uniform(18, 58) + 3 * later),
        floor_colour=float(rng.uniform(0, 1.8)),
        cut=float(np.exp(rng.uniform(np.log(3800), np.log(20000))) * (1.15 if later else 1)),
        tilt=float(rng.uniform(0, 2) * (rng.random() < 0.5)),
        peak=float(-rng.gamma(1.5, 4)),
        container="wav" if later else str(rng.choice(list(FORMATS), p=[0.62, 0.1, 0.16, 0.06, 0.06])),
        sr=int(rng.choice(SAMPLE_RATES, p=[0.12, 0.46, 0.3, 0.09, 0.03])),
        stereo=float(rng.choice([0, 0.1, 0.8], p=[0.6, 0.25, 0.15])),
        license=str(rng.choice(LICENSES, p=[0.74, 0.2, 0.06] if corpus == 1 else [0.33, 0.55, 0.12])),
        text=synth_text.habits(rng),
    )


def _assign_uploaders(rng: np.random.Generator, labels: np.ndarray, largest: float) -> np.ndarray:
    """Uploader number per clip: heavy-tailed sizes, few classes each, shape (n,)."""
    n = len(labels)
    waiting = {c: list(rng.permutation(np.flatnonzero(labels == c))) for c in dict.fromkeys(labels)}
    most = {c: len(clips) for c, clips in waiting.items()}
    out, number, left = np.full(n, -1), 0, n
    while left:
        size = min(left, max(1, round(largest * n / (number + 1) ** 0.8)))
        codes = [c for c in waiting if waiting[c]]
        p = np.array([len(waiting[c]) for c in codes], float)
        k = min(1 if size < 5 else 1 + rng.poisson(size**0.5 / 2), len(codes))
        chosen = [codes[c] for c in rng.choice(len(codes), k, replace=False, p=p / p.sum())]
        wanted = 1 + rng.multinomial(max(size - k, 0), rng.dirichlet(np.full(k, 2.0)))
        wanted = dict(zip(chosen, wanted.tolist(), strict=True))
        for c in [*chosen, *rng.permutation([c for c in codes if c not in wanted])]:
            part = min(len(waiting[c]), wanted.get(c, size), -(-most[c] // 4), size)  # a quarter of a class at most
            take = [waiting[c].pop() for _ in range(part)]
            out[take] = number
            size -= part
            left -= part
        number += 1
    return out


def _ambiguity() -> np.ndarray:
    """How ambiguous each class is, 0 (rated highest) to 1 (rated lowest), shape (23,)."""
    c = np.array(CONFIDENCE)
    return (c.max() - c) / (c.max() - c.min())


def _mixes(rng: np.random.Generator, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A neighbour and its share of the clip, for clips that will carry these labels.

    A clip whose neighbour takes the share m is labelled with its own class with the probability
    ``1 / (1 + exp((m - 0.5) / SLOPE))``; shares are drawn given that label.
    """
    ambiguity = _ambiguity()
    others, mix = np.empty(len(labels), dtype=object), np.zeros(len(labels))
    for i, code in enumerate(labels):
        a = ambiguity[INDEX[code]] ** 1.15
        names = NEIGHBOURS[code]
        p = 0.5 ** np.arange(len(names))
        others[i] = names[int(rng.choice(len(names), p=p / p.sum()))]
        if rng.random() < 0.08 + 0.87 * a:
            while True:
                m = rng.uniform(0.1 + 0.2 * a, 0.5 + 0.35 * a)
                if rng.random() < 1 / (1 + np.exp((m - 0.5) / SLOPE)):
                    break
            mix[i] = m
    return others, mix


def _ratings(rng: np.random.Generator, mix: np.ndarray) -> np.ndarray:
    """Confidence 1 … 5 per clip: falls with an even or contrary blend, overall shares as in BSD10k."""
    latent = -3.2 * np.minimum(mix, 0.7) + rng.normal(0, 0.65, len(mix))
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
            near = [c for c in NEIGHBOURS[code] if c in siblings] or siblings
            pool = near if rng.random() < 0.6 else siblings
            out[i] = pool[int(rng.integers(len(pool)))]
        else:
            near = [c for c in NEIGHBOURS[code] if family(c) != family(code)]
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
    return round(
        float(np.clip(1.2 * factor * np.exp(rng.normal(0, 0.5) * (1.6 if rng.random() < 0.12 else 1)), 0.02, 8)),
        3,
    )


def _plan(corpus: int, folder: str, labels: np.ndarray, truth: np.ndarray, seed: int, ids: list[str]):
    """Clips, their metadata, and the generator's truth, for one corpus."""
    rng = np.random.default_rng([seed, corpus, 0, 5])
    others, mix = _mixes(rng, truth)
    if corpus == 1:  # a wrong crowd label is often half true
        half = (labels != truth) & np.isin(labels, CLASSES) & (rng.random(len(labels)) < 0.5)
        others[half], mix[half] = labels[half], rng.uniform(0.15, 0.45, int(half.sum()))
    ratings = _ratings(rng, mix)
    number = _assign_uploaders(rng, labels, 0.09 if corpus == 0 else 0.05)
    uploaders = [_draw_uploader(seed, corpus, k) for k in range(number.max(initial=-1) + 1)]
    clips, rows = [], []
    for i, (label, code, other, m) in enumerate(zip(labels, truth, others, mix, strict=True)):
        up = uploaders[number[i]]
        weights = ((code, 1 - m), (other, m)) if m > 0 else ((code, 1.0),)
        words = np.random.default_rng([seed, corpus, i, 2])
        seconds = _seconds(words, code)
        title, tags, description = synth_text.describe(words, up.text, dict(weights), i)
        extension = "wav" if seconds < 0.15 else up.container.removesuffix("24")
        clips.append(Clip(f"{folder}/audio/{ids[i]}.{extension}", (seed, corpus, i), weights, seconds, up))
        rows.append(
            (
                ids[i],
                label,
                _class_idx(label),
                family(label),
                ratings[i],
                up.name,
                up.license,
                title,
                tags,
                description,
            )
        )
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
        top = FAMILIES[family(code)]
        text = f"Sounds of the class {NAMES[code]} ({top.lower()}), often {kinds[0]} or {kinds[1]}."
        rows.append(
            (
                CLASS_IDX[code],
                code,
                long_name(code),
                top,
                NAMES[code].capitalize(),
                text,
                ", ".join(things[:6]),
            )
        )
    return pd.DataFrame(
        rows,
        columns=[
            "class_idx",
            "class_key",
            "class_key_long",
            "top_level",
            "second_level",
            "description",
            "examples",
        ],
    )


def plans(clips: int, noisy: int, evaluation: int, seed: int) -> tuple[list[Clip], dict[str, pd.DataFrame]]:
    """All clips, and all tables by their path under the root."""
    rng = np.random.default_rng([seed, 0, 0, 6])
    dev = rng.permutation(np.repeat(CLASSES, _apportion(PRIOR_10K, clips, min(24, clips // 25 if clips >= 25 else 1))))
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

"""Pseudo-labels for the noisy corpus: which clips to believe, and what to call them.

The report's filter is :func:`majority`, a hard majority of three independent models (Sec. 3.4). The other
strategies are one function each and give the same small table of kept clips (:data:`KEPT`). Clips that the
labelled corpus holds already are found by :func:`duplicates` and left out before anybody votes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from .errors import HacError
from .fitting import softmax
from .io import read_table, sha256_file
from .protocol import with_training_rows
from .schema import argmax_codes, mean_over_seeds, proba_of
from .splits import Fold
from .taxonomy import CLASSES, INDEX

#: Strategy -> what it believes, in words for tables; the report's filter first.
STRATEGIES = {
    "majority": "two voters agree (the report's filter)",
    "unanimous": "all voters agree",
    "soft mean": "mean of the voters, at least 0.5",
    "weighted votes": "votes weighted by confidence",
    "crowd as a vote": "crowd label as one voter more",
    "confident learning": "crowd label, confident learning",
    "crowd label": "crowd label, no filter",
}

#: Columns of a strategy's result, one row per kept clip: `weight` (above 0, at most 1) is the clip's sample weight.
KEPT = ["sound_id", "label", "weight"]


def majority(voters: dict[str, pd.DataFrame], *, needed: int = 2) -> pd.DataFrame:
    """Keep the clips on which at least `needed` voters agree; crowd labels are never looked at.

    Parameters
    ----------
    voters : dict name -> predictions table of the noisy corpus (several seeds are averaged first)
    needed : int
        2 of 3 in the report. The number of voters makes it unanimous.

    Returns
    -------
    table, one row per clip, sorted by sound_id: sound_id, one column ``vote_<name>`` each, label
    ("" where nothing is kept), votes (how many voters chose the winner), kept (bool).
    """
    if len(voters) < needed:
        raise HacError(
            f"{len(voters)} voters cannot give {needed} equal votes",
            "voters",
            "the report uses three: multimodal head, RoBERTa, PaSST",
        )
    ids, proba = soft_votes(voters)
    block = np.column_stack([argmax_codes(p) for p in proba.values()])
    label, votes = _count(block)
    out = pd.DataFrame({"sound_id": ids} | {f"vote_{n}": block[:, i] for i, n in enumerate(voters)})
    out["votes"] = votes
    out["kept"] = votes >= needed
    out["label"] = np.where(out["kept"], label, "")
    return out


def _count(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The label with most votes in each row of (n, voters), the first on a tie, and its votes."""
    counts = (block[:, :, None] == block[:, None, :]).sum(axis=2)
    return block[np.arange(len(block)), counts.argmax(axis=1)], counts.max(axis=1)


def agreement_pattern(table: pd.DataFrame, voters: Sequence[str]) -> dict[str, int]:
    """How many clips each pattern holds: "all agree", "M = R only", …, "none agree". For two or three voters; sums to the clips."""
    votes = {v: table[f"vote_{v}"].to_numpy() for v in voters}
    out = {"all agree": int((table["votes"] == len(votes)).sum())}
    names = list(votes)
    for i, a in enumerate(names if len(names) > 2 else []):
        for b in names[i + 1 :]:
            out[f"{a} = {b} only"] = int(((votes[a] == votes[b]) & (table["votes"] == 2).to_numpy()).sum())
    out["none agree"] = int((table["votes"] == 1).sum())
    return out


# --- what the voters say, in probabilities -----------------------------------------------------------------


def soft_votes(voters: Mapping[str, pd.DataFrame]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Seeds averaged: the ids that every voter has, sorted, and each voter's probabilities (n, 23) in that order.

    Raises
    ------
    HacError
        A voter's table holds several systems or folds: models of different folds know different clips.
    """
    for name, table in voters.items():
        if len(table[["system", "fold"]].drop_duplicates()) > 1:
            raise HacError(
                f"voter {name} has predictions of several systems or folds",
                "voters",
                "let one system vote, fold by fold",
            )
    mean = {name: mean_over_seeds(table).set_index("sound_id") for name, table in voters.items()}
    ids = sorted(set.intersection(*(set(m.index) for m in mean.values())))
    return ids, {name: proba_of(m.loc[ids]) for name, m in mean.items()}


def tempered(proba: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, k) made sharper (below 1) or flatter: each to the power 1 / temperature, rows sum to 1."""
    return softmax(np.log(np.clip(proba, 1e-12, None)) / temperature)


def temperature(proba: np.ndarray, target: np.ndarray) -> float:
    """The temperature, 0.1 … 10, at which `proba` (n, 23) has the least cross-entropy against `target`.

    `target` : (n, 23), rows sum to 1: one-hot truth, or a distribution that is calibrated already.
    Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_t: float) -> float:
        return float(-(target * np.log(tempered(proba, np.exp(log_t)) + 1e-12)).sum(axis=1).mean())

    edge = np.log(10)
    return float(np.exp(minimize_scalar(loss, bounds=(-edge, edge), method="bounded").x))


def one_hot(codes: Sequence[str]) -> np.ndarray:
    """Class codes as float (n, 23), taxonomy order."""
    return np.eye(len(CLASSES))[[INDEX[c] for c in codes]]


def calibrated(
    proba: Mapping[str, np.ndarray], main: str, held_out: tuple[np.ndarray, Sequence[str]]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Voters whose confidence can be compared; no clip outside the training part is needed.

    The main voter's temperature comes from its out-of-fold predictions on training clips. It sees all that
    the others see (sound and words), so its calibrated probabilities on the noisy clips then stand in for the
    truth when the others are calibrated, and when the mean of all is (name "mean").

    Parameters
    ----------
    proba : voter -> (n, 23) on the noisy clips
    main : the multimodal voter
    held_out : out-of-fold probabilities (m, 23) of the main voter on training clips, and their labels

    Returns
    -------
    voter -> calibrated (n, 23), "mean" among them, and the temperature of each
    """
    t = {main: temperature(held_out[0], one_hot(held_out[1]))}
    out = {main: tempered(proba[main], t[main])}
    for name in proba:
        if name != main:
            t[name] = temperature(proba[name], out[main])
            out[name] = tempered(proba[name], t[name])
    mean = np.mean([out[name] for name in proba], axis=0)
    t["mean"] = temperature(mean, out[main])
    out = {name: out[name] for name in proba} | {"mean": tempered(mean, t["mean"])}
    return out, t


# --- strategies: each gives a table with the columns KEPT ----------------------------------------------------


def _kept(ids: Sequence[str], label: np.ndarray, weight: np.ndarray | float, keep: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame({"sound_id": list(ids), "label": label, "weight": np.asarray(weight, float)}, columns=KEPT)
    return table[keep].reset_index(drop=True)


def from_majority(table: pd.DataFrame) -> pd.DataFrame:
    """The kept clips of a :func:`majority` table, weight 1."""
    return _kept(table["sound_id"], table["label"].to_numpy(object), 1.0, table["kept"].to_numpy(bool))


def mean_of_soft(ids: Sequence[str], mean: np.ndarray, *, threshold: float = 0.5) -> pd.DataFrame:
    """The most probable class of the voters' calibrated mean, where its probability, which becomes the weight, reaches `threshold`.

    Half means: more likely right than wrong, as far as the calibration holds.
    """
    confidence = mean.max(axis=1)
    return _kept(ids, argmax_codes(mean), confidence, confidence >= threshold)


def weighted(ids: Sequence[str], proba: Sequence[np.ndarray]) -> pd.DataFrame:
    """Votes counted by their calibrated confidence: kept where one label holds more than half of it.

    With equal confidences this is the report's filter. The weight is the winner's confidence summed over the
    voters that chose it, divided by the number of voters.
    """
    score = np.zeros((len(ids), len(CLASSES)))
    for p in proba:
        score[np.arange(len(p)), p.argmax(axis=1)] += p.max(axis=1)
    best = score.max(axis=1)
    return _kept(ids, argmax_codes(score), best / len(proba), best > 0.5 * score.sum(axis=1))


def crowd_vote(ids: Sequence[str], proba: Sequence[np.ndarray], crowd: Sequence[str]) -> pd.DataFrame:
    """The crowd label is one voter more; kept where more than half of all agree (3 of 4), weight 1.

    A crowd label outside the 23 classes agrees with nobody.
    """
    block = np.column_stack([argmax_codes(p) for p in proba] + [np.asarray(crowd, object)])
    label, votes = _count(block)
    return _kept(ids, label, 1.0, 2 * votes > block.shape[1])


def confident(ids: Sequence[str], mean: np.ndarray, crowd: Sequence[str]) -> pd.DataFrame:
    """Confident learning: the crowd labels that the voters do not contradict, weight 1.

    A class's threshold is the mean probability that clips with this crowd label have for it. A label is an
    issue when another class reaches its threshold (the most probable one, if several do). The voters have
    never seen a noisy clip, so their probabilities are out-of-sample. Gives what ``cleanlab.filter.
    find_label_issues(labels, mean, filter_by="confident_learning")`` of cleanlab 2.9 keeps (a test compares).
    Northcutt, Jiang & Chuang, Confident learning, JAIR 2021.
    """
    crowd = np.asarray(crowd, dtype=object)
    inside = np.isin(crowd, CLASSES)
    keep = np.zeros(len(crowd), bool)
    if inside.any():
        p, given = mean[inside], np.array([INDEX[c] for c in crowd[inside]])
        own = p[np.arange(len(p)), given]
        total, n = np.bincount(given, own, len(CLASSES)), np.bincount(given, minlength=len(CLASSES))
        threshold = np.where(n > 0, np.maximum(total / np.maximum(n, 1), 2e-6), 2.0)  # 2: no clip reaches it
        reached = p >= threshold - 1e-6
        guess = np.where(reached.sum(axis=1) > 1, p.argmax(axis=1), reached.argmax(axis=1))
        issue = reached.any(axis=1) & (guess != given) & (own < p.max(axis=1) - 1e-6)
        keep[np.flatnonzero(inside)[~issue]] = True
    return _kept(ids, crowd, 1.0, keep)


def crowd_only(ids: Sequence[str], crowd: Sequence[str]) -> pd.DataFrame:
    """No filter: every crowd label of the 23 classes, weight 1."""
    crowd = np.asarray(crowd, dtype=object)
    return _kept(ids, crowd, 1.0, np.isin(crowd, CLASSES))


def strategies(
    voters: dict[str, pd.DataFrame], crowd: pd.Series, calibration: Mapping[str, np.ndarray]
) -> dict[str, pd.DataFrame]:
    """Every strategy by name, the report's filter first.

    Parameters
    ----------
    voters : as for :func:`majority`
    crowd : crowd label by sound_id
    calibration : voter and "mean" -> (n, 23), see :func:`calibrated`, rows as :func:`soft_votes` gives them
    """
    ids, _ = soft_votes(voters)
    label = crowd.reindex(ids).to_numpy(object)
    proba = [calibration[v] for v in voters]
    return {
        "majority": from_majority(majority(voters)),
        "unanimous": from_majority(majority(voters, needed=len(voters))),
        "soft mean": mean_of_soft(ids, calibration["mean"]),
        "weighted votes": weighted(ids, proba),
        "crowd as a vote": crowd_vote(ids, proba, label),
        "confident learning": confident(ids, calibration["mean"], label),
        "crowd label": crowd_only(ids, label),
    }


def kept_by(ids: Sequence[str], kept: Mapping[str, pd.DataFrame]) -> list[str]:
    """For each clip the strategies that keep it, joined by commas, "" for none."""
    sets = {name: set(table["sound_id"]) for name, table in kept.items()}
    return [",".join(name for name, clips in sets.items() if i in clips) for i in ids]


def added(
    dev: pd.DataFrame, noisy: pd.DataFrame, kept: Sequence[pd.DataFrame], fold: Fold
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Fold]]:
    """What :func:`protocol.cross_fit` needs to train on a fold with the kept clips behind the labelled ones.

    Parameters
    ----------
    kept : one table per strategy, columns :data:`KEPT`

    Returns
    -------
    rows : of `noisy`, to stack their inputs below those of `dev`: the first strategy's clips, the second's, …
    y, sample_weight : of all rows, (len(dev) + len(rows),)
    folds : one per strategy, numbered in order: `fold` with that strategy's clips in the training part, nowhere else
    """
    rows, y, weight = [], [dev["class"].to_numpy(object)], [np.ones(len(dev))]
    folds, start = [], len(dev)
    for number, table in enumerate(kept):
        rows.append(np.flatnonzero(noisy["sound_id"].isin(set(table["sound_id"]))))
        chosen = table.set_index("sound_id").loc[noisy["sound_id"].iloc[rows[-1]]]
        y.append(chosen["label"].to_numpy(object))
        weight.append(chosen["weight"].to_numpy(float))
        with_them = with_training_rows(fold, more=start + np.arange(len(chosen)))
        folds.append(replace(with_them, fold=number))
        start += len(chosen)
    return np.concatenate(rows), np.concatenate(y), np.concatenate(weight), folds


# --- judging ---------------------------------------------------------------------------------------------------


def known_truth(corpus: Path | str) -> pd.DataFrame | None:
    """What the noisy clips of the synthetic demo corpus really are (sound_id, class); None for any other corpus.

    To judge a filter with, never to choose a clip or a label.
    """
    path = Path(corpus) / "hidden" / "noisy_truth.csv"
    if not path.is_file():
        return None
    return read_table(path)[["sound_id", "class"]].astype({"sound_id": str})


def judged(kept: pd.DataFrame, truth: pd.DataFrame) -> tuple[dict[str, float], pd.DataFrame]:
    """How right a strategy is.

    Parameters
    ----------
    kept : columns :data:`KEPT`
    truth : sound_id, class of all clips that could have been kept

    Returns
    -------
    overall : precision (share of kept clips with the right label; NaN if none) and recall (share of all clips
        that are kept with the right label)
    by class : class, n (clips of this class), kept (clips given this label), precision, recall; NaN where
        nothing is kept, or no clip has the class
    """
    true = truth.set_index("sound_id")["class"]
    right = (true.reindex(kept["sound_id"]).to_numpy(object) == kept["label"].to_numpy(object)).astype(float)
    given = kept["label"].to_numpy(object)
    rows = []
    for code in CLASSES:
        n, called = int((true == code).sum()), given == code
        hits = float(right[called].sum())
        row = {"class": code, "n": n, "kept": int(called.sum())}
        rows.append(
            row | {"precision": hits / row["kept"] if row["kept"] else np.nan, "recall": hits / n if n else np.nan}
        )
    overall = {
        "precision": float(right.mean()) if len(right) else float("nan"),
        "recall": float(right.sum() / len(true)) if len(true) else float("nan"),
    }
    return overall, pd.DataFrame(rows)


# --- clips of the labelled corpus in the noisy one --------------------------------------------------------------


def duplicates(
    dev: pd.DataFrame,
    noisy: pd.DataFrame,
    dev_audio: np.ndarray | None = None,
    noisy_audio: np.ndarray | None = None,
    *,
    cosine: float = 0.997,
    same_uploader: float = 0.99,
) -> pd.DataFrame:
    """Noisy clips that are clips of the labelled corpus again; to be left out before the vote.

    Parameters
    ----------
    dev, noisy : sound_id, and where known uploader and path (a sound file; "" or gone: not looked at)
    dev_audio, noisy_audio : (n, d), optional
        Audio embeddings in row order.
    cosine : two clips whose embeddings are at least so near are one sound. 0.997 was chosen on the synthetic
        demo corpus and its log-mel embeddings: no two of its clips are so near, three quarters of clips that
        were encoded again as mp3 or ogg are, all that were encoded again without loss.
    same_uploader : the same for two clips of one uploader

    Returns
    -------
    table, one row per such clip, sorted by sound_id: sound_id, duplicate_of, reason: the first that holds of
    "same id", "same file" (content, by SHA-256), "same sound" (embedding), "same uploader, near sound".
    """
    found: dict[str, tuple[str, str]] = {
        i: (i, "same id") for i in sorted(set(noisy["sound_id"]) & set(dev["sound_id"]))
    }
    for i, other in _same_file(dev, noisy):
        found.setdefault(i, (other, "same file"))
    if dev_audio is not None and noisy_audio is not None:
        near = _near(dev, noisy, dev_audio, noisy_audio, cosine, same_uploader)
        for reason in ("same sound", "same uploader, near sound"):
            for i, other, why in near:
                if why == reason:
                    found.setdefault(i, (other, reason))
    rows = [(i, *found[i]) for i in sorted(found)]
    return pd.DataFrame(rows, columns=["sound_id", "duplicate_of", "reason"]).astype(str)


def _same_file(dev: pd.DataFrame, noisy: pd.DataFrame) -> list[tuple[str, str]]:
    """(noisy id, dev id) of files with equal content; only files of equal size are read."""
    if "path" not in dev or "path" not in noisy:
        return []

    def sizes(frame: pd.DataFrame) -> dict[str, tuple[int, Path]]:
        paths = {i: Path(p) for i, p in zip(frame["sound_id"], frame["path"].fillna(""), strict=True) if p}
        return {i: (p.stat().st_size, p) for i, p in paths.items() if p.is_file()}

    known, new = sizes(dev), sizes(noisy)
    both = {s for s, _ in known.values()} & {s for s, _ in new.values()}
    content = {sha256_file(p): i for i, (s, p) in reversed(known.items()) if s in both}  # the first of equal ones
    hashes = {i: sha256_file(p) for i, (s, p) in new.items() if s in both}
    return [(i, content[h]) for i, h in hashes.items() if h in content]


def _near(
    dev: pd.DataFrame,
    noisy: pd.DataFrame,
    dev_audio: np.ndarray,
    noisy_audio: np.ndarray,
    cosine: float,
    same_uploader: float,
) -> list[tuple[str, str, str]]:
    """(noisy id, dev id, reason) of each noisy clip's nearest dev clip that is near enough, 1,000 clips at a time."""
    for frame, audio, name in ((dev, dev_audio, "dev_audio"), (noisy, noisy_audio, "noisy_audio")):
        if len(frame) != len(audio):
            raise HacError(f"{len(audio)} embeddings for {len(frame)} clips", name, "one row per clip, same order")
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (dev_audio, noisy_audio))
    names = [f["uploader"].fillna("") if "uploader" in f else pd.Series("", index=f.index) for f in (dev, noisy)]
    codes = pd.factorize(pd.concat(names))[0]
    unknown = np.concatenate([(n == "").to_numpy(bool) for n in names])
    codes = np.where(unknown, -1 - np.arange(len(codes)), codes)  # nobody is an uploader of his own
    ids, others, out = noisy["sound_id"].tolist(), dev["sound_id"].tolist(), []
    for start in range(0, len(b), 1000):
        block = b[start : start + 1000] @ a.T
        own = codes[len(dev) + start :][: len(block), None] == codes[None, : len(dev)]
        for reason, score, least in (
            ("same sound", block, cosine),
            ("same uploader, near sound", np.where(own, block, -1), same_uploader),
        ):
            best = score.argmax(axis=1)
            for k in np.flatnonzero(score[np.arange(len(score)), best] >= least):
                out.append((ids[start + k], others[best[k]], reason))
    return out

"""A canary for leaks: nothing about the scored clips may reach the model.

The protocol is run twice, the second time with other scored clips: embeddings × 1000, texts of words that no
other clip has, labels of other classes. Whatever the trained models then say about clips that did not change must
be the same bytes. Three leaks, planted on purpose, must each be caught.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")

from sklearn.preprocessing import StandardScaler

from hac_utils import protocol
from hac_utils.baselines import LogisticHead, NeighboursHead
from hac_utils.hatr import HATR
from hac_utils.heads import ConcatHead, GatedFusionHead, MLPHead
from hac_utils.splits import folds_of, official5, uploader5
from hac_utils.taxonomy import CLASSES

WORDS = [f"{a}{b}" for a in ("bark", "drum", "wind", "voice", "rain", "piano") for b in ("ing", "er", "y", "s", "")]


@dataclass(frozen=True)
class World:
    """Clips of a small data set: embeddings (n, 8), texts and labels; `other` (30, 8) and its texts never change."""

    X: np.ndarray
    texts: list[str]
    frame: pd.DataFrame
    other: np.ndarray
    other_texts: list[str]


@pytest.fixture(scope="module")
def world() -> World:
    rng = np.random.default_rng(0)
    n = 23 * 8
    y = np.tile(CLASSES, 8)
    centres = rng.normal(size=(23, 8))
    X = np.repeat(centres[None], 8, axis=0).reshape(n, 8) + rng.normal(size=(n, 8))
    texts = [" ".join(rng.choice(WORDS, 6)) for _ in range(n)]
    frame = pd.DataFrame(
        {"sound_id": [f"s{i}" for i in range(n)], "class": y, "uploader": [f"u{i % 40}" for i in range(n)]}
    )
    other = rng.normal(size=(30, 8)).astype(np.float32)
    return World(X.astype(np.float32), texts, frame, other, [" ".join(rng.choice(WORDS, 6)) for _ in range(30)])


def spoilt(world: World, rows: np.ndarray) -> World:
    """The same world with other clips in these rows."""
    X, texts, frame = world.X.copy(), list(world.texts), world.frame.copy()
    X[rows] *= 1000
    for k, i in enumerate(rows):
        texts[i] = f"zyx{k} qqq{k} zyxqqq"
    labels = frame["class"].to_numpy().copy()
    labels[rows] = [CLASSES[(CLASSES.index(c) + 11) % 23] for c in labels[rows]]
    return replace(world, X=X, texts=texts, frame=frame.assign(**{"class": labels}))


def answers(world, folds, estimator, *, prepare=None):
    """What the fold's model says about its validation clips and about `other`: bytes, and its history."""

    def inputs(_, fold):
        X, other = (world.X, world.other) if prepare is None else prepare(world, fold)
        return {"dev": X, "val": X[fold.val], "other": other}

    (fold,) = folds
    ids = {"val": [f"v{i}" for i in range(len(fold.val))], "other": [f"o{i}" for i in range(len(world.other))]}
    fit = protocol.cross_fit({"m": estimator}, inputs, world.frame, folds, [0], extra_ids=ids, workers=1)
    said = {name: table[list(CLASSES)].to_numpy().tobytes() for name, table in fit.extra.items()}
    return said | {"history": fit.history.to_csv(index=False), "scored": fit.scored[list(CLASSES)].to_numpy().tobytes()}


def caught(world, folds, estimator, *, prepare=None) -> list[str]:
    """Names of the answers that moved although only the scored clips of the fold changed; [] if none leaked."""
    before = answers(world, folds, estimator, prepare=prepare)
    after = answers(spoilt(world, folds[0].scored), folds, estimator, prepare=prepare)
    assert before.pop("scored") != after.pop("scored"), "the canary changed nothing"
    return [name for name in before if before[name] != after[name]]


def first_fold(world, split=official5):
    return [next(folds_of(split(world.frame, folds=4)[0], world.frame))]


HEADS = {
    "mlp": MLPHead(epochs=3, width=8, batch_size=32),
    "concat": ConcatHead(epochs=3, width=8, batch_size=32),
    "gated": GatedFusionHead(epochs=3, width=8, batch_size=32, loss="hierarchical"),
    "hatr": HATR(epochs=2, batch_size=32),
    "logistic": LogisticHead(),
    "neighbours": NeighboursHead(k=3),
}


@pytest.mark.parametrize("name", HEADS)
def test_no_head_learns_anything_from_the_clips_it_is_scored_on(world, name):
    assert caught(world, first_fold(world), HEADS[name]) == []


def test_nothing_leaks_over_uploader_disjoint_folds(world):
    assert caught(world, first_fold(world, uploader5), HEADS["mlp"]) == []


def test_the_canary_sees_when_a_training_clip_changes(world):
    """Not vacuous: the same change in one training clip moves every answer."""
    folds = first_fold(world)
    before = answers(world, folds, HEADS["mlp"])
    after = answers(spoilt(world, folds[0].train[:1]), folds, HEADS["mlp"])
    assert all(before[name] != after[name] for name in before)


def standardised(rows):
    def prepare(world, fold):
        scaler = StandardScaler().fit(world.X[rows(world, fold)])
        return scaler.transform(world.X).astype(np.float32), scaler.transform(world.other).astype(np.float32)

    return prepare


def test_standardisation_fitted_on_all_clips_is_caught(world):
    folds = first_fold(world)
    honest = standardised(lambda world, fold: fold.train)
    leak = standardised(lambda world, fold: np.arange(len(world.X)))
    assert caught(world, folds, HEADS["mlp"], prepare=honest) == []
    assert caught(world, folds, HEADS["mlp"], prepare=leak) == ["val", "other", "history"]


@pytest.mark.parametrize("name", ["mlp", "hatr"])
def test_early_stopping_on_the_scored_part_is_caught(world, name):
    """The report's own protocol, too: best epoch on the scored fold."""
    (fold,) = first_fold(world)
    head = {"mlp": MLPHead(epochs=12, width=8, lr=0.01), "hatr": HATR(epochs=8, batch_size=32, patience=3)}[name]
    assert caught(world, [fold], head) == []
    assert {"other", "history"} <= set(caught(world, [replace(fold, val=fold.scored)], head))


def embedded(world, folds, leak=False):
    """Text embeddings per fold of the house, or with a vocabulary from all clips."""
    fitted = [replace(f, train=np.arange(len(world.texts))) for f in folds] if leak else folds
    return protocol.embed_texts_per_fold("tfidf", world.texts, fitted, {"other": world.other_texts}, workers=1)


@pytest.mark.parametrize("leak", [False, True])
def test_a_text_vocabulary_fitted_with_scored_clips_is_caught(world, leak):
    folds = first_fold(world)
    changed = spoilt(world, folds[0].scored)
    (before,), (after,) = embedded(world, folds, leak), embedded(changed, folds, leak)
    unchanged = np.setdiff1d(np.arange(len(world.texts)), folds[0].scored)
    same = [
        before["other"].tobytes() == after["other"].tobytes(),
        before["dev"][unchanged].tobytes() == after["dev"][unchanged].tobytes(),
    ]
    assert same == ([False, False] if leak else [True, True])
    assert before["dev"][folds[0].scored].tobytes() != after["dev"][folds[0].scored].tobytes()


def test_a_head_on_texts_says_the_same_when_only_scored_texts_change_and_a_leaky_vocabulary_is_caught(world):
    folds = first_fold(world)

    def prepare(leak):
        def texts(world, fold):
            (vectors,) = embedded(world, folds, leak)
            return vectors["dev"], vectors["other"]

        return texts

    assert caught(world, folds, HEADS["mlp"], prepare=prepare(False)) == []
    assert caught(world, folds, HEADS["mlp"], prepare=prepare(True)) == ["val", "other", "history"]

"""Cross-fitting: who is scored by whom, and that nothing scored was seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")

from sklearn.base import BaseEstimator, ClassifierMixin

from hac_utils import protocol
from hac_utils.splits import folds_of, official5
from hac_utils.taxonomy import CLASSES


class Memory(ClassifierMixin, BaseEstimator):
    """Knows by heart what it was fitted on: certain and right there, else all mass on class 0."""

    def __init__(self, seed=0):
        self.seed = seed

    def fit(self, X, y, val=None, sample_weight=None):
        self.classes_ = np.array(sorted(CLASSES))
        self.known_ = dict(zip(X[:, 0].tolist(), y, strict=True))
        self.history_ = [{"epoch": 1, "loss": float(len(X)), "val_hF": None if val is None else float(len(val[0]))}]
        self.n_parameters_, self.source_ = len(X), "memory"
        return self

    def predict_proba(self, X):
        place = [self.classes_.tolist().index(self.known_.get(x, CLASSES[0])) for x in X[:, 0].tolist()]
        return np.eye(23)[place]


@pytest.fixture
def frame():
    n = 23 * 6
    return pd.DataFrame(
        {
            "sound_id": [f"s{i}" for i in range(n)],
            "class": np.tile(CLASSES[1:] + CLASSES[:1], 6),
            "uploader": "x",
        }
    )


def test_no_scored_clip_was_in_its_fold_s_training_part(frame):
    X = np.arange(len(frame), dtype=float)[:, None]
    split, _ = official5(frame, folds=3)
    fit = protocol.cross_fit(
        {"memory": Memory()}, lambda s, f: {"dev": X}, frame, list(folds_of(split, frame)), [0, 1], workers=1
    )
    assert sorted(fit.scored["sound_id"]) == sorted([*frame["sound_id"], *frame["sound_id"]])
    assert (fit.scored[CLASSES[0]] == 1).all()  # a clip that was learned would have its own class
    assert set(fit.scored["seed"]) == {0, 1} and set(fit.scored["fold"]) == {0, 1, 2}


def test_the_leak_is_visible_when_the_scored_part_is_trained_on(frame):
    X = np.arange(len(frame), dtype=float)[:, None]
    split, _ = official5(frame, folds=3)
    leaky = [protocol.with_training_rows(f, more=f.scored) for f in folds_of(split, frame)]
    fit = protocol.cross_fit({"memory": Memory()}, lambda s, f: {"dev": X}, frame, leaky, [0], workers=1)
    assert (fit.scored[CLASSES[0]] == 1).mean() < 0.1


def test_other_corpora_are_predicted_by_each_model_and_named_by_their_ids(frame):
    X = np.arange(len(frame), dtype=float)[:, None]
    split, _ = official5(frame, folds=3)
    folds = list(folds_of(split, frame))[:1]
    inputs = {"dev": X, "evaluation": X[:2] + 1000}
    fit = protocol.cross_fit(
        {"memory": Memory()},
        lambda s, f: inputs,
        frame,
        folds,
        [4],
        extra_ids={"evaluation": ["e1", "e2"]},
        workers=1,
    )
    assert fit.extra["evaluation"][["sound_id", "seed", "fold"]].values.tolist() == [
        ["e1", 4, 0],
        ["e2", 4, 0],
    ]
    assert fit.facts == {"memory": {"n_parameters": len(folds[0].train), "source": "memory"}}
    assert fit.history[["system", "seed", "fold", "val_hF"]].values.tolist() == [
        ["memory", 4, 0, float(len(folds[0].val))]
    ]


def test_filters_and_additions_touch_the_training_part_only(frame):
    split, _ = official5(frame, folds=3)
    fold = next(folds_of(split, frame))
    fewer = protocol.with_training_rows(fold, keep=np.arange(30))
    assert set(fewer.train) == set(fold.train) & set(range(30))
    more = protocol.with_training_rows(fold, more=np.array([900, 901]))
    assert more.train[-2:].tolist() == [900, 901]
    for changed in (fewer, more):
        assert changed.scored is fold.scored and changed.val is fold.val

"""Plain picks: against scikit-learn itself, and against answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hac_utils import protocol
from hac_utils.baselines import LogisticHead, NeighboursHead, ZeroShot, class_prompts
from hac_utils.errors import HacError
from hac_utils.splits import folds_of, official5
from hac_utils.taxonomy import CLASSES

LEARNERS = [LogisticHead, NeighboursHead]


def blobs(n=230, d=12, seed=0, spread=0.4, classes=CLASSES):
    """Noisy points around one centre per class; the centres do not depend on `seed`."""
    rng = np.random.default_rng(seed)
    y = np.array(classes)[np.arange(n) % len(classes)]
    centres = np.random.default_rng(99).normal(size=(len(CLASSES), d))
    X = centres[[CLASSES.index(c) for c in y]] + spread * rng.normal(size=(n, d))
    return X.astype(np.float32), y


def test_logistic_regression_is_scikit_learns_with_the_scaler_of_the_training_rows():
    X, y = blobs(spread=1.0)
    X[:, 0] *= 1000
    test_X = blobs(seed=1, spread=1.0)[0]
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000)).fit(X.astype(float), y)
    ours = LogisticHead(C=0.5).fit(X, y)
    assert ours.classes_.tolist() == theirs.classes_.tolist()
    np.testing.assert_allclose(ours.predict_proba(test_X), theirs.predict_proba(test_X.astype(float)), atol=1e-12)
    assert ours.n_parameters_ == 23 * 12 + 23 and ours.history_ == []


def test_logistic_regression_of_two_classes_is_scikit_learns():
    X, y = blobs(n=40, classes=("fx-o", "m-sp"), spread=2.0)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X.astype(float), y)
    ours = LogisticHead(classes=["fx-o", "m-sp"]).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X.astype(float)), atol=1e-12)
    assert ours.n_parameters_ == 12 + 1


def test_neighbours_are_those_of_the_smallest_angle_whatever_the_length():
    X, y = blobs(spread=1.0)
    test_X = blobs(seed=1, spread=1.0)[0]
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    theirs = KNeighborsClassifier(7, weights="uniform").fit(unit, y)  # Euclidean order of unit vectors
    expected = theirs.predict_proba(test_X / np.linalg.norm(test_X, axis=1, keepdims=True))
    lengths = np.linspace(0.1, 30, len(X), dtype=np.float32)[:, None]
    ours = NeighboursHead(k=7, weights="uniform").fit(X * lengths, y)
    np.testing.assert_allclose(ours.predict_proba(test_X), expected, atol=1e-12)
    assert ours.n_parameters_ == 0
    assert (NeighboursHead(k=500).fit(X, y).predict(X) == y).all()  # a clip's own vote, at distance 0, decides


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_class_missing_in_training_keeps_its_column_with_probability_0(learner):
    X, y = blobs(classes=CLASSES[5:8])
    head = learner().fit(X, y)
    proba = head.predict_proba(X)
    assert proba.shape == (230, 23) and head.classes_.tolist() == sorted(CLASSES)
    seen = np.isin(head.classes_, CLASSES[5:8])
    assert (proba[:, ~seen] == 0).all() and (head.predict(X) == y).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_same_bytes_come_out_twice_and_an_empty_batch_is_empty(learner):
    X, y = blobs(spread=1.5)
    first, again = (learner().fit(X, y).predict_proba(X) for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert learner().fit(X, y).predict_proba(X[:0]).shape == (0, 23)


def test_sample_weights_of_zero_remove_clips_from_scaler_and_regression():
    X, y = blobs()
    odd = X.copy()
    odd[115:] *= -50
    weight = np.r_[np.ones(115), np.zeros(115)]
    part, weighted = LogisticHead().fit(X[:115], y[:115]), LogisticHead().fit(odd, y, sample_weight=weight)
    np.testing.assert_allclose(weighted.predict_proba(X), part.predict_proba(X), atol=1e-3)
    with pytest.raises(HacError, match="sample weights mean nothing here"):
        NeighboursHead().fit(X, y, sample_weight=weight)


def test_zero_shot_takes_the_nearest_prompt_and_its_probabilities_are_the_softmax_of_scaled_cosines():
    vectors = np.eye(23, 30) * np.linspace(1, 9, 23)[:, None]  # lengths do not matter
    X = np.zeros((3, 30))
    X[0, 4], X[1, 22], X[2, [7, 8]] = 2.0, 0.1, [0.6, 0.8]
    head = ZeroShot(vectors, scale=10.0).fit(X, ["m-sp"] * 3)
    assert head.predict(X).tolist() == [CLASSES[4], CLASSES[22], CLASSES[8]]
    proba = pd.DataFrame(head.predict_proba(X), columns=head.classes_)
    assert head.classes_.tolist() == sorted(CLASSES)
    assert proba[CLASSES[4]][0] == pytest.approx(np.exp(10) / (np.exp(10) + 22), rel=1e-6)
    total = np.exp(6) + np.exp(8) + 21
    assert proba[CLASSES[7]][2] == pytest.approx(np.exp(6) / total, rel=1e-5)
    assert proba[CLASSES[8]][2] == pytest.approx(np.exp(8) / total, rel=1e-5)
    assert head.n_parameters_ == 0 and ZeroShot(vectors).scale == 100.0


def test_zero_shot_learns_nothing_from_the_training_part():
    rng = np.random.default_rng(0)
    vectors, X = rng.normal(size=(23, 8)), rng.normal(size=(50, 8))
    answers = [ZeroShot(vectors).fit(x, y).predict_proba(X) for x, y in ((X, ["m-sp"] * 50), (X[:2], ["fx-o", "m-m"]))]
    assert answers[0].tobytes() == answers[1].tobytes()


def test_there_is_one_prompt_per_class_in_taxonomy_order():
    prompts = class_prompts()
    assert len(set(prompts)) == 23
    assert prompts[0] == "This is a sound of solo percussion (music)."
    assert prompts[CLASSES.index("is-p")] == "This is a sound of percussion (instrument samples)."
    assert class_prompts("{code}: {family}")[-1] == "ss-s: soundscapes"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a sound", "no placeholder"),
        ("{family}", "placeholders 1 \\(family\\)"),
        ("{klass}", "klass"),
        ("{name", "not a template"),
        ("{name.upper}{0}", "placeholders"),
    ],
)
def test_a_bad_template_is_one_clear_error(template, message):
    with pytest.raises(HacError, match=message):
        class_prompts(template)


@pytest.mark.parametrize("estimator", [LogisticHead(C=0.1), NeighboursHead(k=3), ZeroShot(np.ones((23, 12)))])
def test_the_protocol_runs_them_as_it_runs_heads(estimator):
    X, y = blobs()
    frame = pd.DataFrame({"sound_id": [f"s{i}" for i in range(len(y))], "class": y, "uploader": ""})
    folds = list(folds_of(official5(frame, folds=2)[0], frame))
    fit = protocol.cross_fit({"plain": estimator}, lambda s, f: {"dev": X}, frame, folds, [0], workers=1)
    assert sorted(fit.scored["sound_id"]) == sorted(frame["sound_id"]) and fit.history.empty
    truth = frame.set_index("sound_id")["class"][fit.scored["sound_id"]].to_numpy()
    hits = fit.scored[list(CLASSES)].idxmax(axis=1).to_numpy() == truth
    assert hits.mean() > 0.9 or isinstance(estimator, ZeroShot)
    assert clone(estimator).get_params().keys() == estimator.get_params().keys()


def test_bad_input_is_one_clear_error():
    X, y = blobs(n=46)
    nan = X.copy()
    nan[3, 2] = np.nan
    vectors = np.ones((23, 12))
    fitted = LogisticHead().fit(X, y)
    cases = [
        (lambda: fitted.predict_proba(X[:, :4]), "4 columns, the model was fitted on 12"),
        (lambda: fitted.predict_proba(nan), "NaN or infinite in rows 1 \\(3\\)"),
        (lambda: NeighboursHead().fit(nan, y), "NaN or infinite"),
        (lambda: LogisticHead().fit(X, ["zz"] * 46), "unknown labels"),
        (lambda: LogisticHead().fit(X, y[:40]), "46 rows, but labels of shape \\(40,\\)"),
        (lambda: NeighboursHead().fit(X, ["m-sp"] * 46), "only one class in y: m-sp"),
        (lambda: NeighboursHead().fit(X[:0], y[:0]), "no clips"),
        (lambda: LogisticHead().fit(X[0], y), "shape \\(n, d\\)"),
        (lambda: LogisticHead(C=0.0).fit(X, y), "C is 0"),
        (lambda: NeighboursHead(k=0).fit(X, y), "k is 0"),
        (lambda: NeighboursHead(weights="near").fit(X, y), "weights cannot be 'near'"),
        (lambda: ZeroShot().fit(X), "class_vectors must be numbers of shape \\(23, d\\)"),
        (lambda: ZeroShot(vectors[:5]).fit(X), "got shape \\(5, 12\\)"),
        (lambda: ZeroShot(vectors * 0).fit(X), "zero, NaN or infinite row"),
        (lambda: ZeroShot(vectors).fit(X[:, :4]), "4 columns, the model was fitted on 12"),
        (lambda: ZeroShot(vectors, scale=0).fit(X), "scale is 0"),
    ]
    for call, message in cases:
        with pytest.raises(HacError, match=message):
            call()

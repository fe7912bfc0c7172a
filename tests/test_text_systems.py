"""Text systems: what they read, what they learn from, what they refuse; the ladder with and without sharing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from hac_utils import splits, text_members
from hac_utils.errors import HacError
from hac_utils.metrics import hierarchical_f1
from hac_utils.protocol import cross_fit
from hac_utils.schema import argmax_codes, proba_of, validate_predictions
from hac_utils.taxonomy import CLASSES
from hac_utils.text_members import MEMBERS, clean, spoken, text_rows
from hac_utils.text_systems import TextSystem, cross_fit_ladder, ladder

WORDS = {
    "is-k": ["piano", "chord", "grand", "note"], "is-p": ["kick", "snare", "drum", "hit"],
    "fx-a": ["dog", "bark", "cat", "meow"], "ss-u": ["traffic", "street", "city", "horns"],
}  # fmt: skip
REAL = Path(__file__).parents[2] / "shared" / "real" / "bsd10k_text"


def fake_encode(texts):
    """A vector per text: the sum of fixed random vectors of its words."""
    out = np.zeros((len(texts), 16), np.float32)
    for i, text in enumerate(texts):
        for word in clean(text).split() or ["nothing"]:
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little")
            out[i] += np.random.default_rng(seed).normal(size=16)
    return out


def corpus(n=160, seed=0, silent=0.0):
    rng = np.random.default_rng([seed, n])
    rows = []
    for i in range(n):
        code = list(WORDS)[i % len(WORDS)]
        pool = WORDS[code] + ["loud", "take", "wav"]
        title, tags = (list(rng.choice(pool, k)) for k in (2, 3))
        empty = rng.random() < silent
        rows.append(
            (
                f"{i}",
                code,
                f"u{i % 17}",
                *("", "") * empty,
                *(("_".join(title) + ".wav", ",".join(tags)) * (not empty)),
                "",
            )
        )
    return pd.DataFrame(rows, columns=["sound_id", "class", "uploader", "title", "tags", "description"])


@pytest.fixture(scope="module")
def small():
    frame = corpus()
    return text_rows(frame, fake_encode), frame["class"].to_numpy(), frame


# what is read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("BirdSong03_final.WAV", "bird song 03 final"), ("field-recording", "field recording"), ("A#4.aif", "a 4"),
        ("20090325.walking.01.wav", "20090325 walking 01"), ("wavelength", "wavelength"), ("", ""), ("Ünï_Straße", "ünï straße"),
    ],
)  # fmt: skip
def test_titles_are_taken_apart_into_lower_case_words(title, words):
    assert clean(title) == words


def test_rows_hold_text_title_and_tags_and_unit_vectors_of_each(small):
    X, _, frame = small
    assert X.shape == (160,) and X["vectors"].shape == (160, 3, 16)
    assert np.allclose(np.linalg.norm(X["vectors"], axis=2), 1, atol=1e-6)
    assert X["title"].tolist() == frame["title"].tolist() and X["text"][0].startswith(frame["title"][0])
    wanted = fake_encode([frame["tags"][3].replace(",", " ")])[0]
    assert np.allclose(X["vectors"][3, 2], wanted / np.linalg.norm(wanted), atol=1e-6)
    assert text_rows(frame).dtype.names == ("text", "title", "tags")


def test_a_clip_has_text_when_it_has_a_letter_or_digit():
    frame = pd.DataFrame({"title": ["", "...", "7"], "tags": ["", ",,", ""], "description": [None, "", ""]})
    assert spoken(text_rows(frame)).tolist() == [False, False, True]


# what is learned ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_alone_learns_the_classes(small, name):
    X, y, _ = small
    system = TextSystem((name,)).fit(X[:120], y[:120])
    p = system.predict_proba(X[120:])
    assert p.shape == (40, 23) and p.dtype == np.float64 and np.allclose(p.sum(1), 1) and (p >= 0).all()
    assert hierarchical_f1(y[120:], system.predict(X[120:])) > 0.8
    assert system.classes_.tolist() == sorted(CLASSES) and system.n_parameters_ > 0 and system.history_ == []


def test_the_scores_of_the_kernel_are_those_of_the_formula(small):
    X, y, _ = small
    index = np.unique(y, return_inverse=True)[1]
    member = MEMBERS["kernel"][0](0).fit(X[:100], index[:100], np.ones(100), 4)
    V = X["vectors"][:, 0].astype(np.float64)
    V /= np.linalg.norm(V, axis=1, keepdims=True)
    K = np.exp(-((V[:, None, :] - V[None, :100]) ** 2).sum(-1))
    n = np.bincount(index[:100])
    w = 1 / n[index[:100]]
    w /= w.mean()
    A = np.linalg.solve(K[:100] + np.diag(1.0 / w), 2.0 * np.eye(4)[index[:100]] - 1)
    assert np.abs(member.scores(X[100:]) - K[100:] @ A).max() < 1e-4


def test_a_clip_of_double_weight_counts_as_the_clip_twice(small):
    X, y, _ = small
    twice = np.r_[np.arange(80), np.arange(10)]
    weight = np.ones(80)
    weight[:10] = 2
    a = TextSystem(("kernel",)).fit(X[:80], y[:80], sample_weight=weight).predict_proba(X[80:])
    b = TextSystem(("kernel",)).fit(X[twice], y[twice]).predict_proba(X[80:])
    plain = TextSystem(("kernel",)).fit(X[:80], y[:80]).predict_proba(X[80:])
    assert np.abs(a - b).max() < 1e-4 < 1e-2 < np.abs(a - plain).max()


def test_clips_of_weight_zero_are_not_learned_from(small):
    X, y, _ = small
    weight = np.r_[np.ones(80), np.zeros(40)]
    wrong = np.r_[y[:80], np.roll(y[80:120], 1)]
    a = TextSystem().fit(X[:120], wrong, sample_weight=weight).predict_proba(X[120:])
    assert np.allclose(a, TextSystem().fit(X[:80], y[:80]).predict_proba(X[120:]), atol=1e-12)


def test_the_family_weight_adds_the_scores_of_the_family(small):
    X, y, _ = small
    plain, with_family = (TextSystem(("kernel",), family_weight=f, sharpness=1.0).fit(X, y) for f in (0.0, 0.5))
    z, w = (np.log(s.predict_proba(X)) for s in (plain, with_family))
    z -= z.mean(1, keepdims=True)
    family = np.array([c.split("-")[0] for c in plain.classes_])
    wanted = z + 0.5 * np.stack([z[:, family == f].sum(1) for f in family], axis=1)
    assert np.allclose(w - w.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True), atol=1e-9)


def test_kernels_get_their_share_and_the_other_members_split_the_rest(small):
    X, y, _ = small
    system = TextSystem(("kernel", "words", "clean words"), kernel_share=0.4).fit(X, y)
    ones = [np.full((1, 23), v) for v in (1.0, 10.0, 100.0)]
    assert np.allclose(system._mean(ones, 0.4, 0.0), 0.4 + 3.0 + 30.0)


def test_without_refit_the_validation_part_moves_what_is_chosen_and_nothing_else(small):
    X, y, _ = small
    system = TextSystem().fit(X[:100], y[:100], val=(X[100:130], y[100:130]))
    assert np.array_equal(system.predict_proba(X[130:]), TextSystem().fit(X[:100], y[:100]).predict_proba(X[130:]))
    chosen = TextSystem(choose=True).fit(X[:100], y[:100], val=(X[100:130], y[100:130]))
    fixed = TextSystem(**chosen.chosen_).fit(X[:100], y[:100])
    assert np.array_equal(chosen.predict_proba(X[130:]), fixed.predict_proba(X[130:]))
    assert chosen.chosen_["sharpness"] != TextSystem().sharpness


def test_with_refit_the_members_learn_from_both_parts_and_the_choice_is_made_before(small):
    X, y, _ = small
    val = (X[100:130], y[100:130])
    both = TextSystem(refit=True).fit(X[:100], y[:100], val=val).predict_proba(X[130:])
    assert np.array_equal(both, TextSystem().fit(X[:130], y[:130]).predict_proba(X[130:]))
    chosen = TextSystem(choose=True, refit=True).fit(X[:100], y[:100], val=val)
    assert chosen.chosen_ == TextSystem(choose=True).fit(X[:100], y[:100], val=val).chosen_


def test_the_vocabulary_is_that_of_the_training_texts(small):
    X, y, _ = small
    marked = X.copy()
    marked["title"][120:] = "zyzzyva"
    marked["text"][120:] = "zyzzyva"
    for name in ("words", "clean words", "words by field"):
        system = TextSystem((name,)).fit(X[:100], y[:100], val=(marked[120:], y[120:]))
        known = set().union(*(v.vocabulary_ for v in system._members[0].vectorizers_))
        assert "piano" in known and not any("zyz" in k for k in known)


def test_a_clip_without_text_gets_the_class_shares_of_training_clips_without_text():
    frame = corpus(n=200, silent=0.2)
    X, y = text_rows(frame, fake_encode), frame["class"].to_numpy()
    system = TextSystem().fit(X, y)
    silent = ~spoken(X)
    assert 20 < silent.sum() < 70
    counts = np.array([(y[silent] == c).sum() + (y == c).mean() for c in system.classes_])
    assert np.allclose(system.predict_proba(X[silent]), counts / counts.sum())
    alone = TextSystem().fit(X[~silent], y[~silent])
    assert np.array_equal(alone.predict_proba(X[~silent]), system.predict_proba(X[~silent]))


def test_strings_are_read_as_they_are(small, monkeypatch):
    monkeypatch.setattr(text_members, "embed_alone", fake_encode)
    _, y, frame = small
    texts = (frame["title"] + " " + frame["tags"]).tolist()
    system = TextSystem().fit(texts[:120], y[:120], val=(texts[120:140], y[120:140]))
    assert (system.predict(texts[140:]) == y[140:]).mean() > 0.9
    assert system.predict_proba([""]).argmax() == system.prior_.argmax() and system.predict_proba([]).shape == (0, 23)


def test_two_classes_are_enough_and_a_class_never_seen_comes_last(small):
    X, y, _ = small
    two = np.isin(y, ["is-k", "fx-a"])
    for name in MEMBERS:
        system = TextSystem((name,), family_weight=0.0).fit(X[two], y[two])
        p = system.predict_proba(X[two])
        seen = np.isin(system.classes_, ["is-k", "fx-a"])
        assert (p[:, seen].max(1) > p[:, ~seen].max(1)).all() and (system.predict(X[two]) == y[two]).mean() > 0.9


def test_the_same_seed_gives_the_same_bytes(small):
    X, y, _ = small
    a, b = (TextSystem(seed=3, choose=True).fit(X[:90], y[:90], val=(X[90:], y[90:])).predict_proba(X) for _ in "ab")
    assert a.tobytes() == b.tobytes()


# what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": ()}, "members is"), ({"members": "words"}, "members is"), ({"members": ("word",)}, "no member 'word'"),
        ({"kernel_share": 1.5}, "kernel_share"), ({"family_weight": -1}, "family_weight"), ({"sharpness": "x"}, "sharpness"),
        ({"seed": -1}, "seed"), ({"classes": ["m-x"]}, "unknown class"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused_by_name(small, change, message):
    with pytest.raises(HacError, match=message):
        TextSystem(**change).fit(small[0], small[1])


def test_input_that_cannot_be_learned_from_is_one_clear_error(small):
    X, y, _ = small
    with pytest.raises(HacError, match="unknown labels: 1 \\(nan\\)"):
        TextSystem().fit(X, np.r_[y[:-1].astype(object), [np.nan]])
    with pytest.raises(HacError, match="159|160 rows"):
        TextSystem().fit(X, y[:-1])
    with pytest.raises(HacError, match="no two classes"):
        TextSystem().fit(X, np.full(len(X), "fx-a"))
    with pytest.raises(HacError, match="all training texts are empty"):
        TextSystem().fit(["", "..."] * 10, ["fx-a", "ss-u"] * 10)
    with pytest.raises(HacError, match="holds no texts but float"):
        TextSystem().fit([1.0, 2.0], ["fx-a", "ss-u"])
    with pytest.raises(HacError, match="weights"):
        TextSystem().fit(X, y, sample_weight=np.full(len(X), -1.0))
    broken = X.copy()
    broken["vectors"][3] = np.nan
    with pytest.raises(HacError, match="NaN"):
        TextSystem().fit(broken, y)


# the ladder ---------------------------------------------------------------------------------------


def test_the_ladder_gives_what_the_protocol_gives_with_every_member_fitted_once(small):
    X, _, frame = small
    folds = list(splits.folds_of(splits.uploader5(frame, folds=2)[0], frame))
    shared, seconds = cross_fit_ladder(X, frame, folds, [0], workers=1)
    alone = cross_fit(ladder(), lambda name, fold: {"dev": X}, frame, folds, [0], workers=1).scored
    pd.testing.assert_frame_equal(shared, alone)
    validate_predictions(shared)
    assert list(seconds) == list(ladder()) and seconds["+ family"] < seconds["+ words by field"]


def test_where_the_validation_part_is_scored_it_is_not_learned_from(small):
    X, _, frame = small
    fold = next(splits.folds_of(splits.fixed(frame)[0], frame))
    assert np.array_equal(fold.val, fold.scored)
    shuffled = frame.copy()
    shuffled.loc[fold.val, "class"] = np.roll(frame["class"].to_numpy()[fold.val], 1)
    a, b = (cross_fit_ladder(X, f, [fold], [0], workers=1)[0] for f in (frame, shuffled))
    pd.testing.assert_frame_equal(a, b)


def test_the_ladder_steps_can_be_cloned_and_seeded():
    for system in ladder().values():
        assert clone(system).set_params(seed=4).get_params()["seed"] == 4 and system.refit
    assert not any(s.refit for s in ladder(refit=False).values())


def test_on_real_titles_and_tags_the_plain_baseline_is_where_it_was_measured():
    if not REAL.is_dir():
        pytest.skip("no ../shared/real/bsd10k_text")
    from hac_utils.datasets import read_dataset

    frame = read_dataset(REAL).frame
    frame = frame[frame["title"] != ""].iloc[::3].reset_index(drop=True)
    fold = next(splits.folds_of(splits.official5(frame)[0], frame))
    systems = {"tfidf svm": ladder()["tfidf svm"]}
    table, _ = cross_fit_ladder(text_rows(frame), frame, [fold], systems=systems, workers=1)
    truth = frame["class"].to_numpy()[fold.scored]
    assert hierarchical_f1(truth, argmax_codes(proba_of(table))) == pytest.approx(0.70758, abs=3e-3)

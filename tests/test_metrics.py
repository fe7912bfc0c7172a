"""The metric against golden cases, a plain-loop reference and published predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hac_utils.errors import HacError
from hac_utils.metrics import (
    confusion_matrix,
    credit,
    hierarchical_accuracy,
    hierarchical_f1,
    per_class,
    scores,
)
from hac_utils.taxonomy import CLASSES, family

REAL = Path(__file__).parents[2] / "shared" / "real"
CODES = np.array(CLASSES)
needs_real = pytest.mark.skipif(not (REAL / "oof" / "INDEX.csv").exists(), reason=f"{REAL}/oof is not here")


def reference(y_true, y_pred, strict: bool) -> dict[str, float]:
    """The metric once more, as plain loops over clips, written from the prose of the task."""

    def points(true, pred, half):
        return 1.0 if true == pred else half if family(true) == family(pred) else 0.0

    pairs = list(zip(y_true, y_pred, strict=True))
    rows, h_acc, exact, fam = [], [], [], []
    for c in sorted(set(y_true)):
        recall = [points(t, p, 0.375) for t, p in pairs if t == c]
        precision = [points(t, p, 0.375) for t, p in pairs if p == c]
        h_acc.append(np.mean([points(t, p, 0.5) for t, p in pairs if t == c]))
        exact.append(np.mean([t == p for t, p in pairs if t == c]))
        fam.append(np.mean([family(t) == family(p) for t, p in pairs if t == c]))
        if not precision and not strict:
            continue
        big_p, big_r = (np.mean(precision) if precision else 0.0), np.mean(recall)
        rows.append((big_p, big_r, 2 * big_p * big_r / (big_p + big_r) if big_p + big_r else 0.0))
    means = np.mean(rows, axis=0) if rows else np.zeros(3)
    return {
        "hP": means[0],
        "hR": means[1],
        "hF": means[2],
        "hA": np.mean(h_acc),
        "accuracy": np.mean([t == p for t, p in pairs]),
        "macro_accuracy": np.mean(exact),
        "family_accuracy": np.mean([family(t) == family(p) for t, p in pairs]),
        "macro_family_accuracy": np.mean(fam),
        "n": len(pairs),
    }


def _pairs(text: str):
    pred, true = zip(*(p.split(",") for p in text.split()), strict=True)
    return np.array(true), np.array(pred)


def _case_d():
    r = np.random.RandomState(0)
    true, u, other = r.randint(0, 23, 500), r.rand(500), r.randint(0, 23, 500)
    return CODES[true], CODES[np.where(u < 0.7, true, other)]


def _case_e():
    r = np.random.RandomState(1821)
    true = r.choice(23, size=2000, p=np.arange(23, 0, -1) / 276)
    u = r.rand(2000)
    return CODES[true], CODES[np.where(u < 0.8, true, (true + 1) % 23)]


def _case_f():
    r = np.random.RandomState(7)
    true, u, other = r.randint(0, 23, 200), r.rand(200), r.randint(0, 22, 200)
    pred = np.where(u < 0.6, true, other)
    return CODES[true], CODES[np.where(pred == 22, 21, pred)]


GOLDEN = {  # name: (pairs, official hP hR hF, hA, strict hP hR hF, accuracy or None), in percent
    "A": (
        _pairs("m-sp,m-sp m-sp,m-si fx-o,fx-o"),
        (84.375, 100, 90.740741),
        83.333333,
        (56.25, 79.166667, 60.493827),
        None,
    ),
    "B": (
        _pairs("fx-o,fx-o fx-o,ss-u ss-u,ss-u m-m,fx-o"),
        (75, 50, 58.333333),
        50,
        (75, 50, 58.333333),
        None,
    ),
    "C": (
        _pairs("is-p,is-p is-s,is-p is-p,is-s ss-i,ss-u"),
        (53.125, 53.125, 53.125),
        58.333333,
        (35.416667, 47.916667, 35.416667),
        None,
    ),
    "D": (_case_d(), (76.543899, 76.745194, 76.255792), 77.515210, (76.543899, 76.745194, 76.255792), 74.4),
    "E": (_case_e(), (85.514372, 86.803420, 85.910767), 88.770392, (85.514372, 86.803420, 85.910767), 80.15),
    "F": (_case_f(), (63.973081, 65.739083, 64.134440), 65.576241, (61.191643, 64.045458, 61.345986), 61.0),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_cases_verified_with_the_official_functions_agree_to_six_decimals(case):
    (true, pred), official, h_acc, strict, accuracy = GOLDEN[case]
    c = confusion_matrix(true, pred)
    dropped, zeroed = scores(c), scores(c, "zero")
    assert [100 * dropped[k] for k in ("hP", "hR", "hF")] == pytest.approx(official, abs=6e-7)
    assert [100 * zeroed[k] for k in ("hP", "hR", "hF")] == pytest.approx(strict, abs=6e-7)
    assert 100 * dropped["hA"] == pytest.approx(h_acc, abs=6e-7) and dropped["hA"] == zeroed["hA"]
    if accuracy is not None:
        assert 100 * dropped["accuracy"] == pytest.approx(accuracy, abs=1e-12)


@pytest.mark.parametrize(
    "true, pred, dropped, zeroed, h_acc",
    [
        ("m-sp m-sp m-m sp-s", "m-sp m-m m-m sp-s", 71 / 81, 71 / 81, 11 / 12),
        ("m-sp m-sp m-m sp-s", "m-sp m-sp m-sp sp-s", 81 / 86, 27 / 43, 5 / 6),
        ("m-sp sp-s", "m-sp sp-c", 1.0, 0.5, 0.75),
    ],
)
def test_the_style_guide_examples_agree_to_twelve_decimals(true, pred, dropped, zeroed, h_acc):
    true, pred = true.split(), pred.split()
    assert hierarchical_f1(true, pred) == pytest.approx(dropped, abs=1e-12)
    assert hierarchical_f1(true, pred, never_predicted="zero") == pytest.approx(zeroed, abs=1e-12)
    assert hierarchical_accuracy(true, pred) == pytest.approx(h_acc, abs=1e-12)


def test_when_no_true_class_was_predicted_the_official_reading_gives_zero():
    assert hierarchical_f1(["m-sp", "fx-o"], ["sp-s", "sp-c"]) == 0.0
    assert hierarchical_accuracy(["m-sp", "fx-o"], ["m-si", "sp-c"]) == 0.25


codes = st.sampled_from(CLASSES)
some_pairs = st.lists(st.tuples(codes, codes), min_size=1, max_size=60)
close_pairs = st.lists(st.tuples(st.sampled_from(CLASSES[:6]), st.sampled_from(CLASSES[:6])), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(some_pairs | close_pairs)
def test_every_figure_agrees_with_plain_loops(pairs):
    true, pred = map(list, zip(*pairs, strict=True))
    c = confusion_matrix(true, pred)
    for reading in ("drop", "zero"):
        expected = reference(true, pred, strict=reading == "zero")
        assert scores(c, reading) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(some_pairs, st.randoms(use_true_random=False))
def test_the_order_of_clips_is_irrelevant(pairs, rnd):
    shuffled = pairs.copy()
    rnd.shuffle(shuffled)
    one, two = (scores(confusion_matrix(*map(list, zip(*p, strict=True)))) for p in (pairs, shuffled))
    assert one == two


@settings(max_examples=60, deadline=None)
@given(st.lists(codes, min_size=1, max_size=60))
def test_an_exact_match_gives_one(true):
    for reading in ("drop", "zero"):
        s = scores(confusion_matrix(true, true), reading)
        assert [s[k] for k in s if k != "n"] == pytest.approx([1.0] * 8, abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(some_pairs | close_pairs)
def test_bounds_hold_for_any_prediction(pairs):
    c = confusion_matrix(*map(list, zip(*pairs, strict=True)))
    official, strict = scores(c), scores(c, "zero")
    assert official["macro_accuracy"] <= official["hA"] + 1e-12 <= official["macro_family_accuracy"] + 2e-12
    assert strict["hF"] <= official["hF"] + 1e-12 and strict["hP"] <= official["hP"] + 1e-12
    assert all(0 <= official[k] <= 1 + 1e-12 for k in official if k != "n")


def test_a_batch_of_confusions_gives_the_same_as_one_by_one():
    batch = np.random.default_rng(3).poisson(0.4, (4, 5, 23, 23))
    for reading in ("drop", "zero"):
        together = scores(batch, reading)
        for i in np.ndindex(4, 5):
            alone = scores(batch[i], reading)
            assert {k: v[i] for k, v in together.items()} == pytest.approx(alone, abs=1e-12)
            assert type(alone["hF"]) is float and type(alone["n"]) is int


def test_the_confusion_matrix_has_true_rows_in_taxonomy_order():
    c = confusion_matrix(["m-si", "m-si", "ss-s"], ["fx-o", "fx-o", "m-sp"])
    assert c.shape == (23, 23) and c.sum() == 3 and np.issubdtype(c.dtype, np.integer)
    assert c[1, 11] == 2 and c[22, 0] == 1


def test_credit_is_one_three_eighths_or_nothing():
    assert credit(["m-sp", "m-sp", "m-sp"], ["m-sp", "m-m", "is-p"]).tolist() == [1.0, 0.375, 0.0]
    assert credit(["fx-o"], ["fx-el"], same_family=0.5).tolist() == [0.5]


@pytest.mark.parametrize("case", GOLDEN)
def test_the_per_class_table_averages_to_the_official_figures(case):
    true, pred = GOLDEN[case][0]
    c = confusion_matrix(true, pred)
    table, total = per_class(c), scores(c)
    assert table["class"].tolist() == list(CLASSES)
    assert list(table.columns) == ["class", "n", "n_predicted", "accuracy", "hP", "hR", "hF"]
    assert table["n"].sum() == table["n_predicted"].sum() == len(true)
    for k in ("hP", "hR", "hF"):
        assert table[k].mean() == pytest.approx(total[k], abs=1e-12)
    assert table["accuracy"].mean() == pytest.approx(total["macro_accuracy"], abs=1e-12)


def test_a_class_nobody_predicted_is_nan_in_the_per_class_table_but_keeps_its_accuracy():
    table = per_class(confusion_matrix(*_pairs("m-sp,m-sp m-sp,m-si fx-o,fx-o"))).set_index("class")
    assert table.loc["m-si", ["hP", "hR", "hF"]].isna().all() and table.loc["m-si", "accuracy"] == 0
    assert table.loc["ss-s"].drop(["n", "n_predicted"]).isna().all()
    assert table.loc["m-sp", "hF"] == pytest.approx(2 * 0.6875 / 1.6875, abs=1e-12)


@pytest.mark.parametrize(
    "true, pred, message",
    [
        (["m-sp", "fx-o"], ["m-sp"], "2 true classes but 1 predictions"),
        ([], [], "no clips"),
        (["m-sp"], ["m-xx"], "m-xx"),
        (["fx-other"], ["fx-o"], "fx-other"),
        (["m-sp"], [None], "None"),
        ([["m-sp"]], [["m-sp"]], "shape"),
        ([101], ["m-sp"], "101"),
    ],
)
def test_bad_labels_are_named(true, pred, message):
    with pytest.raises(HacError, match=message):
        hierarchical_f1(true, pred)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((22, 22)),
        np.zeros((23, 23)),
        -np.ones((23, 23)),
        np.full((23, 23), np.nan),
        np.zeros((0, 23, 23)),
        3,
    ],
)
def test_bad_confusion_matrices_are_refused(bad):
    with pytest.raises(HacError):
        scores(bad)


def test_an_unknown_reading_is_refused_with_a_suggestion():
    with pytest.raises(HacError, match="did you mean 'zero'"):
        hierarchical_f1(["m-sp"], ["m-sp"], never_predicted="zeros")


def _index() -> pd.DataFrame:
    return pd.read_csv(REAL / "oof" / "INDEX.csv").set_index("system")


def _fold_mean(frame: pd.DataFrame, never_predicted: str) -> float:
    parts = [f for _, f in frame.groupby("fold")]
    return np.mean([hierarchical_f1(f["gt"], f["pred"], never_predicted=never_predicted) for f in parts])


@needs_real
def test_all_37_published_prediction_files_give_the_figures_of_the_index():
    # The index was computed with the strict reading; it matters for one fold of one file (conf4 audio, ss-i).
    index, wrong = _index(), []
    assert len(index) == 37
    for system, row in index.iterrows():
        frame = pd.read_csv(REAL / "oof" / f"{system}.csv")
        s = scores(confusion_matrix(frame["gt"], frame["pred"]))
        found = {"n": s["n"], "hF": s["hF"], "hA": s["hA"], "acc": s["accuracy"]}
        found |= {"macro_acc": s["macro_accuracy"], "hF_fold_mean": _fold_mean(frame, "zero")}
        wrong += [(system, k, v, row[k]) for k, v in found.items() if abs(v - row[k]) > 0.5001e-4]
    assert not wrong


@needs_real
def test_the_official_reading_gives_the_hf_that_the_repositories_themselves_state():
    stale = {"nyu_baseline__audio", "nyu_baseline__both"}  # their summaries stem from another run
    off = set()
    for system, claim in _index()["claim_hF"].items():
        found = 100 * _fold_mean(pd.read_csv(REAL / "oof" / f"{system}.csv"), "drop")
        if abs(found - claim) > 0.01:
            off.add(system)
    assert off == stale


@needs_real
def test_the_published_baseline_scores_as_the_official_functions_say_fold_by_fold():
    frame = pd.read_csv(REAL / "oof" / "nyu_baseline__both.csv")
    folds = [100 * hierarchical_f1(f["gt"], f["pred"]) for _, f in frame.groupby("fold")]
    assert folds == pytest.approx([77.86, 80.25, 78.33, 79.22, 77.48], abs=0.005001)
    assert np.mean(folds) == pytest.approx(78.63, abs=0.005001) and np.std(folds) == pytest.approx(1.00, abs=0.005001)
    assert 100 * hierarchical_accuracy(frame["gt"], frame["pred"]) == pytest.approx(79.73, abs=0.005001)

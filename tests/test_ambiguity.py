"""The ambiguity analysis: a case worked out on paper, edge cases, and the real out-of-fold predictions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hac_utils import ambiguity
from hac_utils.errors import HacError
from hac_utils.io import dump_json

REAL = Path(__file__).parents[2] / "shared" / "real"

# Worked out on paper. Credit: 1, .375 (m-m for m-sp), 1, 0 (fx-o for sp-s), 0 (ss-u for fx-o), 1, 1, 1.
TRUE = ["m-sp", "m-sp", "sp-s", "sp-s", "fx-o", "fx-o", "fx-o", "fx-o"]
PRED = ["m-sp", "m-m", "sp-s", "fx-o", "ss-u", "fx-o", "fx-o", "fx-o"]
CONF = [4.0, 2.0, 5.0, np.nan, 1.0, 5.0, 4.0, 5.0]


def test_the_paper_case_has_the_shares_worked_out_by_hand():
    s = ambiguity.summary(TRUE, PRED, CONF)
    # lost credit .625 + 1 + 1; the two cross-family clips hold 2 of it
    assert s["cross_family_share"] == pytest.approx(2 / 2.625, abs=1e-12)
    # weights 1/2, 1/2, 1/4: (.5 + .25) of (.3125 + .5 + .25)
    assert s["cross_family_share_class_weighted"] == pytest.approx(0.75 / 1.0625, abs=1e-12)
    assert s["cross_family_error_share"] == pytest.approx(2 / 3, abs=1e-12)
    assert (s["n"], s["n_without_confidence"]) == (8, 1)
    assert s["conf_right"] == pytest.approx((4 + 5 + 5 + 4 + 5) / 5, abs=1e-12)
    assert s["conf_wrong"] == pytest.approx(1.5, abs=1e-12)
    # class means 3, 5, 3.75: the median is 3.75 and neither sp-s nor fx-o lies below it
    assert s["cross_family_below_median_share"] == 0
    # accuracies 1/2, 1/2, 3/4 against 3, 5, 3.75: deviations (-1, -1, 2)/12 and (-11, 13, -2)/12
    assert s["r_class"] == pytest.approx((11 - 13 - 4) / np.sqrt(6 * (121 + 169 + 4)), abs=1e-12)
    # ranks (1.5, 1.5, 3) against (1, 3, 2): products .5 - .5 + 0
    assert s["spearman_class"] == pytest.approx(0.0, abs=1e-12)
    assert s["hA"] == pytest.approx((0.75 + 0.5 + 0.75) / 3, abs=1e-12)


def test_the_paper_case_has_the_class_table_worked_out_by_hand():
    table = ambiguity.per_class_table(TRUE, PRED, CONF).set_index("class")
    assert list(table.index) == ["m-sp", "sp-s", "fx-o"]
    assert table["n"].tolist() == [2, 2, 4]
    assert table["accuracy"].tolist() == [0.5, 0.5, 0.75]
    assert table["credit"].tolist() == [0.6875, 0.5, 0.75]
    assert table["mean_confidence"].tolist() == [3.0, 5.0, 3.75]
    # sp-s: P 1, R 1/2 -> 2/3; fx-o: P 3/4, R 3/4; m-sp: P 1, R .6875
    assert table["hF"].tolist() == pytest.approx([2 * 0.6875 / 1.6875, 2 / 3, 0.75], abs=1e-12)


def test_the_paper_case_has_the_pairs_worked_out_by_hand():
    pairs = ambiguity.top_pairs(TRUE, PRED, CONF)
    assert pairs[["gt", "pred"]].agg(">".join, axis=1).tolist() == ["sp-s>fx-o", "fx-o>ss-u", "m-sp>m-m"]
    assert pairs["lost_credit"].tolist() == [1.0, 1.0, 0.625]
    assert pairs["share"].tolist() == pytest.approx([1 / 2.625, 1 / 2.625, 0.625 / 2.625], abs=1e-12)
    assert np.isnan(pairs["mean_confidence"][0]) and pairs["mean_confidence"].tolist()[1:] == [1.0, 2.0]
    assert ambiguity.top_pairs(TRUE, PRED, CONF, k=1)["gt"].tolist() == ["sp-s"]


def test_accuracy_by_confidence_has_wilson_intervals_of_the_error():
    levels = ambiguity.summary(TRUE, PRED, CONF)["accuracy_by_confidence"]
    assert [(x["confidence"], x["n"], x["accuracy"]) for x in levels] == [
        (1, 1, 0),
        (2, 1, 0),
        (4, 2, 1),
        (5, 3, 1),
    ]
    z2 = 1.959963984540054**2
    assert levels[0]["error"] == 1 and levels[0]["high"] == pytest.approx(1.0)
    assert levels[0]["low"] == pytest.approx(1 / (1 + z2), abs=1e-12)
    assert levels[3]["high"] == pytest.approx(z2 / (3 + z2), abs=1e-12)


def test_the_summary_does_not_depend_on_the_order_of_clips():
    rng = np.random.default_rng(3)
    true, pred = rng.choice(["m-sp", "sp-s", "fx-o", "ss-u", "is-p"], size=(2, 400))
    conf = rng.integers(1, 6, 400).astype(float)
    shuffled = rng.permutation(400)
    a = ambiguity.summary(true, pred, conf)
    b = ambiguity.summary(true[shuffled], pred[shuffled], conf[shuffled])
    assert a["r_class_ci"] == b["r_class_ci"] and a["top_pairs"][0]["gt"] == b["top_pairs"][0]["gt"]
    assert a["conf_difference_ci"] == b["conf_difference_ci"]
    assert ambiguity.summary(true, pred, conf, seed=1)["r_class_ci"] != a["r_class_ci"]


def test_the_bootstrap_interval_agrees_with_resampling_clip_by_clip():
    rng = np.random.default_rng(5)
    codes = np.array(["m-sp", "sp-s", "fx-o", "ss-u", "is-p"])
    t = rng.integers(0, 5, 500)
    conf = np.clip(np.round(2 + t / 2 + rng.normal(0, 1, 500)), 1, 5)
    pred = np.where(rng.random(500) < 0.3 + 0.1 * t, t, rng.integers(0, 5, 500))
    s = ambiguity.summary(codes[t], codes[pred], conf)
    draws, differences = [], []
    for _ in range(1500):
        i = rng.integers(0, 500, 500)
        right, n = (t == pred)[i], np.bincount(t[i])
        draws.append(np.corrcoef(np.bincount(t[i], right) / n, np.bincount(t[i], conf[i]) / n)[0, 1])
        differences.append(conf[i][right].mean() - conf[i][~right].mean())
    assert s["r_class_ci"] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.03)
    assert s["conf_difference_ci"] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.03)


def test_without_any_confidence_everything_about_it_is_none_and_the_rest_stays():
    with_it = ambiguity.summary(TRUE, PRED, CONF)
    s = ambiguity.summary(TRUE, PRED, np.full(8, np.nan))
    assert s["n_without_confidence"] == 8 and s["accuracy_by_confidence"] == []
    for key in ("r_class", "r_class_ci", "spearman_class", "r_class_credit", "conf_right", "conf_wrong",
                "conf_difference_ci", "cross_family_below_median_share"):  # fmt: skip
        assert s[key] is None, key
    assert s["cross_family_share"] == with_it["cross_family_share"] and s["hF"] == with_it["hF"]
    dump_json(s)


def test_a_class_without_confidence_drops_out_of_the_correlations_only():
    true = ["m-sp"] * 4 + ["sp-s"] * 4 + ["fx-o"] * 4 + ["ss-u"] * 4
    pred = ["m-sp"] + ["fx-o"] * 3 + ["sp-s"] * 2 + ["fx-o"] * 2 + ["fx-o"] * 3 + ["m-m"] + ["ss-u"] * 4
    conf = [1.0] * 4 + [2.0] * 4 + [3.0] * 4 + [np.nan] * 4
    s = ambiguity.summary(true, pred, conf)
    assert s["r_class"] == pytest.approx(1.0) and s["spearman_class"] == pytest.approx(1.0)
    assert len(ambiguity.per_class_table(true, pred, conf)) == 4


def test_two_classes_give_no_correlation_and_a_perfect_system_loses_nothing():
    s = ambiguity.summary(["m-sp", "fx-o"], ["m-sp", "fx-o"], [3, 4])
    assert s["r_class"] is None and s["r_class_ci"] is None and s["spearman_class"] is None
    assert s["cross_family_share"] is None and s["conf_wrong"] is None and s["top_pairs"] == []
    assert s["conf_right"] == 3.5 and s["conf_difference_ci"] is None
    dump_json(s)


@pytest.mark.parametrize(
    ("true", "pred", "conf", "words"),
    [
        (["m-sp"], ["m-sp"], [1.0, 2.0], "1 true classes, 1 predictions and 2 confidences"),
        (["m-xx"], ["m-sp"], [1.0], "m-xx"),
        (["m-sp"], ["m-sp"], [np.inf], "infinite"),
        ([], [], [], "clip"),
    ],
)
def test_bad_arrays_are_named(true, pred, conf, words):
    with pytest.raises(HacError, match=words):
        ambiguity.summary(true, pred, conf)


def test_confidence_is_read_from_numbers_and_unknown_cells_are_counted():
    values, note = ambiguity.read_confidence(pd.DataFrame({"confidence": ["3", "", "5", " 4 "]}))
    assert values[[0, 2, 3]].tolist() == [3, 5, 4] and np.isnan(values[1])
    assert note == "1 of 4 clips have no confidence"
    values, note = ambiguity.read_confidence(pd.DataFrame({"confidence": [3.5, 1.0]}))
    assert values.tolist() == [3.5, 1.0] and note == ""


def test_a_confidence_bin_is_read_and_the_note_says_what_4_plus_became():
    frame = pd.DataFrame({"confidence": ["1", "", ""], "confidence_bin": ["1", "4+", "2"]})
    values, note = ambiguity.read_confidence(frame)
    assert values.tolist() == [1, 4, 2] and "4+ (a rating of 4 or 5) taken as 4" in note
    assert ambiguity.read_confidence(frame, four_plus=4.114)[0].tolist() == [1, 4.114, 2]


def test_a_full_confidence_column_is_preferred_to_the_bin():
    frame = pd.DataFrame({"confidence": ["5", "2"], "confidence_bin": ["4+", "2"]})
    assert ambiguity.read_confidence(frame)[0].tolist() == [5, 2]


def test_no_confidence_column_is_all_unknown_and_said():
    values, note = ambiguity.read_confidence(pd.DataFrame({"sound_id": ["1", "2"]}))
    assert np.isnan(values).all() and len(values) == 2 and "no confidence column" in note


def test_a_confidence_that_is_no_number_is_named():
    with pytest.raises(HacError, match="high"):
        ambiguity.read_confidence(pd.DataFrame({"confidence": ["3", "high"]}))


@pytest.fixture(scope="module")
def labels() -> pd.DataFrame:
    if not (REAL / "bsd10k_labels.csv").exists():
        pytest.skip(f"the real labels are not here: {REAL}")
    return pd.read_csv(REAL / "bsd10k_labels.csv", dtype=str, keep_default_na=False).set_index("sound_id")


def _index() -> pd.DataFrame:
    return pd.read_csv(REAL / "oof" / "INDEX.csv").set_index("system")


SYSTEMS = sorted(p.stem for p in (REAL / "oof").glob("*.csv") if p.stem != "INDEX")


@pytest.mark.skipif(not SYSTEMS, reason="the real predictions are not here")
@pytest.mark.parametrize("system", SYSTEMS or ["none"])
def test_real_predictions_give_the_numbers_of_the_index(system, labels):
    per_class = pd.read_csv(REAL / "bsd10k_per_class.csv").set_index("class")
    n4, n5 = per_class["n_conf4"], per_class["n_conf5"]
    overall = (4 * n4.sum() + 5 * n5.sum()) / (n4.sum() + n5.sum())  # 4.114
    oof = pd.read_csv(REAL / "oof" / f"{system}.csv", dtype={"sound_id": str})
    clips, want = labels.loc[oof["sound_id"]], _index().loc[system]
    confidence, note = ambiguity.read_confidence(clips[["confidence_bin"]], four_plus=overall)
    assert "taken as 4.11393" in note
    s = ambiguity.summary(oof["gt"], oof["pred"], confidence, n_resamples=1)
    names = {key: key for key in ("hF", "hA", "conf_right", "conf_wrong")}
    names |= {"cross_family_share": "cross_share_lost", "cross_family_error_share": "cross_share_err"}
    for key, name in names.items():
        assert s[key] == pytest.approx(want[name], abs=5.1e-5), name
    for level, name in zip(
        s["accuracy_by_confidence"], ("acc_conf1", "acc_conf2", "acc_conf3", "acc_conf4+"), strict=True
    ):
        assert level["accuracy"] == pytest.approx(want[name], abs=5.1e-5), name
    # r uses each class's mean over all its clips, where 4 and 5 are known apart: bsd10k_per_class.csv
    accuracy = ambiguity.per_class_table(oof["gt"], oof["pred"], confidence).set_index("class")["accuracy"]
    assert np.corrcoef(accuracy, per_class["mean_confidence"][accuracy.index])[0, 1] == pytest.approx(
        want["r_acc_conf"], abs=5.1e-5
    )
    if len(oof) == len(labels):  # all clips present: the same r from the summary itself
        exact = np.where(clips["confidence_bin"] == "4+", clips["class"].map((4 * n4 + 5 * n5) / (n4 + n5)), confidence)
        assert ambiguity.summary(oof["gt"], oof["pred"], exact, n_resamples=1)["r_class"] == pytest.approx(
            want["r_acc_conf"], abs=5.1e-5
        )


def test_the_real_baseline_loses_its_credit_where_the_facts_say(labels):
    oof = pd.read_csv(REAL / "oof" / "nyu_baseline__both.csv", dtype={"sound_id": str})
    confidence, _ = ambiguity.read_confidence(labels.loc[oof["sound_id"], ["confidence_bin"]], four_plus=4.114)
    s = ambiguity.summary(oof["gt"], oof["pred"], confidence)
    assert s["cross_family_share"] == pytest.approx(0.655, abs=5e-4)
    assert s["cross_family_share_class_weighted"] == pytest.approx(0.681, abs=5e-4)
    low, high = s["r_class_ci"]
    assert low < s["r_class"] < high and 0 < s["conf_difference_ci"][0]
    cross = [(p["gt"], p["pred"], p["n"]) for p in s["top_pairs"][:3]]
    assert cross == [("ss-n", "fx-n", 63), ("fx-v", "ss-u", 54), ("ss-n", "fx-a", 53)]

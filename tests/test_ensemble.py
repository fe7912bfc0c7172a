"""Weighted averages, logit adjustment and the four systems of Table 3."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hac_utils.ensemble import (
    adjusted,
    class_prior,
    fill_missing,
    four_systems,
    logit_adjustment,
    predict_systems,
    weighted_average,
)
from hac_utils.errors import HacError
from hac_utils.schema import mean_over_seeds, predictions_table, proba_of, validate_predictions
from hac_utils.taxonomy import CLASSES, INDEX

WEIGHTS = {"F": 0.55, "A": 0.25, "R": 1.0, "P": 0.5}


def member(system, seeds=(0, 1, 2), ids=("3", "1", "2")):
    rng = np.random.default_rng([len(system), ord(system[0])])
    return pd.concat(
        [
            predictions_table(ids, rng.dirichlet(np.ones(23), len(ids)), CLASSES, system=system, seed=s, fold=0)
            for s in seeds
        ],
        ignore_index=True,
    )


def at(frame, seed):
    return proba_of(frame[frame["seed"] == seed].sort_values("sound_id"))


# weighted average --------------------------------------------------------------------------------


def test_the_average_is_weighted_and_rows_sum_to_one():
    a, b = member("a"), member("b")
    out = weighted_average({"a": a, "b": b}, {"a": 1.0, "b": 3.0}, seed=1, system="S1")
    np.testing.assert_allclose(proba_of(out), (at(a, 1) + 3 * at(b, 1)) / 4, rtol=0, atol=1e-15)
    assert out["sound_id"].tolist() == ["1", "2", "3"] and set(out["system"]) == {"S1"} and set(out["seed"]) == {1}
    validate_predictions(out)


def test_the_weights_count_by_proportion_only_and_unused_ones_do_not_count():
    members = {"a": member("a"), "b": member("b")}
    one = weighted_average(members, {"a": 0.5, "b": 0.25, "z": 9.0}, seed=0, system="S1")
    two = weighted_average(members, {"a": 2, "b": 1}, seed=0, system="S1")
    np.testing.assert_allclose(proba_of(one), proba_of(two), rtol=0, atol=1e-15)


@pytest.mark.parametrize("first", ["a", "p"])
def test_a_member_without_the_seed_enters_with_the_mean_over_its_seeds(first):
    a, p = member("a"), member("p", seeds=(0, 1))
    members = {"a": a, "p": p} if first == "a" else {"p": p, "a": a}
    out = weighted_average(members, {"a": 1, "p": 1}, seed=2, system="S1")
    mean = proba_of(mean_over_seeds(p).sort_values("sound_id"))
    np.testing.assert_allclose(proba_of(out), (at(a, 2) + mean) / 2, rtol=0, atol=1e-15)
    assert set(out["seed"]) == {2}


def test_members_that_cover_different_clips_are_one_error_naming_them():
    members = {"a": member("a"), "b": member("b", ids=("3", "1", "77"))}
    with pytest.raises(HacError) as e:
        weighted_average(members, {"a": 1, "b": 1}, seed=0, system="S2")
    assert "2, 77" in e.value.what and "S2" in e.value.where and "b" in e.value.where


@pytest.mark.parametrize("weights", [{"a": 1}, {"a": 0, "b": 0}, {"a": -1, "b": 2}, {"a": float("nan"), "b": 1}])
def test_weights_that_cannot_work_are_an_error(weights):
    with pytest.raises(HacError, match="weight"):
        weighted_average({"a": member("a"), "b": member("b")}, weights, seed=0, system="S1")


def test_no_members_are_an_error():
    with pytest.raises(HacError, match="no members"):
        weighted_average({}, {}, seed=0, system="S1")


# logit adjustment --------------------------------------------------------------------------------


def test_logit_adjustment_of_a_hand_worked_example():
    """p = (.5, .3, .2), prior = (.64, .25, .11), tau = .5: p / sqrt(prior) = (.625, .6, .2/.33166) ∝ new."""
    where = [INDEX[c] for c in ("fx-o", "ss-u", "sp-c")]
    p, prior = np.zeros((1, 23)), np.full(23, 1e-6)
    p[0, where], prior[where] = [0.5, 0.3, 0.2], [0.64, 0.25, 0.11]
    out = logit_adjustment(p, prior, 0.5)
    raw = np.array([0.625, 0.6, 0.2 / 0.11**0.5])
    np.testing.assert_allclose(out[0, where], raw / raw.sum(), rtol=0, atol=1e-7)
    assert out.sum() == pytest.approx(1, abs=1e-15)
    full = logit_adjustment(p, prior, 1.0)[0, where]
    assert full.argmax() == 2 and p[0, where].argmax() == 0  # 0.78, 1.2, 1.82: the rare class wins


def test_tau_zero_changes_nothing():
    p = np.random.default_rng(0).dirichlet(np.ones(23), 40)
    np.testing.assert_allclose(logit_adjustment(p, class_prior(["fx-o"] * 9), 0.0), p, rtol=0, atol=1e-12)


def test_an_equal_prior_changes_nothing_at_any_tau():
    p = np.random.default_rng(0).dirichlet(np.ones(23), 40)
    np.testing.assert_allclose(logit_adjustment(p, np.full(23, 1 / 23), 2.0), p, rtol=0, atol=1e-12)


def test_the_prior_is_relative_frequency_and_an_absent_class_counts_half_a_clip():
    prior = class_prior(["fx-o"] * 6 + ["ss-u"] * 3)
    assert prior.sum() == pytest.approx(1, abs=1e-15)
    total = 9 + 21 * 0.5
    assert prior[INDEX["fx-o"]] == pytest.approx(6 / total) and prior[INDEX["m-m"]] == pytest.approx(0.5 / total)
    assert np.isfinite(logit_adjustment(np.eye(23), prior, 1.0)).all()


def test_an_adjusted_table_keeps_its_keys_under_a_new_name():
    a = member("a")
    out = adjusted(a.iloc[::-1], class_prior(["m-m"]), 0.5, system="S2")
    assert out["sound_id"].tolist() == a["sound_id"].tolist()[::-1] and set(out["system"]) == {"S2"}
    expected = logit_adjustment(proba_of(a.iloc[::-1]), class_prior(["m-m"]), 0.5)
    np.testing.assert_array_equal(proba_of(out), expected)


# systems -----------------------------------------------------------------------------------------


def test_the_four_systems_with_audio_are_those_of_table_3():
    available = ["audio", "concat", "gated", "gated+pl", "audio+pl", "text", "roberta", "passt"]
    systems = four_systems(available, WEIGHTS, 0.5)
    members = {"gated+pl": 0.55, "audio+pl": 0.25, "roberta": 1.0, "passt": 0.5}
    assert systems == {
        "S1": {"members": members, "tau": 0.0, "pseudo_labels": True},
        "S2": {"members": members, "tau": 0.5, "pseudo_labels": True},
        "S3": {"members": {"gated+pl": 1.0}, "tau": 0.0, "pseudo_labels": True},
        "S4": {"members": {"concat": 1.0}, "tau": 0.0, "pseudo_labels": False},
    }


def test_without_audio_the_text_head_takes_the_place_of_the_gated_one():
    systems = four_systems(["text", "roberta"], WEIGHTS, 0.5)
    assert list(systems) == ["S1", "S2", "S3"]
    assert systems["S1"] == {"members": {"text": 0.55, "roberta": 1.0}, "tau": 0.0, "pseudo_labels": False}
    assert systems["S3"]["members"] == {"text": 1.0}
    assert four_systems(["text", "text+pl"], WEIGHTS, 0.5)["S3"]["members"] == {"text+pl": 1.0}


def test_without_pseudo_labels_the_plain_heads_are_used():
    systems = four_systems(["gated", "audio", "concat", "roberta", "passt"], WEIGHTS, 0.5)
    assert list(systems["S1"]["members"]) == ["gated", "audio", "roberta", "passt"]
    assert not any(s["pseudo_labels"] for s in systems.values())


def test_without_any_head_there_is_one_error():
    with pytest.raises(HacError, match="no fusion or text head among 1"):
        four_systems(["passt"], WEIGHTS, 0.5)


def test_every_system_is_predicted_for_every_seed():
    tables = pd.concat([member(s) for s in ("gated", "audio", "concat")] + [member("roberta", seeds=(0,))])
    systems = four_systems(["gated", "audio", "concat", "roberta"], WEIGHTS, 0.5)
    prior = class_prior(["fx-o"] * 30 + ["ss-u"])
    out = predict_systems(systems, tables, [0, 1, 2], prior)
    validate_predictions(out)
    assert out.groupby(["system", "seed"]).size().tolist() == [3] * 12
    s1, s2 = (out[out["system"] == s] for s in ("S1", "S2"))
    np.testing.assert_array_equal(proba_of(s2), logit_adjustment(proba_of(s1), prior, 0.5))
    np.testing.assert_allclose(
        at(out[out["system"] == "S4"], 1), at(tables[tables["system"] == "concat"], 1), atol=1e-15
    )


def test_a_clip_that_no_model_could_read_gets_the_class_prior_in_its_place():
    prior = class_prior(["fx-o"] * 5 + ["ss-u"] * 2)
    one = member("a", seeds=(4,))
    out = fill_missing(one, ["x", "1", "2", "y", "3"], prior)
    assert out["sound_id"].tolist() == ["x", "1", "2", "y", "3"]
    np.testing.assert_allclose(proba_of(out)[[0, 3]], [prior, prior], rtol=0, atol=0)
    np.testing.assert_array_equal(proba_of(out)[[1, 2, 4]], at(one, 4))
    assert set(out["seed"]) == {4} and set(out["system"]) == {"a"}
    validate_predictions(out)

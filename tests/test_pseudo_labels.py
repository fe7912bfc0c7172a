"""The hard majority of independent voters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hac_utils.errors import HacError
from hac_utils.pseudo_labels import agreement_pattern, majority
from hac_utils.schema import predictions_table
from hac_utils.taxonomy import CLASSES, INDEX

#        clip  M       R       P       winner  votes
HAND = [
    ("10", "fx-o", "fx-o", "fx-o", "fx-o", 3),
    ("11", "fx-o", "fx-o", "ss-u", "fx-o", 2),
    ("12", "fx-o", "ss-u", "ss-u", "ss-u", 2),
    ("13", "ss-n", "m-m", "ss-n", "ss-n", 2),
    ("14", "fx-o", "ss-u", "m-m", "", 1),
]


def voter(codes, ids, seed=0, sharpness=0.6):
    p = np.full((len(codes), 23), (1 - sharpness) / 22)
    p[np.arange(len(codes)), [INDEX[c] for c in codes]] = sharpness
    return predictions_table(ids, p, CLASSES, system="s", seed=seed, fold=0)


def hand():
    ids, m, r, p, *_ = zip(*HAND, strict=True)
    return {"M": voter(m, ids), "R": voter(r, ids), "P": voter(p, ids)}


def test_two_of_three_equal_votes_give_the_label():
    table = majority(hand())
    assert table["sound_id"].tolist() == [h[0] for h in HAND]
    assert table["label"].tolist() == [h[4] for h in HAND]
    assert table["votes"].tolist() == [h[5] for h in HAND]
    assert table["kept"].tolist() == [True] * 4 + [False]
    assert table[["vote_M", "vote_R", "vote_P"]].to_numpy().tolist() == [list(h[1:4]) for h in HAND]


def test_three_equal_votes_can_be_asked_for():
    table = majority(hand(), needed=3)
    assert table["label"].tolist() == ["fx-o", "", "", "", ""]


def test_the_pattern_counts_every_clip_once():
    pattern = agreement_pattern(majority(hand()), "MRP")
    assert pattern == {"all agree": 1, "M = R only": 1, "M = P only": 1, "R = P only": 1, "none agree": 1}


@pytest.mark.parametrize("names", ["MRP", "MR"])
def test_the_pattern_sums_to_the_number_of_clips(names):
    rng = np.random.default_rng(0)
    ids = [str(i) for i in range(300)]
    voters = {n: voter([CLASSES[i] for i in rng.integers(0, 4, 300)], ids) for n in names}
    table = majority(voters)
    pattern = agreement_pattern(table, names)
    assert sum(pattern.values()) == 300 and pattern["none agree"] == (~table["kept"]).sum()
    assert pattern["all agree"] == (table["votes"] == len(names)).sum()


def test_voters_order_and_row_order_do_not_matter():
    base = majority(hand())
    turned = majority({n: t.sample(frac=1, random_state=i) for i, (n, t) in enumerate(reversed(hand().items()))})
    pd.testing.assert_frame_equal(turned[base.columns], base)


def test_several_seeds_of_a_voter_are_averaged_before_it_votes():
    voters = hand()
    ids = voters["M"]["sound_id"]
    sure, weak = ["ss-u"] * 5, ["fx-a"] * 5
    seeds = [voter(sure, ids, 0, 0.9), voter(weak, ids, 1, 0.3), voter(weak, ids, 2, 0.3)]
    table = majority(voters | {"M": pd.concat(seeds)})
    assert set(table["vote_M"]) == {"ss-u"}


def test_the_crowd_label_is_never_read():
    voters = {n: t.assign(**{"class": "sp-s", "crowd": "sp-s"}) for n, t in hand().items()}
    table = majority(voters)
    pd.testing.assert_frame_equal(table, majority(hand()))
    assert table.columns.tolist() == ["sound_id", "vote_M", "vote_R", "vote_P", "votes", "kept", "label"]


def test_only_clips_that_every_voter_has_are_voted_on():
    voters = hand()
    assert majority(voters | {"P": voters["P"].iloc[1:]})["sound_id"].tolist() == ["11", "12", "13", "14"]


def test_too_few_voters_are_an_error():
    with pytest.raises(HacError, match="1 voters cannot give 2"):
        majority({"M": hand()["M"]})

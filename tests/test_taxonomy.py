"""The Broad Sound Taxonomy: codes, order, indices."""

from __future__ import annotations

from collections import Counter

import numpy as np

from hac_utils.errors import HacError, did_you_mean, first_few
from hac_utils.taxonomy import (
    CLASS_IDX,
    CLASSES,
    FAMILIES,
    FAMILY_OF,
    INDEX,
    N_CLASSES,
    SAME_FAMILY,
    family,
    is_leftover,
    long_name,
)

OFFICIAL = (
    "m-sp m-si m-m is-p is-s is-w is-k is-e sp-s sp-c sp-p fx-o fx-v fx-m fx-h fx-a fx-n fx-ex fx-el "
    "ss-n ss-i ss-u ss-s"
).split()
OFFICIAL_IDX = [*range(101, 104), *range(201, 206), *range(301, 304), *range(401, 409), *range(501, 505)]


def test_the_23_classes_are_in_taxonomy_order_not_in_alphabetical_order():
    assert list(CLASSES) == OFFICIAL and N_CLASSES == 23
    assert list(CLASSES) != sorted(CLASSES)
    assert [INDEX[c] for c in CLASSES] == list(range(23))


def test_class_idx_is_the_three_digit_coding_of_v12():
    assert [CLASS_IDX[c] for c in CLASSES] == OFFICIAL_IDX


def test_five_families_hold_3_5_3_8_4_classes():
    assert Counter(map(family, CLASSES)) == {"m": 3, "is": 5, "sp": 3, "fx": 8, "ss": 4}
    assert [list(FAMILIES)[f] for f in FAMILY_OF] == [c.split("-")[0] for c in OFFICIAL]


def test_same_family_is_symmetric_and_has_9_25_9_64_16_pairs():
    assert np.array_equal(SAME_FAMILY, SAME_FAMILY.T) and SAME_FAMILY.diagonal().all()
    assert SAME_FAMILY.sum() == 9 + 25 + 9 + 64 + 16
    assert SAME_FAMILY[INDEX["fx-o"], INDEX["fx-el"]] and not SAME_FAMILY[INDEX["sp-s"], INDEX["ss-s"]]


def test_leftovers_are_other_codes_and_bare_families_only():
    assert all(is_leftover(c) for c in ("fx-other", "m-other", "fx", "ss"))
    assert not any(is_leftover(c) for c in (*CLASSES, "xx-other", "other", "", "fx-o2"))


def test_long_names_are_family_and_class():
    assert long_name("fx-el") == "Sound effects / electronic, design"
    assert len({long_name(c) for c in CLASSES}) == 23


def test_an_error_prints_what_where_fix_and_leaves_out_what_is_empty():
    assert str(HacError("12 clips", "a.csv", "do it")) == "error: 12 clips\nwhere: a.csv\nfix:   do it"
    assert str(HacError("12 clips")) == "error: 12 clips"


def test_suggestions_name_the_nearest_known_word_or_all_of_them():
    assert did_you_mean("eposh", ["epochs", "lr"]) == "did you mean 'epochs'?"
    assert did_you_mean("zzz", ["epochs", "lr"]) == "known: epochs, lr"
    assert first_few([1, 2]) == "2 (1, 2)"
    assert first_few(list(range(9))) == "9 (first 5: 0, 1, 2, 3, 4)"

"""The official folds, the uploader-disjoint split, and what small data sets get."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hac_utils.datasets import read_dataset
from hac_utils.errors import HacError
from hac_utils.io import write_csv, write_parquet
from hac_utils.splits import (
    PROTOCOLS,
    fixed,
    folds_of,
    official5,
    read_split,
    split_hash,
    uploader5,
    uploader_leakage,
)
from hac_utils.taxonomy import CLASSES

FIRST_TEST_IDS = [
    "84090 145544 156796 52789",
    "432206 63352 376477 119764",
    "80630 354592 76567 35034",
    "358405 358760 38633 318557",
    "185755 76539 155747 24840",
]  # shared/FACTS.md, section 4: in metadata order, of folds 0 to 4


def corpus(per_class=6, classes=5, uploaders=12):
    n = per_class * classes
    return pd.DataFrame(
        {
            "sound_id": [f"{1000 + i}" for i in range(n)],
            "class": [CLASSES[i % classes] for i in range(n)],
            "uploader": [f"u{(i // classes) * 7 % uploaders + i % 2}" for i in range(n)],
        }
    )


@pytest.fixture(scope="module")
def bsd10k(real):
    return read_dataset(real / "bsd10k_text").frame


@pytest.fixture(scope="module")
def official(bsd10k):
    return official5(bsd10k)


# real data ---------------------------------------------------------------------------------------


def test_the_official_folds_have_the_official_sizes(official):
    split, notes = official
    sizes = split.groupby(["fold", "part"]).size().unstack()[["train", "val", "test"]]
    assert sizes.loc[0].tolist() == [7011, 1753, 2192] and notes == []
    assert all(sizes.loc[k].tolist() == [7012, 1753, 2191] for k in range(1, 5))


def test_the_official_folds_hold_the_official_first_test_ids(official, bsd10k):
    split, _ = official
    for fold in folds_of(split, bsd10k):
        wanted = FIRST_TEST_IDS[fold.fold].split()
        assert bsd10k["sound_id"].iloc[fold.scored[:4]].tolist() == wanted, fold.fold


def test_every_clip_is_tested_once_and_in_one_part_of_each_official_fold(official, bsd10k):
    split, _ = official
    assert sorted(split.loc[split["part"] == "test", "sound_id"]) == sorted(bsd10k["sound_id"])
    assert (split.groupby("fold")["sound_id"].nunique() == 10_956).all() and len(split) == 5 * 10_956


def test_84_percent_of_official_test_clips_share_their_uploader_with_training(official, bsd10k):
    assert uploader_leakage(official[0], bsd10k) == pytest.approx(0.84, abs=0.01)


def test_the_fixed_split_of_the_real_labels_never_splits_an_uploader(bsd10k):
    split, notes = fixed(bsd10k)
    (fold,) = folds_of(split, bsd10k)
    uploader, y = bsd10k["uploader"].to_numpy(), bsd10k["class"].to_numpy()
    assert not (set(uploader[fold.train]) & set(uploader[fold.val])) - {""} and notes == []
    assert uploader_leakage(split, bsd10k) == 0
    assert len(fold.train) + len(fold.val) == 10_956 and abs(len(fold.val) - 2191) < 300
    assert set(y[fold.val]) == set(y[fold.train]) == set(CLASSES)
    assert fold.scored is fold.val


def test_unknown_uploaders_of_the_real_labels_land_on_both_sides(bsd10k):
    split, _ = fixed(bsd10k)
    (fold,) = folds_of(split, bsd10k)
    unknown = bsd10k["uploader"].to_numpy() == ""
    assert unknown[fold.train].any() and unknown[fold.val].any()


def test_uploader_disjoint_folds_of_the_real_labels_test_every_clip_once_without_leakage(bsd10k):
    split, notes = uploader5(bsd10k)
    assert notes == [] and sorted(split.loc[split["part"] == "test", "sound_id"]) == sorted(bsd10k["sound_id"])
    assert uploader_leakage(split, bsd10k) == 0
    uploader = bsd10k["uploader"].to_numpy()
    for fold in folds_of(split, bsd10k):
        assert not (set(uploader[fold.train]) & set(uploader[fold.val])) - {""}
        assert len(fold.train) + len(fold.val) + len(fold.scored) == 10_956
    first = set(next(folds_of(split, bsd10k)).scored)
    assert first == set(next(folds_of(fixed(bsd10k)[0], bsd10k)).val)


# any data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", PROTOCOLS.values(), ids=PROTOCOLS)
def test_the_same_table_gives_the_same_split(make):
    (a, _), (b, _) = make(corpus()), make(corpus())
    pd.testing.assert_frame_equal(a, b)
    assert split_hash(a) == split_hash(b.sample(frac=1, random_state=0)) and len(split_hash(a)) == 16
    assert split_hash(make(corpus(), seed=1)[0]) != split_hash(a)


def test_moving_one_clip_changes_the_hash():
    split, _ = official5(corpus())
    moved = split.copy()
    moved.loc[0, "part"] = "test"
    assert split_hash(moved) != split_hash(split)


@pytest.mark.parametrize("seed", range(5))
def test_the_fixed_split_never_splits_an_uploader(seed):
    frame = corpus(20, 4, 30)
    (fold,) = folds_of(fixed(frame, seed=seed)[0], frame)
    uploader = frame["uploader"].to_numpy()
    assert not set(uploader[fold.train]) & set(uploader[fold.val])
    assert np.array_equal(np.sort(np.r_[fold.train, fold.val]), np.arange(80))


def test_unknown_uploaders_are_groups_of_their_own():
    frame = corpus().assign(uploader="")
    split, notes = fixed(frame)
    assert (split["part"] == "val").sum() == 6 and notes == []
    assert uploader_leakage(split, frame) == 0


def test_leakage_counts_training_and_validation_uploaders_of_scored_clips_with_a_known_uploader():
    frame = corpus(2, 3).assign(uploader=["a", "b", "a", "", "b", "c"])
    parts = ["train", "val", "test", "test", "test", "test"]
    split = pd.DataFrame({"fold": 0, "sound_id": frame["sound_id"], "part": parts})
    assert uploader_leakage(split, frame) == pytest.approx(2 / 3)
    held_out = split.replace({"part": {"test": "val"}})
    assert uploader_leakage(held_out, frame) == pytest.approx(1 / 4)


@pytest.mark.parametrize(("per_class", "k"), [(5, 5), (4, 4), (3, 3), (2, 2)])
def test_small_classes_lower_the_folds_with_a_note(per_class, k):
    frame = corpus(per_class)
    split, notes = official5(frame)
    assert split["fold"].nunique() == k
    assert notes == ([] if k == 5 else [f"folds lowered from 5 to {k}: the smallest class has {per_class} clips"])
    assert sorted(split.loc[split["part"] == "test", "sound_id"]) == sorted(frame["sound_id"])


def test_a_class_with_one_clip_still_gives_two_folds():
    frame = pd.concat([corpus(4, 3), corpus(1, 1).assign(sound_id="9", **{"class": "ss-s"})], ignore_index=True)
    split, notes = official5(frame)
    assert split["fold"].nunique() == 2 and "smallest class has 1" in notes[0]


def test_few_uploaders_lower_the_folds_and_a_class_never_learned_is_noted():
    frame = corpus(4, 3).assign(uploader=lambda f: f["class"])
    split, notes = fixed(frame)
    assert "3 uploaders" in notes[0] and "never learned" in notes[1]
    (fold,) = folds_of(split, frame)
    assert len(fold.val) == 4 and len(fold.train) == 8


def test_one_uploader_for_all_is_an_error():
    with pytest.raises(HacError, match="same uploader"):
        fixed(corpus().assign(uploader="me"))


@pytest.mark.parametrize("make", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 3), (1, 23)])
def test_too_few_clips_are_one_error(make, shape):
    with pytest.raises(HacError, match="too few"):
        make(corpus(*shape))


def test_any_small_table_gives_full_parts_or_one_error():
    rng = np.random.default_rng(5)
    for _ in range(60):
        n, k, u = (int(rng.integers(1, high)) for high in (25, 6, 7))
        frame = pd.DataFrame(
            {
                "sound_id": [f"{i}" for i in range(n)],
                "class": [CLASSES[i] for i in rng.integers(0, k, n)],
                "uploader": [f"u{i}" if i else "" for i in rng.integers(0, u, n)],
            }
        )
        for make in PROTOCOLS.values():
            try:
                split, _ = make(frame)
            except HacError:
                continue
            for fold in folds_of(split, frame):
                assert len(fold.train) and len(fold.scored)
                assert len(fold.val) or make is uploader5  # one uploader left: nothing to validate on
                assert not set(fold.train) & (set(fold.val) | set(fold.scored))


def test_a_split_of_another_data_set_names_the_clips():
    split, _ = official5(corpus())
    with pytest.raises(HacError, match="1029"):
        next(folds_of(split, corpus().head(29)))


def test_rows_follow_the_table_in_whatever_order_it_is():
    frame = corpus()
    split, _ = official5(frame)
    turned = frame.iloc[::-1].reset_index(drop=True)
    for a, b in zip(folds_of(split, frame), folds_of(split, turned), strict=True):
        assert set(frame["sound_id"].iloc[a.train]) == set(turned["sound_id"].iloc[b.train])


# a split of the user's own -----------------------------------------------------------------------


@pytest.mark.parametrize(("write", "name"), [(write_csv, "s.csv"), (write_parquet, "s.parquet")])
@pytest.mark.parametrize("make", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_split_read_back_from_a_file_is_the_same_split(make, write, name, tmp_path):
    frame = corpus()
    split, _ = make(frame)
    write(tmp_path / name, split.sample(frac=1, random_state=0))
    back = read_split(tmp_path / name, frame)
    assert split_hash(back) == split_hash(split) and back["fold"].dtype == "int64"
    for a, b in zip(folds_of(split, frame), folds_of(back, frame), strict=True):
        assert np.array_equal(a.train, b.train) and np.array_equal(a.scored, b.scored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.drop(columns="part"), "part"),
        (lambda s: s.head(0), "no rows"),
        (lambda s: s.replace({"part": {"test": "tset"}}), "tset"),
        (lambda s: s.assign(fold="one"), "one"),
        (lambda s: s.assign(fold=0.5), "0.5"),
        (lambda s: s.replace({"sound_id": {"1003": "77"}}), "77"),
        (lambda s: pd.concat([s, s.head(1)]), "twice"),
        (lambda s: s[s["part"] != "train"], "has only"),
        (lambda s: s[s["part"] == "train"], "has only"),
    ],
)
def test_a_broken_split_file_is_one_error_that_names_it(change, message, tmp_path):
    frame = corpus()
    write_csv(tmp_path / "s.csv", change(official5(frame)[0]))
    with pytest.raises(HacError, match=message) as e:
        read_split(tmp_path / "s.csv", frame)
    assert "s.csv" in e.value.where and e.value.fix

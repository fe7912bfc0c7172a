"""The hard majority of independent voters, the other strategies, and the search for labelled clips among the noisy ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hac_utils import pseudo_labels
from hac_utils.audio import load_audio
from hac_utils.encoders import LogMelEncoder
from hac_utils.errors import HacError
from hac_utils.figures_ambiguity import filters_by_class
from hac_utils.pseudo_labels import KEPT, STRATEGIES, agreement_pattern, duplicates, judged, majority, soft_votes
from hac_utils.schema import predictions_table
from hac_utils.splits import Fold
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


def test_a_voter_of_several_folds_is_refused():
    mixed = pd.concat([hand()["M"].iloc[:2], hand()["M"].iloc[2:].assign(fold=1)])
    with pytest.raises(HacError, match="voter M has predictions of several systems or folds"):
        majority(hand() | {"M": mixed})


# --- strategies


def rows(*rows):
    """Probabilities (n, 23) from dicts code -> probability; what is left falls on the other classes evenly."""
    out = []
    for given in rows:
        p = np.full(23, (1 - sum(given.values())) / (23 - len(given)))
        for code, v in given.items():
            p[INDEX[code]] = v
        out.append(p)
    return np.array(out)


IDS = ["1", "2", "3"]


def labels(table):
    assert table.columns.tolist() == KEPT and ((table["weight"] > 0) & (table["weight"] <= 1)).all()
    return dict(zip(table["sound_id"], table["label"], strict=True))


def test_the_soft_mean_keeps_what_is_more_likely_right_than_wrong():
    table = pseudo_labels.mean_of_soft(IDS, rows({"fx-o": 0.5}, {"fx-o": 0.49}, {"ss-u": 0.9}))
    assert labels(table) == {"1": "fx-o", "3": "ss-u"}
    assert table["weight"].tolist() == pytest.approx([0.5, 0.9], abs=1e-12)


def test_weighted_votes_with_equal_confidence_are_the_majority():
    ids, proba = soft_votes(hand())
    table, paper = pseudo_labels.weighted(ids, list(proba.values())), pseudo_labels.from_majority(majority(hand()))
    assert labels(table) == labels(paper)
    assert table["weight"].tolist() == pytest.approx([0.6, 0.4, 0.4, 0.4], abs=1e-12)


def test_one_sure_voter_outweighs_two_unsure_ones():
    proba = [rows({"fx-o": 0.9}), rows({"ss-u": 0.3}), rows({"ss-u": 0.3})]
    assert labels(pseudo_labels.weighted(["1"], proba)) == {"1": "fx-o"}
    assert labels(pseudo_labels.weighted(["1"], [rows({"fx-o": 0.6}), *proba[1:]])) == {}  # half is not more than half


def test_the_crowd_as_a_fourth_vote_needs_three_of_four():
    ids, proba = soft_votes(hand())
    crowd = ["ss-u", "fx-o", "m-other", "sp-s", "fx-o"]
    table = pseudo_labels.crowd_vote(ids, list(proba.values()), crowd)
    assert labels(table) == {"10": "fx-o", "11": "fx-o"}  # 12 to 14: 2 of 4 at most


def test_without_a_filter_every_crowd_label_of_the_23_classes_is_kept():
    assert labels(pseudo_labels.crowd_only(IDS, ["fx-o", "fx-other", "fx"])) == {"1": "fx-o"}


def test_confident_learning_by_hand():
    # thresholds: fx-o (0.9 + 0.7 + 0.05) / 3 = 0.55, ss-u (0.8 + 0.6) / 2 = 0.7
    mean = rows({"fx-o": 0.9}, {"fx-o": 0.7}, {"fx-o": 0.05, "ss-u": 0.85}, {"ss-u": 0.8}, {"ss-u": 0.6}, {"m-m": 0.99})
    crowd = ["fx-o", "fx-o", "fx-o", "ss-u", "ss-u", "m-other"]
    table = pseudo_labels.confident(list("abcdef"), mean, crowd)
    assert labels(table) == {"a": "fx-o", "b": "fx-o", "d": "ss-u", "e": "ss-u"}
    weaker = mean.copy()
    weaker[2] = rows({"fx-o": 0.05, "ss-u": 0.65})[0]  # likely ss-u, but not as sure as clips called ss-u are
    assert "c" in labels(pseudo_labels.confident(list("abcdef"), weaker, crowd))


def test_confident_learning_is_cleanlabs():
    find = pytest.importorskip("cleanlab.filter", reason="cleanlab is not installed").find_label_issues
    rng = np.random.default_rng(3)
    truth, given = rng.integers(0, 20, 600), rng.integers(0, 20, 600)
    given = np.where(rng.random(600) < 0.6, truth, given)
    mean = rng.dirichlet(np.full(23, 0.2), 600) * 0.6
    mean[np.arange(600), truth] += 0.4
    issues = find(labels=given, pred_probs=mean, filter_by="confident_learning", n_jobs=1)
    ids = [str(i) for i in range(600)]
    table = pseudo_labels.confident(ids, mean, np.array(CLASSES)[given])
    assert 100 < len(table) < 550
    assert table["sound_id"].tolist() == [i for i, bad in zip(ids, issues, strict=True) if not bad]


def simulated(seed=0, n=4000):
    """Truth, and three voters whose logits are true log-probabilities times a number: its inverse calibrates them."""
    rng = np.random.default_rng(seed)
    logits = 2.2 * rng.normal(size=(n, 23))
    main = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([rng.choice(23, p=p) for p in main])
    return main, truth


def test_the_temperature_that_was_put_in_is_found():
    main, truth = simulated()
    codes = np.array(CLASSES)[truth]
    for t in (0.5, 1.0, 2.0):
        spoiled = pseudo_labels.tempered(main, t)
        assert pseudo_labels.temperature(spoiled, pseudo_labels.one_hot(codes)) == pytest.approx(1 / t, rel=0.06)


def test_the_others_are_calibrated_on_the_main_voter_without_any_label():
    main, truth = simulated()
    half = len(main) // 2
    proba = {"M": pseudo_labels.tempered(main, 1.6)[half:], "P": pseudo_labels.tempered(main, 0.5)[half:]}
    held_out = pseudo_labels.tempered(main, 1.6)[:half], np.array(CLASSES)[truth[:half]]
    out, t = pseudo_labels.calibrated(proba, "M", held_out)
    assert list(out) == list(t) == ["M", "P", "mean"]
    assert t["M"] == pytest.approx(1 / 1.6, rel=0.08) and t["P"] == pytest.approx(2, rel=0.1)
    for p in out.values():
        right = p.argmax(1) == truth[half:]
        assert p.max(1).mean() == pytest.approx(right.mean(), abs=0.03)
    assert abs(proba["P"].max(1).mean() - right.mean()) > 0.1  # before


def test_every_strategy_has_words_and_the_papers_filter_comes_first():
    voters = hand()
    ids, proba = soft_votes(voters)
    crowd = pd.Series(["fx-o", "m-m", "ss-u", "fx-other", "m-m"], index=ids)
    chosen = pseudo_labels.strategies(voters, crowd, proba | {"mean": np.mean(list(proba.values()), axis=0)})
    assert list(chosen) == list(STRATEGIES) and list(chosen)[0] == "majority"
    assert labels(chosen["majority"]) == {h[0]: h[4] for h in HAND if h[4]}
    assert labels(chosen["unanimous"]) == {"10": "fx-o"}
    by = pseudo_labels.kept_by(["14", "13"], chosen)
    assert by[1].startswith("majority,") and "crowd label" not in by[1] and "majority" not in by[0]


def test_kept_clips_join_the_training_part_alone():
    dev = pd.DataFrame({"sound_id": ["1", "2", "3"], "class": ["fx-o", "ss-u", "m-m"]})
    noisy = pd.DataFrame({"sound_id": ["7", "8", "9"]})
    one = pd.DataFrame({"sound_id": ["9", "7"], "label": ["sp-s", "fx-a"], "weight": [0.5, 0.25]})
    two = pd.DataFrame({"sound_id": ["7"], "label": ["ss-i"], "weight": [1.0]})
    fold = Fold(0, np.array([0, 1]), np.array([2]), np.array([2]))
    rows, y, weight, folds = pseudo_labels.added(dev, noisy, [one, two], fold)
    assert rows.tolist() == [0, 2, 0] and y.tolist() == ["fx-o", "ss-u", "m-m", "fx-a", "sp-s", "ss-i"]
    assert weight.tolist() == [1, 1, 1, 0.25, 0.5, 1]
    assert [f.train.tolist() for f in folds] == [[0, 1, 3, 4], [0, 1, 5]] and [f.fold for f in folds] == [0, 1]
    assert all(f.scored.tolist() == f.val.tolist() == [2] for f in folds)


# --- judging


def test_precision_goes_by_the_label_given_and_recall_by_the_truth():
    truth = pd.DataFrame({"sound_id": list("abcde"), "class": ["fx-o", "fx-o", "fx-o", "ss-u", "m-m"]})
    kept = pd.DataFrame({"sound_id": list("abd"), "label": ["fx-o", "ss-u", "ss-u"], "weight": 1.0})
    overall, by_class = judged(kept, truth)
    assert overall == {"precision": 2 / 3, "recall": 2 / 5}
    by_class = by_class.set_index("class")
    assert by_class.loc["fx-o"].tolist() == [3, 1, 1.0, 1 / 3]
    assert by_class.loc["ss-u"].tolist() == [1, 2, 0.5, 1.0]
    assert (
        by_class.loc["m-m", "n"] == 1
        and np.isnan(by_class.loc["m-m", "precision"])
        and by_class.loc["m-m", "recall"] == 0
    )
    assert np.isnan(by_class.loc["sp-s", "recall"])
    assert np.isnan(judged(kept.iloc[:0], truth)[0]["precision"])


def test_the_truth_is_read_where_the_demo_corpus_wrote_it(tmp_path):
    assert pseudo_labels.known_truth(tmp_path) is None
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/noisy_truth.csv").write_text("sound_id,class\n800001,fx-o\n")
    assert pseudo_labels.known_truth(tmp_path).to_dict("records") == [{"sound_id": "800001", "class": "fx-o"}]


def test_the_figure_writes_per_cent_and_leaves_unknown_cells_empty():
    from matplotlib.figure import Figure

    truth = pd.DataFrame({"sound_id": list("abc"), "class": ["fx-o", "fx-o", "ss-u"]})
    kept = pd.DataFrame({"sound_id": list("ab"), "label": ["fx-o", "fx-o"], "weight": 1.0})
    axes = filters_by_class({"one": judged(kept, truth)[1], "two": judged(kept.iloc[:1], truth)[1]}, fig=Figure())
    written = [[t.get_text() for t in ax.texts] for ax in axes]
    assert written == [["100", "100"], ["100", "0", "50", "0"]]  # precision of fx-o; recall of fx-o and ss-u


# --- labelled clips among the noisy ones


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """30 labelled sounds and 30 other noisy ones, as files; then three labelled ones planted into the noisy set.

    ``901`` the same file, ``902`` encoded again as ogg, ``903`` quieter and cut by 5 ms, by the same uploader.
    """
    import soundfile as sf

    folder = tmp_path_factory.mktemp("sounds")
    encoder, rng = LogMelEncoder(), np.random.default_rng(5)
    rate = encoder.sample_rate
    waves = []
    for _ in range(60):
        t = np.arange(int(rate * rng.uniform(0.6, 1.6))) / rate
        tone = np.sin(2 * np.pi * rng.uniform(100, 4000) * t * (1 + rng.uniform(0, 1) * t))
        waves.append(0.3 * tone * np.exp(-t * rng.uniform(0, 8)) + rng.uniform(0.001, 0.1) * rng.normal(size=len(t)))

    def table(ids, uploader):
        return pd.DataFrame({"sound_id": ids, "uploader": uploader, "path": [str(folder / f"{i}.wav") for i in ids]})

    dev = table([str(i) for i in range(30)], [f"dev{i % 6}" for i in range(30)])
    noisy = table([str(i) for i in range(800, 830)], [f"crowd{i % 6}" for i in range(30)])
    for path, wave in zip([*dev["path"], *noisy["path"]], waves, strict=True):
        sf.write(path, wave, rate, subtype="PCM_16")
    planted = table(["901", "902", "903"], ["someone", "", dev["uploader"][7]])
    planted["path"] = planted["path"].str.replace("902.wav", "902.ogg")
    (folder / "901.wav").write_bytes((folder / "5.wav").read_bytes())
    sf.write(folder / "902.ogg", waves[6], rate, format="OGG", subtype="VORBIS")
    sf.write(folder / "903.wav", 0.8 * waves[7][rate // 200 :], rate, subtype="PCM_16")
    noisy = pd.concat([noisy, planted], ignore_index=True)
    vectors = [encoder.encode([load_audio(p, rate) for p in frame["path"]]) for frame in (dev, noisy)]
    return dev, noisy, *vectors


def test_validation_clips_planted_into_the_noisy_set_are_caught(corpora):
    dev, noisy, dev_audio, noisy_audio = corpora
    found = duplicates(dev, noisy, dev_audio, noisy_audio)
    assert found.to_dict("split")["data"] == [
        ["901", "5", "same file"],
        ["902", "6", "same sound"],
        ["903", "7", "same uploader, near sound"],
    ]


def test_the_same_id_is_found_without_files_and_embeddings(corpora):
    dev, noisy, *_ = corpora
    again = pd.concat([noisy[["sound_id"]], pd.DataFrame({"sound_id": ["11"]})])
    assert duplicates(dev, again).to_dict("split")["data"] == [["11", "11", "same id"]]


def test_files_alone_find_the_copy_and_embeddings_alone_find_it_too(corpora):
    dev, noisy, dev_audio, noisy_audio = corpora
    assert duplicates(dev, noisy)["sound_id"].tolist() == ["901"]
    bare = [t.assign(path="") for t in (dev, noisy)]
    found = duplicates(*bare, dev_audio, noisy_audio).set_index("sound_id")["reason"]
    assert found["901"] == found["902"] == "same sound"


def test_the_thresholds_decide(corpora):
    strict = duplicates(*corpora, cosine=0.99999, same_uploader=0.9999)
    assert strict["sound_id"].tolist() == ["901"]


def test_a_near_sound_of_another_or_an_unknown_uploader_is_no_duplicate(corpora):
    dev, noisy, dev_audio, noisy_audio = corpora
    assert "903" not in duplicates(dev, noisy.assign(uploader="crowd0"), dev_audio, noisy_audio)["sound_id"].tolist()
    nobody = [t.assign(uploader="") for t in (dev, noisy)]
    assert "903" not in duplicates(*nobody, dev_audio, noisy_audio)["sound_id"].tolist()


def test_more_clips_than_one_block_holds_are_compared_alike():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 16)), rng.normal(size=(2100, 16))
    b[[3, 1500, 2099]] = 2 * a[[7, 8, 9]]
    dev, noisy = (pd.DataFrame({"sound_id": [f"{p}{i}" for i in range(n)]}) for p, n in (("d", 50), ("n", 2100)))
    found = duplicates(dev, noisy, a, b)
    assert found["duplicate_of"].tolist() == ["d8", "d9", "d7"]  # n1500, n2099, n3


def test_embeddings_of_another_length_are_an_error():
    frame = pd.DataFrame({"sound_id": ["1", "2"]})
    with pytest.raises(HacError, match="3 embeddings for 2 clips"):
        duplicates(frame, frame.assign(sound_id=["3", "4"]), np.ones((2, 4)), np.ones((3, 4)))

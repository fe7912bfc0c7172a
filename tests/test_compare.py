"""Comparing two files of predictions: every form is read, every disagreement is one clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hac_utils.compare import compare_files, format_comparison
from hac_utils.errors import HacError
from hac_utils.io import dump_json
from hac_utils.metrics import hierarchical_accuracy, hierarchical_f1
from hac_utils.schema import argmax_codes, predictions_table, proba_of
from hac_utils.stats import gains, paired_bootstrap, verdict
from hac_utils.taxonomy import CLASS_IDX, CLASSES, FAMILIES
from hac_utils.variance import corrected_t_test

CODES = np.array(CLASSES)
N = 400
IDS = [str(1000 + i) for i in range(N)]
_RNG = np.random.default_rng(0)
TRUE = CODES[_RNG.integers(0, 23, N)]
A = np.where(_RNG.random(N) < 0.8, TRUE, CODES[_RNG.integers(0, 23, N)])
B = np.where(_RNG.random(N) < 0.55, TRUE, CODES[_RNG.integers(0, 23, N)])
FOLD = np.arange(N) % 5
UPLOADER = [f"u{i // 4}" if i < 300 else "" for i in range(N)]
FAST = {"n_resamples": 400}


def write(path: Path, frame) -> Path:
    frame = pd.DataFrame(frame)
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def oof(path: Path, pred, **columns) -> Path:
    """A file in the layout of the published out-of-fold predictions."""
    return write(path, {"sound_id": IDS, "gt": TRUE, "pred": pred, "fold": FOLD} | columns)


def proba_table(pred, seed: int, noise: float = 0.0, system: str = "gated") -> pd.DataFrame:
    """A predictions table whose most probable class is `pred`, but on a share `noise` of the clips."""
    rng = np.random.default_rng([seed, 5])
    pred = np.where(rng.random(N) < noise, CODES[rng.integers(0, 23, N)], pred)
    proba = np.full((N, 23), 0.01)
    proba[np.arange(N), [CLASSES.index(c) for c in pred]] = 0.78
    return predictions_table(IDS, proba, CLASSES, system=system, seed=seed, fold=FOLD)


@pytest.fixture
def files(tmp_path):
    """Two files without truth, and the truth."""
    a = write(tmp_path / "a.csv", {"sound_id": IDS, "pred": A})
    b = write(tmp_path / "b.csv", {"sound_id": IDS, "pred": B})
    truth = write(tmp_path / "truth.csv", {"sound_id": IDS, "class": TRUE, "uploader": UPLOADER})
    return a, b, truth


def error_of(*args, **options) -> str:
    with pytest.raises(HacError) as e:
        compare_files(*args, **options, n_resamples=50)
    return str(e.value)


def test_the_result_has_exactly_the_agreed_keys_and_is_json(files):
    result = compare_files(*files, **FAST)
    assert set(result) == set(
        "a b metric n diff low high p level verdict unit clips clusters folds counts per_class per_family "
        "seed_noise left_out notes".split()
    )
    assert set(result["a"]) == set("file name hF hA strict_hF accuracy n_seeds".split())
    assert set(result["clips"]) == set(result["clusters"]) == {"low", "high", "p", "verdict"}
    assert list(result["per_class"][0]) == "class name n a b diff low high p p_holm survives".split()
    assert [r["class"] for r in result["per_class"]] == list(CLASSES)
    assert [r["family"] for r in result["per_family"]] == list(FAMILIES)
    assert dump_json(result) == dump_json(compare_files(*files, **FAST))


def test_the_numbers_are_those_of_the_statistics_in_points(files):
    result = compare_files(*files, seed=3, **FAST)
    clips = paired_bootstrap(TRUE, A, B, seed=3, **FAST)
    clusters = paired_bootstrap(TRUE, A, B, seed=3, cluster=UPLOADER, **FAST)
    assert result["a"]["hF"] == pytest.approx(100 * hierarchical_f1(TRUE, A), abs=1e-10)
    assert result["b"]["hA"] == pytest.approx(100 * hierarchical_accuracy(TRUE, B), abs=1e-10)
    assert result["a"]["accuracy"] == pytest.approx(100 * (TRUE == A).mean(), abs=1e-10)
    assert result["diff"] == pytest.approx(result["a"]["hF"] - result["b"]["hF"], abs=1e-10)
    assert (result["low"], result["p"], result["unit"]) == (100 * clusters["low"], clusters["p"], "uploader")
    assert (result["clips"]["low"], result["clusters"]["high"]) == (100 * clips["low"], 100 * clusters["high"])
    assert result["verdict"] == verdict(clusters) and result["clips"]["verdict"] == verdict(clips)
    assert result["verdict"].startswith("better")
    counts = result["counts"]
    assert counts["only_a"] == ((A == TRUE) & (B != TRUE)).sum() and sum(counts.values()) - counts["p"] == N
    table = gains(TRUE, A, B, seed=3, cluster=UPLOADER, **FAST)
    for row, expected in zip(result["per_class"] + result["per_family"], table.to_dict("records"), strict=True):
        assert row["n"] == expected["n"] and row["p_holm"] == expected["p_holm"]
        assert row["diff"] == pytest.approx(100 * expected["diff"], abs=1e-10)
        assert row["survives"] == (expected["p_holm"] <= 0.05 and not expected["low"] <= 0 <= expected["high"])
    assert {r["survives"] for r in result["per_family"]} == {True, False}


def test_swapping_the_files_flips_the_sign(files):
    a, b, truth = files
    one, two = compare_files(a, b, truth, **FAST), compare_files(b, a, truth, **FAST)
    assert one["diff"] == pytest.approx(-two["diff"], abs=1e-10) and two["verdict"].startswith("worse")
    assert (one["counts"]["only_a"], one["counts"]["only_b"]) == (two["counts"]["only_b"], two["counts"]["only_a"])


def test_a_file_against_itself_is_a_tie_in_every_row(files):
    result = compare_files(files[0], files[0], files[2], **FAST)
    assert result["diff"] == 0 and result["verdict"].startswith("tie") and result["counts"]["p"] == 1
    assert not any(r["survives"] for r in result["per_class"] + result["per_family"])


def test_without_a_cluster_column_or_without_the_wish_the_verdict_is_over_clips(files, tmp_path):
    a, b, truth = files
    plain = write(tmp_path / "plain.csv", {"sound_id": IDS, "class": TRUE})
    for result in (compare_files(a, b, plain, **FAST), compare_files(a, b, truth, cluster="", **FAST)):
        assert result["unit"] == "clip" and result["clusters"] is None
        assert result["verdict"] == result["clips"]["verdict"]
    assert "no column 'upload'" in error_of(a, b, truth, cluster="upload")
    assert "did you mean 'uploader'" in error_of(a, b, truth, cluster="upload")


def test_hA_can_be_compared_and_another_metric_is_refused(files):
    result = compare_files(*files, metric="hA", **FAST)
    assert result["diff"] == pytest.approx(result["a"]["hA"] - result["b"]["hA"], abs=1e-10)
    assert "known: hF, hA" in error_of(*files, metric="hf")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_every_form_that_evaluate_reads_gives_the_same_comparison(files, tmp_path, ending):
    expected = compare_files(*files, **FAST)
    order = np.random.default_rng(1).permutation(N)
    a = proba_table(A, 0).iloc[order]
    b = pd.DataFrame({"file_name": [f"x/{i}.wav" for i in IDS], "class_idx": [CLASS_IDX[c] for c in B]})
    truth = pd.DataFrame({"id": [int(i) for i in IDS], "label": TRUE, "uploader": UPLOADER})
    paths = (write(tmp_path / f"{n}{ending}", f) for n, f in (("pa", a), ("pb", b), ("t", truth)))
    result = compare_files(*paths, **FAST)
    keys = "diff low high p verdict clips clusters counts per_class per_family".split()
    assert {k: result[k] for k in keys} == {k: expected[k] for k in keys}


def test_the_truth_may_be_left_out_when_both_files_carry_it(tmp_path, files):
    a, b = oof(tmp_path / "oa.csv", A), oof(tmp_path / "ob.csv", B)
    result = compare_files(a, b, **FAST)
    assert result["clips"] == compare_files(*files, **FAST)["clips"] and result["unit"] == "clip"
    assert "no column with the true class" in error_of(a, files[1])
    assert "--truth" in error_of(files[0], files[1])
    assert "no table of truth" in error_of(a, b, cluster="license")


def test_two_truths_that_disagree_are_an_error_that_names_the_clips(tmp_path, files):
    other = TRUE.copy()
    other[7] = "ss-u" if TRUE[7] != "ss-u" else "ss-n"
    a, b = oof(tmp_path / "oa.csv", A), oof(tmp_path / "ob.csv", B, gt=other)
    text = error_of(a, b)
    assert "disagree about the true class of 1 (1007)" in text and "--truth" in text
    result = compare_files(a, b, files[2], **FAST)
    assert result["clips"] == compare_files(*files, **FAST)["clips"]
    assert [n for n in result["notes"] if "differs" in n] == [
        "truth within predictions b differs from the truth file for 1 (1007) clips"
    ]


def test_a_class_column_that_holds_the_predictions_is_not_taken_for_a_truth(tmp_path):
    paths = [write(tmp_path / f"{n}.csv", {"sound_id": IDS, "class": p}) for n, p in (("a", A), ("b", B))]
    assert error_of(*paths).count("no column with the true class") == 2


def test_folds_that_agree_add_the_corrected_t_test(tmp_path):
    a, b = oof(tmp_path / "a.csv", A), oof(tmp_path / "b.csv", B)
    folds = compare_files(a, b, **FAST)["folds"]
    d = [
        hierarchical_f1(TRUE[FOLD == k], A[FOLD == k]) - hierarchical_f1(TRUE[FOLD == k], B[FOLD == k])
        for k in range(5)
    ]
    test = corrected_t_test(d, n_train=320, n_test=80)
    assert [r["diff"] for r in folds["per_fold"]] == pytest.approx([100 * x for x in d], abs=1e-10)
    assert (folds["p"], folds["df"], folds["n_train"], folds["n_test"]) == (pytest.approx(test["p"]), 4, 320, 80)
    assert folds["low"] == pytest.approx(100 * test["low"], abs=1e-10) and folds["verdict"] == verdict(test)
    assert folds["a"] - folds["b"] == pytest.approx(folds["diff"], abs=1e-10)


def test_folds_that_differ_or_are_one_give_no_test_and_the_first_is_said(tmp_path):
    a, b = oof(tmp_path / "a.csv", A), oof(tmp_path / "b.csv", B, fold=(FOLD + (np.arange(N) < 3)) % 5)
    result = compare_files(a, b, **FAST)
    assert result["folds"] is None and any("differ in the fold of 3 clips" in n for n in result["notes"])
    one = oof(tmp_path / "one.csv", A, fold=0)
    assert compare_files(one, one, **FAST)["folds"] is None


def test_several_seeds_are_averaged_and_their_noise_enters_the_verdict(tmp_path, files):
    seeds = [proba_table(A, s, noise=0.3) for s in range(3)]
    a = write(tmp_path / "seeds.parquet", pd.concat(seeds, ignore_index=True).sample(frac=1, random_state=0))
    result = compare_files(a, files[1], files[2], **FAST)
    mean = argmax_codes(np.mean([proba_of(s) for s in seeds], axis=0))
    assert result["a"]["hF"] == pytest.approx(100 * hierarchical_f1(TRUE, mean), abs=1e-10)
    assert result["a"]["name"] == "gated" and (result["a"]["n_seeds"], result["b"]["n_seeds"]) == (3, 1)
    per_seed = [100 * hierarchical_f1(TRUE, argmax_codes(proba_of(s))) for s in seeds]
    assert result["seed_noise"] == pytest.approx(np.std(per_seed, ddof=1) / 3**0.5, abs=1e-10)
    assert f"seed noise {result['seed_noise']:.2f}" in result["verdict"]
    assert any("mean probabilities of 3 seeds (0, 1, 2)" in n for n in result["notes"])


def test_two_systems_of_one_table_are_chosen_by_name(tmp_path, files):
    both = pd.concat([proba_table(A, 0), proba_table(B, 0, system="concat")])
    path = write(tmp_path / "both.parquet", both)
    result = compare_files(path, path, files[2], system_a="gated", system_b="concat", **FAST)
    assert (result["a"]["name"], result["b"]["name"]) == ("gated", "concat")
    assert result["clips"] == compare_files(*files, **FAST)["clips"]
    text = error_of(path, path, files[2], system_b="concta")
    assert "holds 2 (concat, gated) systems" in text and "--system-a" in text and "did you mean 'concat'" in text
    assert "no column 'system'" in error_of(files[0], path, files[2], system_a="gated", system_b="concat")


def test_systems_of_the_same_name_are_told_apart_by_their_files(tmp_path, files):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    a, b = oof(tmp_path / "x" / "oof.csv", A), oof(tmp_path / "y" / "oof.csv", B)
    result = compare_files(a, b, **FAST)
    assert (result["a"]["name"], result["b"]["name"]) == (f"oof ({a})", f"oof ({b})")


def test_clips_that_are_not_everywhere_are_counted_and_refused_unless_a_subset_is_asked_for(tmp_path):
    def cut(name, rows, **columns):
        return write(tmp_path / f"{name}.csv", {k: np.array(v)[rows] for k, v in columns.items()})

    a = cut("a", slice(0, 398), sound_id=IDS, pred=A)
    b = cut("b", slice(3, 399), sound_id=IDS, pred=B)
    truth = cut("t", slice(10, 400), sound_id=IDS, **{"class": TRUE})
    text = error_of(a, b, truth)
    assert "only in a: 3 (1000, 1001, 1002); only in b: 1 (1398)" in text
    assert "without a truth: 10 (first 3: 1000, 1001, 1002); in the truth only: 1 (1399)" in text
    assert "388" in text and "--subset" in text
    result = compare_files(a, b, truth, subset=True, **FAST)
    assert result["n"] == 388
    assert result["left_out"] == {"only_in_a": 3, "only_in_b": 1, "without_truth": 10, "truth_only": 1}
    i = slice(10, 398)
    assert result["diff"] / 100 == pytest.approx(hierarchical_f1(TRUE[i], A[i]) - hierarchical_f1(TRUE[i], B[i]))
    assert any(n.startswith("subset: 388 clips compared") for n in result["notes"])


def test_files_without_a_common_clip_say_so_even_as_a_subset(tmp_path, files):
    strange = write(tmp_path / "s.csv", {"sound_id": [f"x{i}" for i in IDS], "pred": A})
    for subset in (False, True):
        assert "no clip is in all files" in error_of(strange, files[1], files[2], subset=subset)


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"sound_id": ["1000"] * 2 + IDS[2:]}, "ids that occur twice: 1 (1000)"),
        ({"pred": ["m-x", *A[1:]]}, "unknown classes: 1 (m-x)"),
        ({"pred": ["", *A[1:]]}, "clips without a class: 1 (1000)"),
        ({"sound_id": None}, "no id column found"),
        ({"pred": None}, "no class column found"),
        ({"gt": ["fx-other", *TRUE[1:]]}, "remove these clips"),
    ],
)
def test_each_fault_of_a_file_is_named_with_its_file(tmp_path, columns, message):
    frame = {"sound_id": IDS, "gt": TRUE, "pred": A} | columns
    bad = write(tmp_path / "bad.csv", {k: v for k, v in frame.items() if v is not None})
    good = oof(tmp_path / "good.csv", B)
    for pair in ((bad, good), (good, bad)):
        text = error_of(*pair)
        assert message in text and "bad.csv" in text and "good.csv (" not in text


def test_all_problems_come_in_one_error_and_missing_files_are_named(tmp_path, files):
    bad = write(tmp_path / "bad.csv", {"sound_id": IDS, "pred": ["m-x", *A[1:]]})
    text = error_of(bad, tmp_path / "none.csv", tmp_path / "nowhere.csv")
    assert "3 problems" in text and "m-x" in text and text.count("no such file") == 2


def test_seeds_that_cannot_be_averaged_are_an_error(tmp_path, files):
    labels = pd.concat([pd.DataFrame({"sound_id": IDS, "pred": A, "seed": s}) for s in (0, 1)])
    text = error_of(write(tmp_path / "l.csv", labels), files[1], files[2])
    assert "2 (0, 1) seeds, and one class per clip cannot be averaged" in text
    uneven = pd.concat([proba_table(A, 0), proba_table(A, 1).iloc[:-1]])
    text = error_of(write(tmp_path / "u.parquet", uneven), files[1], files[2])
    assert "seeds 0 and 1 differ in the clips 1 (1399)" in text


def test_the_printed_comparison_opens_with_the_verdict_and_fits_100_columns(tmp_path, files):
    deep = tmp_path / ("a_long_folder_name_" * 6)
    deep.mkdir()
    a, b = oof(deep / "same.csv", A), oof(tmp_path / "same.csv", B)
    result = compare_files(a, b, files[2], **FAST)
    text = format_comparison(result)
    lines = text.splitlines()
    assert lines[0] == result["verdict"] and max(map(len, lines)) <= 100
    assert "interval over uploaders" in lines[1] and "400 clips" in lines[1]
    for figure in (result["a"]["hF"], result["diff"], result["clusters"]["low"], result["folds"]["high"]):
        assert f"{figure:.2f}" in text
    assert sum(line.endswith(" *") for line in lines) == sum(
        r["survives"] for r in result["per_class"] + result["per_family"]
    )
    assert all(any(line.startswith(f"{c} ") for line in lines) for c in CLASSES)


def test_a_class_without_clips_shows_dashes(tmp_path):
    keep = (TRUE != "fx-a").nonzero()[0]
    columns = {"sound_id": np.array(IDS)[keep], "gt": TRUE[keep]}
    a, b = (write(tmp_path / f"{n}.csv", columns | {"pred": p[keep]}) for n, p in (("a", A), ("b", B)))
    result = compare_files(a, b, **FAST)
    row = result["per_class"][CLASSES.index("fx-a")]
    assert row["n"] == 0 and row["diff"] is None and row["p_holm"] is None and row["survives"] is False
    assert "–" in next(line for line in format_comparison(result).splitlines() if line.startswith("fx-a"))
    dump_json(result)


def test_two_published_systems_differ_as_the_index_says(real):
    index = pd.read_csv(real / "oof" / "INDEX.csv").set_index("system")
    names = ("nyu_baseline__audio", "nyu_baseline__both")
    result = compare_files(*(real / "oof" / f"{n}.csv" for n in names), real / "bsd10k_labels.csv")
    for side, name in zip("ab", names, strict=True):
        assert result[side]["name"] == name
        for key, column in (("hF", "hF"), ("hA", "hA"), ("accuracy", "acc")):
            assert result[side][key] == pytest.approx(100 * index.loc[name, column], abs=0.005 + 1e-9)
        assert result["folds"][side] == pytest.approx(100 * index.loc[name, "hF_fold_mean"], abs=0.005 + 1e-9)
    assert result["diff"] == pytest.approx(75.56066796383583 - 78.64137275087771, abs=1e-10)
    assert result["n"] == 10_956 and result["unit"] == "uploader" and result["verdict"].startswith("worse: -3.08")
    assert -4.3 < result["clips"]["low"] < -3.6 and -2.5 < result["clips"]["high"] < -2.0
    assert result["folds"]["verdict"].startswith("worse") and 0.005 < result["folds"]["p"] < 0.03
    assert result["counts"]["only_b"] > result["counts"]["only_a"]
    lost = {r["class"] for r in result["per_class"] if r["survives"] and r["diff"] < 0}
    assert {"fx-n", "fx-o", "fx-m", "fx-el"} <= lost and not any(
        r["diff"] > 0 for r in result["per_class"] if r["survives"]
    )


def test_a_published_system_without_some_clips_needs_a_subset(real):
    full, short = real / "oof" / "nyu_baseline__both.csv", real / "oof" / "nyu_beats__both.csv"
    assert "only in a: 81 " in error_of(full, short)
    result = compare_files(full, short, subset=True, **FAST)
    assert result["n"] == 10_875 and result["left_out"]["only_in_a"] == 81

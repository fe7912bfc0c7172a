"""Scoring files: any usual column names and codings, one clear error otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hac_utils.errors import HacError
from hac_utils.evaluation import evaluate_files, format_evaluation
from hac_utils.io import dump_json
from hac_utils.schema import predictions_table
from hac_utils.taxonomy import CLASS_IDX, CLASSES, INDEX

REAL = Path(__file__).parents[2] / "shared" / "real"
needs_real = pytest.mark.skipif(not (REAL / "oof").exists(), reason=f"{REAL}/oof is not here")

TRUE = ["m-sp", "m-sp", "m-sp", "sp-s"]
PRED = ["m-sp", "m-sp", "m-m", "sp-s"]
IDS = ["11", "12", "13", "0014"]


def write(path: Path, frame: pd.DataFrame) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def files(folder: Path, pred: dict, true: dict | None = None, ending: str = ".csv") -> tuple[Path, Path]:
    true = {"sound_id": IDS, "class": TRUE} if true is None else true
    return write(folder / f"p{ending}", pd.DataFrame(pred)), write(folder / f"t{ending}", pd.DataFrame(true))


def error_of(*args, **options) -> str:
    with pytest.raises(HacError) as e:
        evaluate_files(*args, **options)
    return str(e.value)


EXPECTED = 50 * (2 * (1 + 1 + 0.375) / 3 / (1 + (1 + 1 + 0.375) / 3) + 1)  # percent, for TRUE and PRED


def test_the_result_has_exactly_the_agreed_keys_in_percent(tmp_path):
    result = evaluate_files(*files(tmp_path, {"sound_id": IDS, "pred": PRED}))
    assert set(result) == {"n", "hA", "official", "strict", "per_class", "notes"}
    assert set(result["official"]) == set(result["strict"]) == {"hP", "hR", "hF"}
    assert result["n"] == 4 and result["official"]["hF"] == pytest.approx(EXPECTED, abs=1e-10)
    assert result["hA"] == pytest.approx(100 * (2.5 / 3 + 1) / 2, abs=1e-10)
    rows = result["per_class"]
    assert [r["class"] for r in rows] == list(CLASSES)
    assert list(rows[0]) == ["class", "name", "n", "n_predicted", "accuracy", "hP", "hR", "hF"]
    assert rows[0]["name"] == "solo percussion" and (rows[0]["n"], rows[0]["n_predicted"]) == (3, 2)
    assert rows[0]["accuracy"] == pytest.approx(200 / 3, abs=1e-10)
    assert rows[2]["n_predicted"] == 1 and rows[2]["hF"] is None and rows[2]["accuracy"] is None
    dump_json(result)  # no NaN anywhere


def test_a_class_nobody_predicted_separates_the_readings_and_is_named(tmp_path):
    truth = {"sound_id": IDS, "class": ["m-sp", "m-sp", "m-m", "sp-s"]}
    result = evaluate_files(*files(tmp_path, {"sound_id": IDS, "pred": ["m-sp"] * 3 + ["sp-s"]}, truth))
    assert result["official"]["hF"] == pytest.approx(100 * 81 / 86, abs=1e-10)
    assert result["strict"]["hF"] == pytest.approx(100 * 27 / 43, abs=1e-10)
    assert any("never predicted: m-m." in note for note in result["notes"])


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("id_name", ["sound_id", "id", "anonymous_id", "eval_id", "clip_id", "fname", "Filename"])
def test_usual_id_names_are_found_in_every_format(tmp_path, ending, id_name):
    result = evaluate_files(*files(tmp_path, {id_name: IDS, "pred": PRED}, ending=ending))
    assert result["official"]["hF"] == pytest.approx(EXPECTED, abs=1e-10)
    assert f"predictions: id column '{id_name}', class column 'pred', class codes" in result["notes"]


@pytest.mark.parametrize(
    "class_name",
    "pred prediction predicted_class predicted_bst_second_level_class y_pred class label".split(),
)
def test_usual_prediction_names_are_found(tmp_path, class_name):
    result = evaluate_files(*files(tmp_path, {"id": IDS, class_name: PRED}))
    assert result["official"]["hF"] == pytest.approx(EXPECTED, abs=1e-10)


@pytest.mark.parametrize("class_name", ["class", "gt", "truth", "label", "y_true", "ground_truth", "target"])
def test_usual_truth_names_are_found(tmp_path, class_name):
    result = evaluate_files(*files(tmp_path, {"id": IDS, "pred": PRED}, {"id": IDS, class_name: TRUE}))
    assert result["official"]["hF"] == pytest.approx(EXPECTED, abs=1e-10)


@pytest.mark.parametrize("table, name", [(CLASS_IDX, "v1.2"), (INDEX, "v1.1")])
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_class_idx_of_either_release_is_read_on_either_side_and_named(tmp_path, table, name, ending):
    numbers = {"id": IDS, "class_idx": [table[c] for c in TRUE]}
    result = evaluate_files(*files(tmp_path, {"id": IDS, "pred": PRED}, numbers, ending))
    assert result["official"]["hF"] == pytest.approx(EXPECTED, abs=1e-10)
    assert any(note.startswith("truth:") and f"class_idx of {name}" in note for note in result["notes"])
    floats = {"id": IDS, "class_idx": [float(table[c]) for c in PRED]}
    result = evaluate_files(*files(tmp_path, floats, ending=ending))
    assert result["official"]["hF"] == pytest.approx(EXPECTED, abs=1e-10)
    assert any(note.startswith("predictions:") and f"class_idx of {name}" in note for note in result["notes"])


def test_codes_win_over_class_idx_when_the_truth_has_both(tmp_path):
    truth = {"sound_id": IDS, "class_idx": [999] * 4, "class": TRUE}
    assert evaluate_files(*files(tmp_path, {"id": IDS, "pred": PRED}, truth))["n"] == 4


def test_one_table_may_hold_truth_and_prediction(tmp_path):
    both = write(tmp_path / "oof.csv", pd.DataFrame({"sound_id": IDS, "gt": TRUE, "pred": PRED}))
    assert evaluate_files(both, both)["official"]["hF"] == pytest.approx(EXPECTED, abs=1e-10)


def test_named_columns_are_used(tmp_path):
    paths = files(tmp_path, {"a": IDS, "b": PRED, "pred": TRUE}, {"c": IDS, "d": TRUE, "class": PRED})
    names = {"id_column": "a", "class_column": "b", "truth_id_column": "c", "truth_class_column": "d"}
    assert evaluate_files(*paths, **names)["official"]["hF"] == pytest.approx(EXPECTED, abs=1e-10)
    message = error_of(*paths, **(names | {"class_column": "bb"}))
    assert "no column 'bb'" in message and "did you mean 'b'" in message and "p.csv (predictions)" in message


def test_file_names_and_whole_numbers_join_as_text(tmp_path):
    pred = {"filename": ["audio/11.wav", "audio\\12.WAV", "13.flac", "x/0014.wav"], "pred": PRED}
    assert evaluate_files(*files(tmp_path, pred))["n"] == 4
    numbers = write(tmp_path / "n.parquet", pd.DataFrame({"id": [11.0, 12.0, 13.0], "pred": PRED[:3]}))
    truth = write(tmp_path / "m.csv", pd.DataFrame({"id": [11, 12, 13], "class": TRUE[:3]}))
    assert evaluate_files(numbers, truth)["n"] == 3
    assert "no prediction for 1 (14)" in error_of(
        *files(tmp_path, {"id": IDS, "pred": PRED}, {"id": ["11", "12", "13", "14"], "class": TRUE})
    )


def probabilities(systems=("gated",), seeds=(0,)) -> pd.DataFrame:
    proba = np.full((4, 23), 0.01)
    proba[np.arange(4), [INDEX[c] for c in PRED]] = 0.78
    return pd.concat([predictions_table(IDS, proba, CLASSES, system=s, seed=k, fold=0) for s in systems for k in seeds])


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_of_probabilities_is_scored_by_its_most_probable_class(tmp_path, ending):
    paths = files(tmp_path, probabilities(), ending=ending)
    result = evaluate_files(*paths)
    assert result["official"]["hF"] == pytest.approx(EXPECTED, abs=1e-10)
    assert any("most probable of 23" in note for note in result["notes"])


def test_column_order_of_the_probabilities_does_not_matter_and_a_truth_column_beside_them_is_not_read(
    tmp_path,
):
    frame = probabilities()[["sound_id", *sorted(CLASSES)]].assign(**{"class": TRUE})
    assert evaluate_files(*files(tmp_path, frame))["official"]["hF"] == pytest.approx(EXPECTED, abs=1e-10)


def test_several_systems_need_a_choice_and_the_error_names_them(tmp_path):
    paths = files(tmp_path, probabilities(("gated", "audio"), (0, 1)))
    message = error_of(*paths)
    assert "--system audio --seed 0" in message and "--system gated --seed 1" in message
    assert "2 of them match --system gated" in error_of(*paths, system="gated")
    assert evaluate_files(*paths, system="gated", seed=1)["n"] == 4
    assert "no predictions for --system gate" in error_of(*paths, system="gate")
    assert "no predictions for --seed 2" in error_of(*paths, seed=2)
    plain = files(tmp_path, {"id": IDS, "pred": PRED})
    assert "no column 'system'" in error_of(*plain, system="gated")


def test_a_seed_of_zero_is_a_choice(tmp_path):
    paths = files(tmp_path, probabilities(("gated",), (0, 1)))
    assert evaluate_files(*paths, seed=0)["n"] == 4


def test_missing_and_extra_ids_are_named_unless_a_subset_is_asked_for(tmp_path):
    paths = files(tmp_path, {"id": ["11", "12", "13", "99"], "pred": PRED})
    message = error_of(*paths)
    assert "2 problems" in message and "no prediction for 1 (0014) of 4 clips" in message and "lacks: 1 (99)" in message
    result = evaluate_files(*paths, subset=True)
    assert result["n"] == 3
    assert any("left out 1 clips of the truth" in n and "1 predictions" in n for n in result["notes"])


def test_all_problems_of_both_files_come_in_one_error(tmp_path):
    pred = {"id": ["11", "11", "", "13"], "pred": ["m-sp", "m-xx", "m-m", ""]}
    truth = {"sound_id": IDS, "class": ["m-sp", "fx-other", "m-m", "fx-other"]}
    message = error_of(*files(tmp_path, pred, truth))
    for part in (
        "rows without an id: 1 of 4",
        "occur twice: 1 (11)",
        "clips without a class: 1 (13)",
        "unknown classes: 1 (m-xx), in 1 rows",
        "unknown classes: 1 (fx-other), in 2 rows",
        "no -other classes",
        "no prediction for 2 (0014, 12)",
        "p.csv (predictions)",
        "t.csv (truth)",
    ):
        assert part in message, part


@pytest.mark.parametrize(
    "pred, message",
    [
        ({"id": IDS, "pred": [101, 102, 999, 101]}, "unknown classes: 1 (999)"),
        ({"id": IDS, "pred": [0, 1, 23, 5]}, "unknown classes: 1 (23)"),
        ({"id": IDS, "pred": ["m-sp", "101", "m-m", "sp-s"]}, "unknown classes: 1 (101)"),
        ({"id": IDS, "guess": PRED}, "no class column found among 2 (id, guess)"),
        ({"name": IDS, "pred": PRED}, "no id column found among 2 (name, pred)"),
        ({"id": ["a", "b", "c", "d"], "pred": PRED}, "no id occurs in both files"),
        ({"id": [], "pred": []}, "no rows"),
        ({"id": IDS, "m-sp": [0.1] * 4}, "no probability column for 22 (first 5: m-si"),
        (probabilities().assign(**{"m-m": ["x", 0.1, 0.1, 0.1]}), "not all numbers: 1 (11)"),
    ],
)
def test_each_fault_of_the_predictions_is_named(tmp_path, pred, message):
    assert message in error_of(*files(tmp_path, pred))


def test_unreadable_files_are_both_named(tmp_path):
    (tmp_path / "t.csv").write_text("")
    message = error_of(tmp_path / "p.csv", tmp_path / "t.csv")
    assert "no such file" in message and "the file is empty" in message
    (tmp_path / "p.csv").write_text("id,id\n1,2\n")
    assert "the file is empty" in error_of(tmp_path / "p.csv", tmp_path / "t.csv")


def test_the_printed_table_shows_every_figure_and_dashes_where_undefined(tmp_path):
    result = evaluate_files(*files(tmp_path, {"sound_id": IDS, "pred": PRED}))
    text = format_evaluation(result)
    lines = text.splitlines()
    assert lines[0] == "4 clips" and text.endswith("\n") and max(map(len, lines[:-1])) < 200
    assert any(line.startswith("official") and f"{EXPECTED:.2f}" in line for line in lines)
    assert any(line.startswith("strict") for line in lines) and any(line.startswith("hA") for line in lines)
    row = next(line for line in lines if line.startswith("m-sp "))
    assert row.split()[-6:] == ["3", "2", "66.67", "100.00", "79.17", "88.37"]
    assert next(line for line in lines if line.startswith("ss-s ")).split()[-4:] == ["–"] * 4
    assert sum(line.startswith("note: ") for line in lines) == len(result["notes"])


@needs_real
@pytest.mark.parametrize("system, pooled", [("nyu_baseline__both", 78.64), ("nyu_baseline__audio", None)])
def test_published_predictions_score_against_the_published_labels(system, pooled):
    result = evaluate_files(REAL / "oof" / f"{system}.csv", REAL / "bsd10k_labels.csv")
    index = pd.read_csv(REAL / "oof" / "INDEX.csv").set_index("system").loc[system]
    assert result["n"] == 10_956
    assert result["official"]["hF"] == pytest.approx(100 * index["hF"], abs=0.006)
    assert result["hA"] == pytest.approx(100 * index["hA"], abs=0.006)
    if pooled:
        assert result["official"]["hF"] == pytest.approx(pooled, abs=0.006)


@needs_real
def test_an_incomplete_published_file_is_refused_and_scored_as_a_subset():
    paths = REAL / "oof" / "sk6002_stack4_fold0.csv", REAL / "bsd10k_labels.csv"
    assert "no prediction for 8764" in error_of(*paths)
    result = evaluate_files(*paths, subset=True)
    assert result["n"] == 2192 and any("left out 8764 clips" in note for note in result["notes"])

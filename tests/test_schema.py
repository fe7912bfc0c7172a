"""The predictions table: canonical form, checks, means."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hac_utils.errors import HacError
from hac_utils.io import write_csv, write_parquet
from hac_utils.schema import (
    KEYS,
    argmax_codes,
    mean_over_seeds,
    predictions_table,
    proba_of,
    read_predictions,
    validate_predictions,
    write_predictions,
)
from hac_utils.taxonomy import CLASSES


def table(n=6, seed=0, system="a", run_seed=0):
    p = np.random.default_rng([seed, n]).dirichlet(np.ones(23), n)
    return predictions_table(
        [f"{i}" for i in range(n)], p, CLASSES, system=system, seed=run_seed, fold=np.arange(n) % 5
    )


def test_a_table_has_keys_then_the_classes_in_taxonomy_order():
    t = table()
    assert t.columns.tolist() == KEYS + list(CLASSES)
    assert t["fold"].tolist() == [0, 1, 2, 3, 4, 0] and t["fold"].dtype == "int64"
    assert argmax_codes(proba_of(t)).tolist() == [CLASSES[i] for i in proba_of(t).argmax(axis=1)]


def test_columns_in_another_order_mean_the_same():
    t, order = table(), np.random.default_rng(1).permutation(23)
    shuffled = [CLASSES[i] for i in order]
    again = predictions_table(
        t["sound_id"], proba_of(t)[:, order], shuffled, system="a", seed=0, fold=t["fold"].to_numpy()
    )
    pd.testing.assert_frame_equal(again, t)
    pd.testing.assert_frame_equal(validate_predictions(t[[*reversed(KEYS), *shuffled]]), t)


def test_classes_a_model_never_saw_get_probability_zero():
    t = predictions_table(["1"], np.array([[0.25, 0.75]]), ["ss-u", "m-sp"], system="a", seed=0, fold=0)
    assert t.loc[0, "ss-u"] == 0.25 and t.loc[0, "m-sp"] == 0.75 and proba_of(t).sum() == 1
    validate_predictions(t)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_round_trip_keeps_every_number_and_sorts_the_rows(kind, tmp_path):
    both = pd.concat([table(system="b"), table(system="a", run_seed=1), table(system="a")], ignore_index=True)
    path = tmp_path / f"p.{kind}"
    if kind == "parquet":
        write_predictions(path, both.sample(frac=1, random_state=0))
    else:
        write_csv(path, both.sort_values(["system", "seed", "sound_id"]))
    expected = both.sort_values(["system", "seed", "sound_id"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(read_predictions(path), expected, check_exact=True)


def test_rewriting_in_another_row_order_gives_the_same_bytes(tmp_path):
    write_predictions(tmp_path / "a.parquet", table())
    write_predictions(tmp_path / "b.parquet", table().iloc[::-1])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_numeric_ids_become_text():
    t = validate_predictions(table().assign(sound_id=np.arange(6)))
    assert t["sound_id"].tolist() == ["0", "1", "2", "3", "4", "5"]


def broken(column, value, row=2):
    t = table().astype({column: object})
    t.loc[row, column] = value
    return t


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table().drop(columns="fx-n"), "fx-n"),
        (table().drop(columns=["seed", "fold"]), "seed, fold"),
        (broken("m-m", np.nan), r"NaN, infinite or negative: 1 \(2\)"),
        (broken("m-m", np.inf), r"NaN, infinite or negative: 1 \(2\)"),
        (broken("m-m", -0.1), r"NaN, infinite or negative: 1 \(2\)"),
        (broken("m-m", 0.99), r"do not sum to 1: 1 \(2\)"),
        (broken("m-m", "high"), "does not hold numbers"),
        (broken("seed", "x"), "does not hold numbers"),
        (broken("fold", None), "does not hold numbers"),
        (broken("sound_id", "0"), r"duplicate .*1 \(0\)"),
    ],
)
def test_a_broken_table_is_one_error_that_names_the_place(frame, message, tmp_path):
    with pytest.raises(HacError, match=message):
        validate_predictions(frame)
    with pytest.raises(HacError, match=message) as e:
        write_predictions(tmp_path / "p.parquet", frame)
    assert "p.parquet" in e.value.where and list(tmp_path.iterdir()) == []


def test_a_broken_file_names_itself(tmp_path):
    write_parquet(tmp_path / "p.parquet", table().drop(columns="sp-c"))
    with pytest.raises(HacError) as e:
        read_predictions(tmp_path / "p.parquet")
    assert e.value.where == str(tmp_path / "p.parquet")


def test_rounding_noise_in_the_sums_passes():
    t = table()
    t[list(CLASSES)] *= 1 + 9e-4
    validate_predictions(t)
    t.loc[3, list(CLASSES)] *= 1 + 2e-4
    with pytest.raises(HacError, match=r"1 \(3\); the first sums to 1.0011"):
        validate_predictions(t)


def test_the_mean_over_seeds_averages_each_clip_of_each_system():
    tables = [table(seed=s, run_seed=s) for s in range(3)] + [table(seed=9, system="b")]
    mean = mean_over_seeds(pd.concat(tables).sample(frac=1, random_state=1))
    assert mean["system"].tolist() == ["a"] * 6 + ["b"] * 6 and set(mean["seed"]) == {-1}
    expected = np.mean([proba_of(t) for t in tables[:3]], axis=0)
    np.testing.assert_allclose(proba_of(mean[mean["system"] == "a"]), expected, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(proba_of(mean[mean["system"] == "b"]), proba_of(tables[3]))
    assert mean.columns.tolist() == KEYS + list(CLASSES)
    assert mean["fold"].tolist() == [0, 1, 2, 3, 4, 0] * 2

"""Tables for reading: means, deviations and verdicts from predictions tables; what is quoted stays apart."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from hac_utils import tables
from hac_utils.schema import predictions_table
from hac_utils.taxonomy import CLASSES

CODES = np.array(CLASSES)
TRUTH = pd.DataFrame({
    "sound_id": [str(i) for i in range(460)],
    "class": np.repeat(CODES, 20),
    "uploader": [f"u{i % 90}" for i in range(460)],
})  # fmt: skip


def predictions(system: str, share_right: float, seeds=(0, 1), folds=2) -> pd.DataFrame:
    parts = []
    for seed in seeds:
        rng = np.random.default_rng([len(system), seed])
        right = rng.random(len(TRUTH)) < share_right
        guess = np.where(right, TRUTH["class"], CODES[rng.integers(23, size=len(TRUTH))])
        proba = (guess[:, None] == CODES[None, :]).astype(float)
        fold = np.arange(len(TRUTH)) % folds
        parts.append(predictions_table(TRUTH["sound_id"], proba, CLASSES, system=system, seed=seed, fold=fold))
    return pd.concat(parts, ignore_index=True)


FRAME = pd.concat([predictions("good", 0.9), predictions("poor", 0.3), predictions("same", 0.9)], ignore_index=True)


def test_a_summary_has_means_deviations_and_a_verdict_against_its_reference():
    table = tables.summarise(FRAME, TRUTH, over="fold", order=["good", "poor"], reference="good", n_resamples=500)
    poor_rows = FRAME[FRAME["system"] == "poor"]
    cells = poor_rows.groupby(["fold", "seed"])
    each = pd.Series({key: tables.score(part, TRUTH)["hF"] for key, part in cells})
    by_hand = each.groupby(level=0).mean()
    poor = table.set_index("system").loc["poor"]
    assert poor["hF"] == pytest.approx(100 * by_hand.mean()) and poor["hF std"] == pytest.approx(100 * np.std(by_hand))
    assert table["verdict"].tolist()[0] == "reference" and poor["verdict"].startswith("worse: -")
    assert poor["low"] < poor["diff"] < poor["high"] < 0 and "seed noise" in poor["verdict"]
    assert np.isnan(table.loc[0, "diff"])


def test_systems_scored_on_other_clips_are_not_compared():
    frame = pd.concat([predictions("good", 0.9), predictions("few", 0.9).query("fold == 0")], ignore_index=True)
    table = tables.summarise(frame, TRUTH, over="fold", order=["good", "few"], reference="good", n_resamples=50)
    assert table["verdict"].tolist() == ["reference", "other clips: not compared"]


def test_records_are_json_with_none_for_what_is_missing():
    table = tables.summarise(FRAME, TRUTH, over="seed", order=["good", "poor"], reference="good", n_resamples=50)
    rows = json.loads(json.dumps(tables.records(table), allow_nan=False))
    assert rows[0]["diff"] is None and rows[1]["diff"] < 0 and tables.records(pd.DataFrame()) == []


def test_each_step_is_compared_with_the_one_above():
    table = tables.stepwise(FRAME, TRUTH, ["poor", "good", "same"], n_resamples=500)
    words = table["against the row above"].tolist()
    assert words[0] == "" and words[1].startswith("better: +") and words[2].startswith("tie")


def test_published_figures_stand_in_columns_of_their_own():
    shown = tables.pretty(tables.summarise(FRAME, TRUTH, over="fold", order=["good", "poor"]))
    beside = tables.beside_published(shown, ["gated", "mine"])
    assert (
        beside["published hF"].tolist() == ["78.81 ± 1.08", ""] and beside["published hA"].tolist()[0] == "79.56 ± 0.96"
    )
    assert beside[shown.columns[:4].tolist()].equals(shown[shown.columns[:4].tolist()])


def test_the_confusion_table_shows_shares_and_counts():
    counts = np.zeros((23, 23), int)
    counts[0, 0], counts[0, 5] = 3, 1
    html = tables.confusion_table(counts).data
    assert ">75</td>" in html and ">25</td>" in html and 'title="m-sp taken for is-w: 1"' in html
    assert html.count("<tr>") == 24 and "<td>4</td>" in html

"""Figures: same bytes twice, labels that do not overlap, the right numbers in the right places."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

from hac_utils import plotting
from hac_utils.errors import HacError
from hac_utils.labels import spread
from hac_utils.overview import overview
from hac_utils.taxonomy import CLASSES, FAMILIES, N_CLASSES, family

SUMMARY = {
    "r_class": 0.7249,
    "r_class_ci": [0.641, 0.781],
    "spearman_class": -0.104,
    "conf_right": 3.7,
    "conf_wrong": 3.23,
    "conf_difference_ci": [0.43, 0.5],
}
COUNTS = {
    "dev": 10956,
    "noisy": 31464,
    "evaluation": 3246,
    "pseudo_kept": 27551,
    "audio_encoder": "LAION-CLAP",
    "text_encoder": "LAION-CLAP text",
    "weights": {"F": 0.55, "A": 0.25, "R": 1.0, "P": 0.5},
    "tau": 0.5,
}


@pytest.fixture(autouse=True)
def _agg():
    before = matplotlib.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)


def class_table(seed: int, spread_x: float = 0.25, spread_y: float = 0.12) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "class": CLASSES,
            "n": rng.integers(10, 1200, N_CLASSES),
            "accuracy": np.clip(rng.normal(0.75, spread_y, N_CLASSES), 0, 1),
            "mean_confidence": np.clip(rng.normal(3.6, spread_x, N_CLASSES), 1, 5),
        }
    )


def pairs_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "gt": ["sp-c", "m-m"],
            "pred": ["ss-u", "m-sp"],
            "n": [35, 40],
            "lost_credit": [35.0, 25.0],
            "mean_confidence": [3.2, np.nan],
        }
    )


def level_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "confidence": [1.0, 3.0],
            "n": [10, 200],
            "error": [0.5, 0.2],
            "low": [0.3, 0.15],
            "high": [0.7, 0.26],
            "hF": [0.5, 0.8],
        }
    )


def history() -> pd.DataFrame:
    y = np.array([0.5, 0.7, 0.6])
    return pd.concat(
        [pd.DataFrame({"model": m, "epoch": [1, 2, 3], "val_hF": y, "low": y - 0.01, "high": y + 0.01}) for m in "AF"]
    )


def forest_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": ["a − b", "c − d"],
            "diff": [0.02, -0.001],
            "low": [0.01, -0.004],
            "high": [0.03, 0.002],
            "verdict": ["better", "no difference shown"],
        }
    )


def votes_table() -> pd.DataFrame:
    return pd.DataFrame({"class": CLASSES, "all 3": np.arange(23) + 1, "2 of 3": np.arange(23), "none": 2})


def gate_table() -> pd.DataFrame:
    return pd.DataFrame({"class": CLASSES, "q25": 0.3, "median": 0.45, "q75": 0.6})


def tau_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "tau": [0, 0.5, 1.0] * 2,
            "hF": [0.79, 0.78, 0.7, 0.7, 0.72, 0.71],
            "curve": ["all"] * 3 + ["balanced"] * 3,
        }
    )


DRAWN = {
    "overview": lambda ax: overview(COUNTS, ax=ax),
    "class_accuracy_vs_confidence": lambda ax: plotting.class_accuracy_vs_confidence(class_table(0), SUMMARY, ax=ax),
    "confusion": lambda ax: plotting.confusion(np.diag(np.arange(23)), ax=ax),
    "lost_credit_pairs": lambda ax: plotting.lost_credit_pairs(pairs_table(), ax=ax),
    "confidence_vs_error": lambda ax: plotting.confidence_vs_error(level_table(), ax=ax),
    "right_wrong_confidence": lambda ax: plotting.right_wrong_confidence(SUMMARY, ax=ax),
    "class_counts": lambda ax: plotting.class_counts(class_table(0), ax=ax),
    "learning_curves": lambda ax: plotting.learning_curves(history(), ax=ax),
    "forest": lambda ax: plotting.forest(forest_table(), ax=ax),
    "bars_by_class": lambda ax: plotting.bars_by_class(votes_table(), ax=ax),
    "gate_by_class": lambda ax: plotting.gate_by_class(gate_table(), ax=ax),
    "tau_curve": lambda ax: plotting.tau_curve(tau_table(), ax=ax),
}


def words_on(fig) -> list[str]:
    return [t.get_text() for t in fig.findobj(matplotlib.text.Text) if t.get_text().strip() and t.get_visible()]


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_drawn_and_saved_twice_has_the_same_bytes(name, tmp_path):
    for folder in ("one", "two"):
        with plotting.style():
            fig, ax = plt.subplots(figsize=plotting.SIZES[name])
            assert DRAWN[name](ax) is ax
            path = plotting.save(fig, tmp_path / folder, name, note="synthetic demo corpus")
        assert path == tmp_path / folder / f"{name}.png"
        plt.close(fig)
    for ending in ("png", "svg"):
        first, second = ((tmp_path / f / f"{name}.{ending}").read_bytes() for f in ("one", "two"))
        assert len(first) > 2000 and first == second
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [f"{name}.png", f"{name}.svg"]


@pytest.mark.parametrize("name", DRAWN)
def test_no_word_of_a_figure_leaves_the_picture(name):
    with plotting.style():
        fig, ax = plt.subplots(figsize=plotting.SIZES[name])
        DRAWN[name](ax)
        fig.canvas.draw()
    width, height = fig.canvas.get_width_height()
    ticks = [t for a in fig.axes for axis in (a.xaxis, a.yaxis) for t in axis.get_majorticklabels()]
    outside = [t for t in ticks if not (t.get_window_extent().width and t.get_tightbbox())]
    for text in fig.findobj(matplotlib.text.Text):
        if not text.get_text().strip() or not text.get_visible() or text in outside or text in ticks:
            continue
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, text.get_text()


def test_saving_again_gives_the_same_bytes_and_leaves_the_figure_open(tmp_path):
    with plotting.style():
        fig, ax = plt.subplots()
        other = plt.figure()
        plotting.forest(forest_table(), ax=ax)
    texts = len(fig.texts)
    plotting.save(fig, tmp_path, "a", note="synthetic demo corpus")
    plotting.save(fig, tmp_path, "b", note="synthetic demo corpus")
    plotting.save(fig, tmp_path, "c")
    for ending in ("png", "svg"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()
    assert len(fig.texts) == texts and plt.fignum_exists(fig.number) and plt.fignum_exists(other.number)


def test_a_saved_picture_names_no_program_and_no_date(tmp_path):
    fig, ax = plt.subplots()
    plotting.save(fig, tmp_path, "a")
    assert b"Software" not in (tmp_path / "a.png").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()


def test_the_style_ends_with_its_block():
    before = dict(matplotlib.rcParams)
    with plotting.style():
        assert matplotlib.rcParams["svg.hashsalt"] == "hac" and matplotlib.rcParams["font.family"] == ["DejaVu Sans"]
    assert dict(matplotlib.rcParams) == before


def test_every_family_has_its_own_colour_and_its_own_marker():
    for table in (plotting.FAMILY_COLOURS, plotting.FAMILY_MARKERS):
        assert list(table) == list(FAMILIES) and len(set(table.values())) == len(FAMILIES)


CLOUDS = [
    (0, 0.25, 0.12),
    (1, 0.25, 0.12),
    (2, 0.02, 0.01),
    (3, 0.001, 0.001),
    (4, 0.3, 0.0),
    (5, 0.0, 0.0),
    (6, 0.0, 0.1),
]


@pytest.mark.parametrize(("seed", "x", "y"), CLOUDS)
@pytest.mark.parametrize("outlier", [False, True])
def test_the_23_labels_of_fig_2_are_all_there_and_never_overlap(seed, x, y, outlier):
    table = class_table(seed, x, y)
    if outlier:  # squeezes the other 22 into a corner
        table.loc[7, ["accuracy", "mean_confidence"]] = [0.05, 1.5]
    with plotting.style():
        fig, ax = plt.subplots(figsize=plotting.SIZES["class_accuracy_vs_confidence"])
        plotting.class_accuracy_vs_confidence(table, SUMMARY, ax=ax)
        fig.canvas.draw()
    labels = [t for t in ax.texts if t.get_text() in CLASSES]
    assert sorted(t.get_text() for t in labels) == sorted(CLASSES)
    boxes = [t.get_window_extent() for t in labels]
    overlapping = [
        (labels[i].get_text(), labels[j].get_text()) for i in range(23) for j in range(i) if boxes[i].overlaps(boxes[j])
    ]
    assert overlapping == []
    frame, box = ax.get_window_extent(), next(t for t in ax.texts if t.get_text().startswith("r ="))
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in boxes)
    assert not any(b.overlaps(box.get_window_extent()) for b in boxes)


def test_fig_2_draws_each_class_at_its_place_with_the_marker_of_its_family():
    table = class_table(1)
    fig, ax = plt.subplots()
    plotting.class_accuracy_vs_confidence(table, SUMMARY, ax=ax)
    clouds = [c for c in ax.collections if isinstance(c, matplotlib.collections.PathCollection)]
    assert len(clouds) == len(FAMILIES)
    for fam, cloud in zip(FAMILIES, clouds, strict=True):
        rows = table[table["class"].map(family) == fam]
        assert np.allclose(cloud.get_offsets(), np.column_stack([rows["mean_confidence"], 100 * rows["accuracy"]]))
        assert to_rgba(plotting.FAMILY_COLOURS[fam])[:3] == pytest.approx(cloud.get_facecolor()[0][:3])
        assert np.array_equal(np.argsort(cloud.get_sizes()), np.argsort(rows["n"]))
    assert len({c.get_paths()[0].vertices.tobytes() for c in clouds}) == len(FAMILIES)


def test_fig_2_prints_the_correlations_and_names_classes_without_confidence():
    table = class_table(1)
    table.loc[3, "mean_confidence"] = np.nan
    fig, ax = plt.subplots()
    plotting.class_accuracy_vs_confidence(table, SUMMARY, ax=ax)
    words = "\n".join(words_on(fig))
    assert "r = .72  [95 % CI .64, .78]" in words and "Spearman ρ = −.10" in words
    assert f"no confidence: {CLASSES[3]}" in words


def test_figures_about_confidence_say_so_when_there_is_none():
    none = dict.fromkeys(SUMMARY)
    table = class_table(0).assign(mean_confidence=np.nan)
    for draw in (
        lambda ax: plotting.class_accuracy_vs_confidence(table, none, ax=ax),
        lambda ax: plotting.confidence_vs_error(level_table().iloc[:0], ax=ax),
        lambda ax: plotting.right_wrong_confidence(none, ax=ax),
    ):
        fig, ax = plt.subplots()
        draw(ax)
        assert "no annotator confidence in this corpus" in words_on(fig)
    fig, ax = plt.subplots()
    plotting.class_accuracy_vs_confidence(class_table(0).iloc[:2], none, ax=ax)
    assert any("too few classes" in w for w in words_on(fig))


def test_spread_labels_stand_next_to_their_points_when_there_is_room():
    points = np.array([[100.0, 100.0], [300.0, 300.0]])
    sizes, radii = np.array([[40.0, 12.0]] * 2), np.array([5.0, 5.0])
    centres = spread(points, sizes, radii, (0, 0, 400, 400), [], np.empty((0, 2)))
    assert np.all(np.abs(centres - points).max(axis=1) < 5 + 2 + 21)


def test_confusion_prints_each_count_in_its_cell_and_colours_rows_by_share():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (23, 23)) * rng.integers(0, 60, (23, 23))
    counts[4] = 0  # a class absent from the truth
    fig, ax = plt.subplots(figsize=plotting.SIZES["confusion"])
    plotting.confusion(counts, ax=ax)
    cells = {t.get_position(): t for t in ax.texts if t.get_text().isdigit()}
    assert {(j, i): str(counts[i, j]) for i, j in zip(*np.nonzero(counts), strict=True)} == {
        k: t.get_text() for k, t in cells.items()
    }
    shown = np.asarray(ax.images[0].get_array())
    assert np.allclose(shown[:4].sum(axis=1), 100) and (shown[4] == 0).all()
    full = np.diag(np.full(23, 50))
    full[0, 1] = 1
    fig, ax = plt.subplots()
    plotting.confusion(full, ax=ax)
    colours = {t.get_position(): t.get_color() for t in ax.texts if t.get_text().isdigit()}
    assert colours[(0, 0)] == "white" and colours[(1, 0)] != "white"
    assert [t.get_text() for t in ax.get_xticklabels()] == [t.get_text() for t in ax.get_yticklabels()] == list(CLASSES)
    outlines = [p for p in ax.patches if not p.get_fill()]
    assert [p.get_width() for p in outlines] == [3, 5, 3, 8, 4]
    with pytest.raises(HacError, match=r"\(5, 5\)"):
        plotting.confusion(np.eye(5), ax=ax)


def test_bars_and_points_stand_where_the_numbers_say():
    fig, ax = plt.subplots()
    plotting.lost_credit_pairs(pairs_table(), ax=ax)
    assert [p.get_width() for p in ax.patches] == [35, 25] and [p.get_hatch() for p in ax.patches] == [
        "",
        "////",
    ]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["sp-c → ss-u", "m-m → m-sp"]
    assert {"35 clips, confidence 3.20", "40 clips"} <= set(words_on(fig))
    fig, ax = plt.subplots()
    plotting.forest(forest_table(), ax=ax)
    assert {"+2.00  [+1.00, +3.00]  better", "−0.10  [−0.40, +0.20]  no difference shown"} <= set(words_on(fig))
    faces = [line.get_markerfacecolor() for line in ax.lines if line.get_marker() == "o"]
    assert faces[0] != "white" and faces[1] == "white"
    fig, ax = plt.subplots()
    plotting.forest(forest_table().assign(verdict="tie: difference 2.00, within the seed noise"), ax=ax)
    assert "+2.00  [+1.00, +3.00]  tie" in words_on(fig)
    assert {line.get_markerfacecolor() for line in ax.lines if line.get_marker() == "o"} == {"white"}
    fig, ax = plt.subplots()
    plotting.tau_curve(tau_table(), ax=ax)
    assert {"all (best τ = 0)", "balanced (best τ = 0.5)"} <= set(words_on(fig))
    fig, ax = plt.subplots()
    plotting.learning_curves(history(), ax=ax)
    rings = [line for line in ax.lines if line.get_markerfacecolor() == "none"]
    assert [(float(r.get_xdata()[0]), float(r.get_ydata()[0])) for r in rings] == [(2, 70), (2, 70)]
    fig, ax = plt.subplots()
    plotting.confidence_vs_error(level_table(), ax=ax)
    assert ax.lines[0].get_ydata().tolist() == [50, 20]
    low_high = [s[:, 1].tolist() for s in ax.collections[0].get_segments()]
    assert np.allclose(low_high, [[30, 70], [15, 26]])


def test_stacked_bars_take_counts_or_shares_and_sort_classes():
    fig, ax = plt.subplots()
    plotting.bars_by_class(votes_table().iloc[::-1], ax=ax)
    heights = [p.get_height() for p in ax.patches]
    assert heights[:23] == list(range(1, 24)) and ax.get_ylabel() == "Clips"
    assert [t.get_text() for t in ax.get_xticklabels()] == list(CLASSES)
    fig, ax = plt.subplots()
    plotting.bars_by_class(pd.DataFrame({"class": ["m-sp"], "kept": [0.25], "dropped": [0.75]}), ax=ax)
    assert [p.get_height() for p in ax.patches] == [25, 75] and ax.get_ylabel() == "Share of clips (%)"
    assert [p.get_y() for p in ax.patches] == [0, 25]
    with pytest.raises(HacError, match="stack"):
        plotting.bars_by_class(pd.DataFrame({"class": ["m-sp"]}), ax=ax)


def test_class_counts_keep_the_confidence_above_the_bars():
    fig, ax = plt.subplots()
    table = class_table(2)
    plotting.class_counts(table, ax=ax)
    twin = next(a for a in fig.axes if a is not ax)
    assert np.allclose(twin.lines[0].get_ydata(), table["mean_confidence"])
    dashes = twin.transData.transform(np.column_stack(twin.lines[0].get_data()))[:, 1]
    tops = ax.transData.transform(np.column_stack([np.zeros(23), table["n"]]))[:, 1]
    assert dashes.min() > tops.max()
    fig, ax = plt.subplots()
    plotting.class_counts(table.drop(columns="mean_confidence"), ax=ax)
    assert fig.axes == [ax]


def test_the_mel_pictures_share_one_scale():
    rng = np.random.default_rng(0)
    with plotting.style():
        fig = plt.figure(figsize=plotting.SIZES["logmel_grid"])
        axes = plotting.logmel_grid([(name, rng.normal(-40, 9, (64, 50)), 2.5) for name in FAMILIES.values()], fig=fig)
    assert [a.get_title() for a in axes] == list(FAMILIES.values())
    assert len({a.images[0].get_clim() for a in axes}) == 1 and axes[0].images[0].get_extent() == [
        0,
        2.5,
        0,
        64,
    ]
    with pytest.raises(HacError, match="no picture"):
        plotting.logmel_grid([], fig=fig)


def test_the_overview_prints_every_number_it_is_given():
    fig, ax = plt.subplots(figsize=plotting.SIZES["overview"])
    overview(COUNTS, ax=ax)
    words = " | ".join(words_on(fig))
    numbers = [
        "10,956",
        "31,464",
        "27,551 clips (88 %)",
        "3,246",
        "0.55 × F",
        "0.25 × A",
        "1 × R",
        "0.5 × P",
        "τ = 0.5",
    ]
    for piece in [*numbers, "LAION-CLAP text", "S1", "S4"]:
        assert piece in words, piece
    assert "not in" not in words


def test_the_overview_greys_out_exactly_the_stages_that_did_not_run():
    def grey(**changes) -> int:
        fig, ax = plt.subplots(figsize=plotting.SIZES["overview"])
        overview(COUNTS | changes, ax=ax)
        return sum(w == "not in this run" for w in words_on(fig))

    assert grey() == 0
    assert grey(tau=None) == 2  # the adjustment and S2
    assert grey(pseudo_kept=None) == 2  # the vote and the labels
    assert grey(noisy=None) == 3
    assert grey(weights={"F": 0.7, "A": 0.3, "R": None, "P": None}) == 2
    assert grey(evaluation=None) == 2
    assert grey(text_encoder=None) == 6  # text encoder, F, M, T, S3, S4
    assert grey(weights=None) == 5 - 1 + 1  # P, R, S1, the adjustment, S2; the ensemble says it in two lines


def test_the_boxes_of_the_overview_hold_their_words():
    with plotting.style():
        fig, ax = plt.subplots(figsize=plotting.SIZES["overview"])
        overview(COUNTS | {"tau": None, "weights": None}, ax=ax)
        fig.canvas.draw()
    boxes = [p.get_window_extent() for p in ax.patches]
    texts = [t for t in ax.texts if t.get_text().strip()]
    for i, a in enumerate(texts):
        for b in texts[:i]:
            assert not a.get_window_extent().overlaps(b.get_window_extent()), (a.get_text(), b.get_text())
        x0, y0, x1, y1 = a.get_window_extent().extents
        for box in boxes:  # a word that touches a box lies inside it from side to side
            if x0 < box.x1 and x1 > box.x0 and y0 < box.y1 and y1 > box.y0:
                assert box.x0 <= x0 and x1 <= box.x1, a.get_text()


MISSING = [
    (plotting.class_accuracy_vs_confidence, (class_table(0), SUMMARY), "accuracy"),
    (plotting.lost_credit_pairs, (pairs_table(),), "lost_credit"),
    (plotting.confidence_vs_error, (level_table(),), "error"),
    (plotting.class_counts, (class_table(0),), "n"),
    (plotting.learning_curves, (history(),), "val_hF"),
    (plotting.forest, (forest_table(),), "verdict"),
    (plotting.bars_by_class, (votes_table(),), "class"),
    (plotting.gate_by_class, (gate_table(),), "median"),
    (plotting.tau_curve, (tau_table(),), "curve"),
]


@pytest.mark.parametrize(("draw", "given", "column"), MISSING, ids=[m[0].__name__ for m in MISSING])
def test_a_missing_column_is_named_with_the_columns_needed(draw, given, column):
    fig, ax = plt.subplots()
    with pytest.raises(HacError, match=f"lacks the columns 1 \\({column}\\)") as caught:
        draw(given[0].drop(columns=column), *given[1:], ax=ax)
    assert column in caught.value.fix and draw.__name__ in caught.value.where


def test_unknown_classes_and_missing_keys_are_named():
    fig, ax = plt.subplots()
    with pytest.raises(HacError, match="fx-zz"):
        plotting.class_counts(pd.DataFrame({"class": ["fx-zz"], "n": [1]}), ax=ax)
    with pytest.raises(HacError, match="sp-x"):
        plotting.lost_credit_pairs(pairs_table().assign(pred="sp-x"), ax=ax)
    with pytest.raises(HacError, match="conf_right"):
        plotting.right_wrong_confidence({}, ax=ax)
    with pytest.raises(HacError, match="tau"):
        overview({k: v for k, v in COUNTS.items() if k != "tau"}, ax=ax)
    with pytest.raises(HacError, match="no class"):
        plotting.gate_by_class(gate_table().iloc[:0], ax=ax)

"""Pictures of the label ambiguity: what annotators were unsure about against what a system gets wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from scipy import stats as sps

from .figures import FAMILY_COLOURS, FAMILY_MARKERS, GREY, LIGHT, by_class, legend_above, need, need_keys, nothing
from .labels import SpreadLabels
from .taxonomy import FAMILIES, family


def class_accuracy_vs_confidence(table: pd.DataFrame, summary: Mapping[str, Any], *, ax: Axes) -> Axes:
    """Fig. 2: accuracy of each class against the annotators' mean confidence in it.

    Parameters
    ----------
    table : DataFrame
        class, n (clips), accuracy (fraction), mean_confidence (1 … 5); one row per class. Classes
        without a confidence are named under the text instead of drawn.
    summary : dict
        r_class, r_class_ci, spearman_class (None where unknown), see :func:`ambiguity.summary`.
    """
    table = need(table, ["class", "n", "accuracy", "mean_confidence"], "class_accuracy_vs_confidence")
    left_out = table.loc[table["mean_confidence"].isna(), "class"].tolist()
    table = table.dropna(subset=["mean_confidence", "accuracy"])
    ax.set(xlabel="Mean annotator confidence in the class (rating, 1 to 5)", ylabel="Accuracy of the class (%)")
    if table.empty:
        return nothing(ax, "no annotator confidence in this corpus")
    x, y = table["mean_confidence"].to_numpy(float), 100 * table["accuracy"].to_numpy(float)
    area = _areas(table["n"].to_numpy(float), table["n"].max())
    x_room = 0.09 * max(np.ptp(x), 0.2)
    ax.set_xlim(x.min() - x_room, x.max() + x_room)
    y_room = 0.10 * max(np.ptp(y), 30)
    ax.set_ylim(y.min() - y_room, min(y.max() + y_room, 104))
    lines = []
    if len(x) >= 3 and np.ptp(x) > 0:
        lines = [_line_with_band(ax, x, y)]
    for fam in FAMILIES:
        rows = (table["class"].map(family) == fam).to_numpy()
        ax.scatter(
            x[rows],
            y[rows],
            s=area[rows],
            c=FAMILY_COLOURS[fam],
            marker=FAMILY_MARKERS[fam],
            edgecolors="white",
            linewidths=0.9,
            alpha=0.92,
            zorder=3,
        )
    words = _correlation_words(summary) + (f"\nno confidence: {', '.join(left_out)}" if left_out else "")
    box = ax.text(
        0.015,
        0.98,
        words,
        transform=ax.transAxes,
        va="top",
        ha="left",
        fontsize=10,
        zorder=5,
        bbox={"facecolor": "white", "edgecolor": LIGHT, "boxstyle": "round,pad=0.4"},
    )
    notes = [
        ax.annotate(
            code,
            (x[i], y[i]),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            zorder=4,
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )
        for i, code in enumerate(table["class"])
    ]
    ax.add_artist(SpreadLabels(notes, np.sqrt(area) / 2, [box], lines))
    present = [f for f in FAMILIES if f in set(table["class"].map(family))]
    families = ax.legend(
        handles=_family_handles(present),
        title="Family",
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        alignment="left",
    )
    ax.add_artist(families)
    families.set_clip_on(False)  # else the layout leaves no room for it
    steps = _round_steps(table["n"].max())
    sizes = [
        Line2D(
            [],
            [],
            ls="",
            marker="o",
            color=GREY,
            markeredgecolor="white",
            markersize=np.sqrt(a),
            label=f"{n:,}",
        )
        for n, a in zip(steps, _areas(np.array(steps, float), table["n"].max()), strict=True)
    ]
    ax.legend(
        handles=sizes,
        title="Clips",
        loc="upper left",
        bbox_to_anchor=(1.01, 0.62),
        labelspacing=1.1,
        alignment="left",
        handletextpad=1.0,
    )
    return ax


def lost_credit_pairs(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """Confusions that lose the most credit, as horizontal bars, most lost on top.

    `table`: gt, pred, n (clips), lost_credit (clips), mean_confidence (NaN if unknown).
    """
    table = need(table, ["gt", "pred", "n", "lost_credit", "mean_confidence"], "lost_credit_pairs", ("gt", "pred"))
    ax.set(xlabel="Lost credit (clips)")
    if table.empty:
        return nothing(ax, "no clip is wrong")
    rows = np.arange(len(table))
    for i, (gt, pred, n, lost, conf) in enumerate(
        table[["gt", "pred", "n", "lost_credit", "mean_confidence"]].itertuples(index=False)
    ):
        same = family(gt) == family(pred)
        ax.barh(
            i,
            lost,
            height=0.66,
            color=FAMILY_COLOURS[family(gt)],
            alpha=0.9,
            hatch="////" if same else "",
            edgecolor="white",
            linewidth=0,
        )
        words = f"{n:g} clips" + ("" if conf is None or np.isnan(conf) else f", confidence {conf:.2f}")
        ax.annotate(words, (lost, i), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5, color=GREY)
    ax.set_yticks(rows, [f"{a} → {b}" for a, b in zip(table["gt"], table["pred"], strict=True)])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.set_xlim(0, table["lost_credit"].max() * 1.42)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.set_ylabel("True → predicted class")
    present = [f for f in FAMILIES if f in set(table["gt"].map(family))]
    handles = [Patch(color=FAMILY_COLOURS[f], label=FAMILIES[f]) for f in present]
    if any(family(a) == family(b) for a, b in zip(table["gt"], table["pred"], strict=True)):
        handles.append(Patch(facecolor="#BBBBBB", hatch="////", edgecolor="white", label="within the family"))
    ax.legend(
        handles=handles,
        title="Family of the truth",
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        alignment="left",
    )
    return ax


def confidence_vs_error(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """Error rate at each annotator rating, with intervals; hF as a second line where the table has it.

    `table`: confidence (rating), n (clips), error, low, high (fractions), optional hF (fraction).
    """
    table = need(table, ["confidence", "n", "error", "low", "high"], "confidence_vs_error").sort_values("confidence")
    ax.set(xlabel="Annotator confidence (rating)", ylabel="Error rate (%)")
    if table.empty:
        return nothing(ax, "no annotator confidence in this corpus")
    x, error = table["confidence"].to_numpy(float), 100 * table["error"].to_numpy(float)
    bars = np.abs(100 * table[["low", "high"]].to_numpy(float).T - error)
    ax.errorbar(
        x,
        error,
        yerr=bars,
        fmt="o-",
        color=FAMILY_COLOURS["m"],
        capsize=4,
        lw=1.8,
        markersize=7,
        label="errors (95 % interval)",
    )
    if "hF" in table.columns and table["hF"].notna().any():
        ax.plot(
            x,
            100 * table["hF"].to_numpy(float),
            "s--",
            color=FAMILY_COLOURS["fx"],
            lw=1.5,
            markersize=6,
            label="hF (points)",
        )
        ax.set_ylabel("Error rate (%) and hF (points)")
    ax.set_xticks(x, [f"{c:g}\n{n:,.0f} clips" for c, n in zip(x, table["n"], strict=True)])
    ax.set_xlim(x.min() - 0.35, x.max() + 0.35)
    ax.set_ylim(0, None)
    ax.grid(axis="x", visible=False)
    legend_above(ax, 2)
    return ax


def right_wrong_confidence(summary: Mapping[str, Any], *, ax: Axes) -> Axes:
    """Mean annotator confidence of the clips a system gets right and wrong, and their difference.

    `summary`: conf_right, conf_wrong, conf_difference_ci (None where unknown), see :func:`ambiguity.summary`.
    """
    need_keys(summary, ["conf_right", "conf_wrong", "conf_difference_ci"], "right_wrong_confidence")
    right, wrong, ci = summary["conf_right"], summary["conf_wrong"], summary["conf_difference_ci"]
    ax.set(xlabel="Mean annotator confidence (rating, 1 to 5)")
    if right is None or wrong is None:
        return nothing(
            ax,
            "no annotator confidence in this corpus"
            if right is None and wrong is None
            else "every rated clip is right"
            if wrong is None
            else "every rated clip is wrong",
        )
    for y, value, colour, marker in (
        (0, right, FAMILY_COLOURS["m"], "o"),
        (1, wrong, FAMILY_COLOURS["fx"], "D"),
    ):
        ax.plot([1, value], [y, y], color=colour, lw=5, alpha=0.3, solid_capstyle="butt")
        ax.plot(value, y, marker=marker, color=colour, markersize=10, ls="")
        ax.annotate(
            f"{value:.2f}",
            (value, y),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            fontweight="bold",
        )
    words = f"right − wrong = {right - wrong:+.2f}" + (f"  [95 % CI {ci[0]:.2f}, {ci[1]:.2f}]" if ci else "")
    ax.set_title(words, fontsize=10, fontweight="normal", loc="left")
    ax.set_yticks([0, 1], ["clips predicted\nright", "clips predicted\nwrong"])
    ax.set_ylim(1.6, -0.6)
    ax.set_xlim(1, 5)
    ax.set_xticks([1, 2, 3, 4, 5])
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    return ax


def _line_with_band(ax: Axes, x: np.ndarray, y: np.ndarray) -> Line2D:
    """Least-squares line with the 95 % band of its mean."""
    fit = sps.linregress(x, y)
    grid = np.linspace(*ax.get_xlim(), 80)
    line = fit.intercept + fit.slope * grid
    rest = np.sqrt(np.sum((y - fit.intercept - fit.slope * x) ** 2) / max(len(x) - 2, 1))
    width = (
        sps.t.ppf(0.975, max(len(x) - 2, 1))
        * rest
        * np.sqrt(1 / len(x) + (grid - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2))
    )
    ax.fill_between(grid, line - width, line + width, color="#9AA5B1", alpha=0.18, lw=0, zorder=1)
    return ax.plot(grid, line, color="#7A8794", lw=1.5, zorder=1.5)[0]


def _correlation_words(summary: Mapping[str, Any]) -> str:
    need_keys(summary, ["r_class", "r_class_ci", "spearman_class"], "class_accuracy_vs_confidence")
    r, ci, rho = summary["r_class"], summary["r_class_ci"], summary["spearman_class"]
    if r is None:
        return "r: too few classes with a confidence"
    words = f"r = {_bare(r)}" + (f"  [95 % CI {_bare(ci[0])}, {_bare(ci[1])}]" if ci else "")
    return words + (f"\nSpearman ρ = {_bare(rho)}" if rho is not None else "")


def _bare(r: float) -> str:
    """A correlation without the leading zero: ``.72``, ``−.10``."""
    return f"{r:.2f}".replace("-", "−").replace("0.", ".", 1)


def _areas(n: np.ndarray, largest: float) -> np.ndarray:
    """Marker area in points² for n clips."""
    return 30 + 270 * n / max(float(largest), 1.0)


def _round_steps(largest: float) -> list[int]:
    """Three round sizes for a legend."""
    unit = 10 ** max(int(np.floor(np.log10(max(largest, 10)))), 1)
    top = max(int(largest // unit), 1) * unit
    return [max(top // 10, 1), max(top // 2, 1), top]


def _family_handles(families: Sequence[str]) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            ls="",
            marker=FAMILY_MARKERS[f],
            color=FAMILY_COLOURS[f],
            markersize=9,
            markeredgecolor="white",
            label=f"{FAMILIES[f]} ({f})",
        )
        for f in families
    ]


def filters_by_class(tables: Mapping[str, pd.DataFrame], *, fig: Figure) -> list[Axes]:
    """Precision and recall of pseudo-label filters by class: two maps, darker is better, numbers in per cent.

    `tables`: filter in words -> class, precision, recall (fractions; NaN, where nothing was kept or no clip has
    the class, stays white).
    """
    axes = list(fig.subplots(2, 1, sharex=True))
    codes: list[str] = []
    for ax, column in zip(axes, ("precision", "recall"), strict=True):
        rows = [by_class(t, ["class", column], "filters_by_class") for t in tables.values()]
        codes = rows[0]["class"].tolist()
        share = 100 * np.array([r[column].to_numpy(float) for r in rows])
        image = ax.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for i, j in zip(*np.nonzero(np.isfinite(share)), strict=True):
            colour = "white" if share[i, j] > 55 else "#222222"
            ax.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
        ax.set_yticks(range(len(rows)), list(tables))
        ax.set_title(column.capitalize(), loc="left")
        ax.grid(False)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        for j in range(1, len(codes)):
            if family(codes[j - 1]) != family(codes[j]):
                ax.axvline(j - 0.5, color="white", lw=3)
    axes[1].set_xticks(range(len(codes)), codes, rotation=90)
    fig.colorbar(image, ax=axes, label="Share of clips (%)", shrink=0.6, pad=0.01)
    return axes

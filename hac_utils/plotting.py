"""All charts of the project but Fig. 1 (:mod:`overview`): data and axes in, axes out.

Statistics are computed elsewhere (metrics, stats, ambiguity). Make figures inside ``with style():``
and write them with :func:`save`. Fractions come in as fractions and are drawn in points or per
cent. Families differ in colour and in marker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from .errors import HacError
from .figures import (
    FAMILY_COLOURS,
    FAMILY_MARKERS,
    GREY,
    INK,
    LIGHT,
    SIZES,
    by_class,
    class_axis,
    darker,
    legend_above,
    need,
    nothing,
    save,
    style,
)
from .figures_ambiguity import (
    class_accuracy_vs_confidence,
    confidence_vs_error,
    lost_credit_pairs,
    right_wrong_confidence,
)
from .taxonomy import CLASSES, FAMILIES, FAMILY_OF, N_CLASSES, family

__all__ = [
    "FAMILY_COLOURS",
    "FAMILY_MARKERS",
    "SIZES",
    "bars_by_class",
    "class_accuracy_vs_confidence",
    "class_counts",
    "confidence_vs_error",
    "confusion",
    "cosine_histogram",
    "durations",
    "forest",
    "gate_by_class",
    "learning_curves",
    "logmel_grid",
    "lost_credit_pairs",
    "right_wrong_confidence",
    "save",
    "style",
    "tau_curve",
]

_CYCLE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444"]
_DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1))]
_MARKERS = ["o", "s", "^", "D", "P", "v", "X"]
_HATCHES = ["", "///", "...", "xxx", "\\\\\\"]


def confusion(counts: np.ndarray, *, ax: Axes) -> Axes:
    """Confusion matrix: colour is the share of the true class (per row), numbers are clips.

    Parameters
    ----------
    counts : int array, shape (23, 23)
        ``[true, predicted]``, taxonomy order.
    """
    counts = np.asarray(counts)
    if counts.shape != (N_CLASSES, N_CLASSES):
        raise HacError(
            f"a confusion matrix of shape {counts.shape}",
            "plotting.confusion",
            "give shape (23, 23), see metrics.confusion_matrix",
        )
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="equal")
    ax.grid(False)
    for i, j in zip(*np.nonzero(counts), strict=True):
        red, green, blue, _ = image.cmap(image.norm(share[i, j]))
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
        ax.text(j, i, f"{counts[i, j]:g}", ha="center", va="center", fontsize=6.5, color="white" if dark else INK)
    ax.set_xticks(range(N_CLASSES), CLASSES, rotation=90)
    ax.set_yticks(range(N_CLASSES), CLASSES)
    ax.set_xticks(np.arange(-0.5, N_CLASSES), minor=True)
    ax.set_yticks(np.arange(-0.5, N_CLASSES), minor=True)
    ax.grid(which="minor", color="#F0F0F0", linewidth=0.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    for k, (fam, name) in enumerate(FAMILIES.items()):
        inside = np.flatnonzero(FAMILY_OF == k)
        start, width = inside[0] - 0.5, len(inside)
        ax.add_patch(
            Rectangle(
                (start, start),
                width,
                width,
                fill=False,
                edgecolor=FAMILY_COLOURS[fam],
                linewidth=2.2,
                zorder=4,
                clip_on=False,
            )
        )
        for patch in (
            Rectangle((N_CLASSES - 0.35, start + 0.06), 0.3, width - 0.12),
            Rectangle((start + 0.06, -0.95), width - 0.12, 0.3),
        ):
            patch.set(facecolor=FAMILY_COLOURS[fam], edgecolor="none", clip_on=False)
            ax.add_patch(patch)
        middle = start + width / 2
        ax.text(N_CLASSES + 0.15, middle, name, rotation=270, ha="left", va="center", fontsize=9)
        ax.text(
            middle,
            -1.15,
            name.replace(" ", "\n") if width < 5 else name,
            ha="center",
            va="bottom",
            fontsize=9,
        )
    for code, label in zip(list(CLASSES) * 2, [*ax.get_xticklabels(), *ax.get_yticklabels()], strict=True):
        label.set_color(darker(FAMILY_COLOURS[family(code)]))
    ax.set(xlabel="Predicted class", ylabel="True class")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.55, pad=0.02, aspect=28)
    bar.set_label("Share of the true class (%)")
    bar.outline.set_visible(False)
    return ax


def class_counts(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """Clips per class as bars; the annotators' mean confidence in a strip above where the table has it.

    `table`: class, n, optional mean_confidence (1 … 5, NaN where unknown).
    """
    table = by_class(table, ["class", "n"], "class_counts")
    x = np.arange(len(table))
    bars = ax.bar(x, table["n"], width=0.78, color=[FAMILY_COLOURS[family(c)] for c in table["class"]], alpha=0.9)
    ax.bar_label(bars, [f"{n:,.0f}" for n in table["n"]], fontsize=7.5, color=GREY, padding=1)
    class_axis(ax, table["class"])
    ax.set_ylabel("Clips")
    ax.set_ylim(0, table["n"].max() * 1.12)
    if "mean_confidence" in table.columns and table["mean_confidence"].notna().any():
        _confidence_strip(ax, table["mean_confidence"].to_numpy(float))
    return ax


def cosine_histogram(cosines: Mapping[str, np.ndarray], *, ax: Axes) -> Axes:
    """How many clips have which cosine between two embeddings of theirs; one outline per kind."""
    if not cosines:
        return nothing(ax, "nothing to compare in this run")
    for i, (kind, values) in enumerate(cosines.items()):
        values = np.asarray(values, float)
        values = values[np.isfinite(values)]
        ax.hist(
            values, bins=np.linspace(-1, 1, 81), histtype="step", lw=1.8, color=_CYCLE[i], ls=_DASHES[i],
            label=f"{kind}: {len(values):,} clips, median {np.median(values):.3f}" if len(values) else kind,
        )  # fmt: skip
    ax.set(xlim=(-1.02, 1.02), xlabel="Cosine of extracted and provided embedding", ylabel="Clips")
    legend_above(ax, 1)
    return ax


def durations(seconds: np.ndarray, *, ax: Axes) -> Axes:
    """Histogram of clip lengths on a logarithmic axis; the median is marked.

    `seconds`: float (n,), lengths in seconds, above 0.
    """
    seconds = np.asarray(seconds, dtype=float)
    ax.set(xlabel="Length (s)", ylabel="Clips")
    if not len(seconds):
        return nothing(ax, "no sound files")
    if not (seconds > 0).all():
        raise HacError(
            f"{int((~(seconds > 0)).sum())} lengths that are not above 0",
            "plotting.durations",
            "give lengths in seconds",
        )
    low, high = seconds.min(), seconds.max()
    edges = np.geomspace(low * 0.97, high * 1.03, 41)
    ax.hist(seconds, bins=edges, color=_CYCLE[0], alpha=0.85, edgecolor="white", linewidth=0.5)
    median = float(np.median(seconds))
    ax.axvline(median, color=INK, lw=1.2, ls="--")
    ax.annotate(
        f"median {median:.2f} s",
        (median, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=9,
    )
    ax.set_xscale("log")
    ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    ax.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    ax.grid(axis="x", visible=False)
    return ax


def learning_curves(history: pd.DataFrame, *, ax: Axes) -> Axes:
    """Validation hF over training; the best epoch of each curve is ringed.

    `history`: model, epoch, val_hF (mean, fraction), low, high (fractions; the band).
    """
    history = need(history, ["model", "epoch", "val_hF", "low", "high"], "learning_curves")
    ax.set(xlabel="Epoch", ylabel="Validation hF (points)")
    if history.empty:
        return nothing(ax, "no training history in this run")
    for i, (model, rows) in enumerate(history.groupby("model", sort=False)):
        rows = rows.sort_values("epoch")
        x, y = rows["epoch"].to_numpy(), 100 * rows["val_hF"].to_numpy(float)
        colour = _CYCLE[i % 7]
        ax.fill_between(
            x,
            100 * rows["low"].astype(float),
            100 * rows["high"].astype(float),
            color=colour,
            alpha=0.13,
            lw=0,
        )
        ax.plot(
            x,
            y,
            color=colour,
            ls=_DASHES[i % 7],
            marker=_MARKERS[i % 7],
            markersize=4,
            markevery=max(1, len(x) // 12),
            lw=1.7,
            label=str(model),
        )
        if np.isfinite(y).any():
            best = int(np.nanargmax(y))
            ax.plot(x[best], y[best], marker="o", markersize=11, mfc="none", mec=colour, mew=1.6, ls="")
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    handles = [
        *ax.get_legend_handles_labels()[0],
        Line2D([], [], ls="", marker="o", markersize=10, mfc="none", mec=GREY, mew=1.4, label="best epoch"),
    ]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), handlelength=3.2)
    return ax


def forest(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """Differences in hF with their intervals; hollow and grey for a tie or an interval that holds 0.

    `table`: label, diff, low, high (fractions), verdict (words, see :func:`stats.verdict`; printed on the
    right up to a colon, because the numbers stand there anyway).
    """
    table = need(table, ["label", "diff", "low", "high", "verdict"], "forest")
    ax.set(xlabel="Difference in hF (points)")
    if table.empty:
        return nothing(ax, "nothing to compare in this run")
    ax.axvline(0, color=GREY, lw=1.2, zorder=1)
    for i, row in enumerate(table.itertuples(index=False)):
        low, diff, high = 100 * row.low, 100 * row.diff, 100 * row.high
        verdict = str(row.verdict).split(":")[0]
        tie = low <= 0 <= high or verdict.startswith("tie")
        colour = GREY if tie else FAMILY_COLOURS["m"] if diff > 0 else FAMILY_COLOURS["fx"]
        ax.plot([low, high], [i, i], color=colour, lw=2.2, solid_capstyle="butt", zorder=2)
        ax.plot(
            diff,
            i,
            marker="o",
            markersize=8.5,
            mfc="white" if tie else colour,
            mec=colour,
            mew=1.8,
            zorder=3,
        )
        numbers = f"{diff:+.2f}  [{low:+.2f}, {high:+.2f}]".replace("-", "−")
        ax.annotate(
            f"{numbers}  {verdict}",
            (1.02, i),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            color=GREY if tie else INK,
            annotation_clip=False,
        )
    ax.set_yticks(range(len(table)), table["label"])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    return ax


def bars_by_class(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """Stacked bars per class, for example how many voters agreed on a pseudo-label.

    `table`: class, then one column of counts (or of shares that sum to at most 1) per layer, bottom first;
    the column names become the legend.
    """
    table = by_class(table, ["class"], "bars_by_class")
    layers = [c for c in table.columns if c != "class"]
    if not layers:
        raise HacError(
            "no column to stack beside 'class'", "plotting.bars_by_class", "give one numeric column per layer"
        )
    values = table[layers].to_numpy(float)
    shares = np.nansum(values, axis=1).max() <= 1 + 1e-6
    values = np.nan_to_num(values) * (100 if shares else 1)
    shades = [_CYCLE[0], _CYCLE[5], "#BDBDBD", _CYCLE[4], _CYCLE[3]]
    bottom = np.zeros(len(table))
    for i, layer in enumerate(layers):
        ax.bar(
            np.arange(len(table)),
            values[:, i],
            bottom=bottom,
            width=0.78,
            color=shades[i % 5],
            hatch=_HATCHES[i % 5],
            edgecolor="white",
            linewidth=0.4,
            label=str(layer),
        )
        bottom += values[:, i]
    class_axis(ax, table["class"])
    ax.set_ylabel("Share of clips (%)" if shares else "Clips")
    ax.set_ylim(0, 100 if shares else bottom.max() * 1.05)
    legend_above(ax, len(layers))
    return ax


def gate_by_class(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """Gate of the fusion head per class: quartile box and median; 0 listens to text, 1 to audio.

    `table`: class, q25, median, q75.
    """
    table = by_class(table, ["class", "q25", "median", "q75"], "gate_by_class")
    for i, (code, low, middle, high) in enumerate(table[["class", "q25", "median", "q75"]].itertuples(index=False)):
        colour = FAMILY_COLOURS[family(code)]
        ax.bar(i, high - low, bottom=low, width=0.5, color=colour, alpha=0.35, edgecolor=colour)
        ax.plot(i, middle, marker=FAMILY_MARKERS[family(code)], color=colour, markersize=8, mec="white", mew=0.8)
    ax.axhline(0.5, color=GREY, lw=1, ls="--")
    class_axis(ax, table["class"])
    ax.set(ylim=(0, 1), ylabel="Gate (median and quartiles)")
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 = text", "0.25", "0.5", "0.75", "1 = audio"])
    return ax


def gate_shift(gates: Mapping[str, np.ndarray], *, ax: Axes) -> Axes:
    """Distribution of the mean gate over clips for two forms of the input: label -> gates (n,), 0 text … 1 audio."""
    if len(gates) != 2 or any(len(g) == 0 for g in gates.values()):
        raise HacError("two groups of gates are needed", "plotting.gate_shift", "give label -> gates, twice, not empty")
    both = np.concatenate(list(gates.values()))
    low, high = max(0.0, both.min() - 0.1), min(1.0, both.max() + 0.1)
    edges = np.linspace(low, high, 61)
    for (label, values), colour, alpha in zip(
        gates.items(), (FAMILY_COLOURS["m"], FAMILY_COLOURS["fx"]), (0.55, 0.4), strict=True
    ):
        ax.hist(values, edges, color=colour, alpha=alpha, label=f"{label}: median {np.median(values):.2f}")
        ax.axvline(np.median(values), color=colour, lw=1.6)
    ax.set(xlim=(low, high), xlabel="Mean gate of a clip: 0 is text, 1 is audio", ylabel="Clips")
    legend_above(ax, 2)
    return ax


def tau_curve(table: pd.DataFrame, *, ax: Axes) -> Axes:
    """hF against the strength of the logit adjustment; the best τ of each curve is ringed.

    `table`: tau, hF (fraction), curve (its label).
    """
    table = need(table, ["tau", "hF", "curve"], "tau_curve")
    ax.set(xlabel="Strength of the logit adjustment, τ", ylabel="hF (points)")
    for i, (label, rows) in enumerate(table.groupby("curve", sort=False)):
        rows = rows.sort_values("tau")
        x, y = rows["tau"].to_numpy(float), 100 * rows["hF"].to_numpy(float)
        best = int(np.nanargmax(y))
        ax.plot(
            x,
            y,
            color=_CYCLE[i % 7],
            ls=_DASHES[i % 7],
            marker=_MARKERS[i % 7],
            markersize=5,
            lw=1.8,
            label=f"{label} (best τ = {x[best]:g})",
        )
        ax.plot(x[best], y[best], marker="o", markersize=13, mfc="none", mec=_CYCLE[i % 7], mew=1.6, ls="")
    legend_above(ax, 1)
    return ax


def logmel_grid(pictures: Sequence[tuple[str, np.ndarray, float]], *, fig: Figure) -> list[Axes]:
    """Log-mel pictures side by side on one colour scale, for example one clip per family.

    `pictures`: (title, dB array of shape (mel bands, frames), length in seconds) each.
    """
    if not pictures:
        raise HacError("no picture to draw", "plotting.logmel_grid", "give at least one (title, array, seconds)")
    axes = list(np.atleast_1d(fig.subplots(1, len(pictures), sharey=True)))
    top = max(float(np.max(p)) for _, p, _ in pictures)
    image = None
    for ax, (title, picture, seconds) in zip(axes, pictures, strict=True):
        image = ax.imshow(
            picture,
            origin="lower",
            aspect="auto",
            extent=(0, seconds, 0, len(picture)),
            cmap="magma",
            vmin=top - 80,
            vmax=top,
            interpolation="nearest",
        )
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("Time (s)")
        ax.grid(False)
    axes[0].set_ylabel("Mel band")
    fig.colorbar(image, ax=axes, pad=0.01, aspect=30).set_label("Level (dB)")
    return axes


def _confidence_strip(ax: Axes, confidence: np.ndarray) -> None:
    """Confidence as black dashes in a strip above the bars, with its own axis on the right."""
    low, high = np.floor(np.nanmin(confidence)), np.ceil(np.nanmax(confidence))
    high = max(high, low + 1)
    ax.set_ylim(0, ax.get_ylim()[1] / 0.72)
    ax.set_yticks([t for t in ax.get_yticks() if t <= ax.get_ylim()[1] * 0.7])
    ax.yaxis.label.set(y=0.36)
    twin = ax.twinx()
    twin.plot(
        np.arange(len(confidence)),
        confidence,
        ls="",
        marker="_",
        color=INK,
        markersize=13,
        markeredgewidth=2.4,
    )
    twin.set_ylim(high - (high - low) / 0.25, high + 0.02 * (high - low) / 0.25)
    twin.set_yticks(np.arange(low, high + 1))
    twin.set_ylabel("Mean rating\n(1 to 5)", y=0.86)
    twin.grid(False)
    twin.axhline(low, color=LIGHT, lw=0.8)
    twin.axhline(high, color="#EEEEEE", lw=0.8, zorder=0)
    twin.spines["left"].set_visible(False)
    twin.tick_params(axis="y", length=3)

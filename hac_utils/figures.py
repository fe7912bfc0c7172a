"""How figures look, and how they are written: house style, family colours, :func:`save`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .errors import HacError, did_you_mean, first_few
from .io import atomic_path
from .taxonomy import CLASSES, FAMILIES, INDEX, family

#: Family -> colour, from the Okabe-Ito palette (safe for colour-blind readers).
FAMILY_COLOURS: dict[str, str] = {
    "m": "#0072B2",
    "is": "#E69F00",
    "sp": "#009E73",
    "fx": "#D55E00",
    "ss": "#CC79A7",
}

#: Family -> marker, so that colour never stands alone.
FAMILY_MARKERS: dict[str, str] = {"m": "o", "is": "s", "sp": "^", "fx": "D", "ss": "P"}

#: Figure -> a size in inches at which it reads well.
SIZES: dict[str, tuple[float, float]] = {
    "overview": (12.6, 6.6),
    "class_accuracy_vs_confidence": (9.2, 6.0),
    "confusion": (10.6, 9.2),
    "lost_credit_pairs": (9.2, 4.2),
    "confidence_vs_error": (5.6, 4.2),
    "right_wrong_confidence": (6.4, 2.4),
    "class_counts": (10.0, 4.2),
    "learning_curves": (7.0, 4.4),
    "forest": (9.0, 3.6),
    "bars_by_class": (10.0, 4.4),
    "gate_by_class": (10.0, 4.2),
    "gate_shift": (7.0, 3.2),
    "tau_curve": (6.4, 4.2),
    "logmel_grid": (12.0, 3.4),
    "cosine_histogram": (6.4, 3.6),
}

INK, GREY, LIGHT = "#222222", "#6B6B6B", "#D9D9D9"
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.facecolor": "white",
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "savefig.bbox": None,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "hac",
    "svg.fonttype": "path",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """House style while the block runs; the settings outside are untouched."""
    with mpl.rc_context(_STYLE):
        yield


def save(fig: Figure, folder: Path | str, name: str, note: str = "") -> Path:
    """Write ``folder/name.png`` (160 dpi) and ``folder/name.svg``; the same figure gives the same bytes.

    `note` (for example "synthetic demo corpus") is printed small in the bottom right corner. The
    figure itself stays open and unchanged. Returns the path of the PNG.
    """
    folder = Path(folder)
    engine, text = fig.get_layout_engine(), None
    if note:
        height = 0.2 / fig.get_figheight()
        text = fig.text(
            1 - 0.08 / fig.get_figwidth(),
            0.05 / fig.get_figheight(),
            note,
            ha="right",
            va="bottom",
            fontsize=7.5,
            color=GREY,
            style="italic",
        )
        text.set_in_layout(False)
    before = dict(engine.get()) if engine is not None else {}
    places = [
        (
            ax,
            ax.get_in_layout(),
            {w: ax.get_position(original=w == "original") for w in ("original", "active")},
        )
        for ax in fig.axes
    ]
    if note and "rect" in before:
        engine.set(rect=(0, height, 1, 1 - height))
    try:
        with style():
            for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
                with atomic_path(folder / f"{name}.{ending}") as tmp:
                    fig.savefig(tmp, format=ending, dpi=160, metadata=metadata)
                # the layout starts from where the axes stand: put them back, so that every save is alike
                for ax, in_layout, place in places:
                    for which, box in place.items():
                        ax.set_position(box, which=which)
                    ax.set_in_layout(in_layout)
    finally:
        if text is not None:
            text.remove()
        if note and "rect" in before:
            engine.set(rect=before["rect"])
    return folder / f"{name}.png"


def need(
    table: pd.DataFrame, columns: Sequence[str], where: str, code_columns: Sequence[str] = ("class",)
) -> pd.DataFrame:
    """The table, if it has the columns and its codes are known."""
    missing = [c for c in columns if c not in table.columns]
    if missing:
        raise HacError(
            f"the table lacks the columns {first_few(missing)}; it has {', '.join(map(str, table.columns))}",
            f"plotting.{where}",
            f"columns needed: {', '.join(columns)}",
        )
    for column in code_columns:
        unknown = [] if column not in columns else sorted({str(c) for c in table[column]} - set(CLASSES))
        if unknown:
            raise HacError(
                f"unknown class codes: {first_few(unknown)}",
                f"plotting.{where}, column {column}",
                did_you_mean(unknown[0], CLASSES),
            )
    return table


def by_class(table: pd.DataFrame, columns: Sequence[str], where: str) -> pd.DataFrame:
    """The table in taxonomy order, not empty."""
    table = need(table, columns, where)
    if table.empty:
        raise HacError("the table has no class", f"plotting.{where}", "give one row per class")
    return table.sort_values("class", key=lambda codes: codes.map(INDEX)).reset_index(drop=True)


def need_keys(summary: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    missing = [k for k in keys if k not in summary]
    if missing:
        raise HacError(
            f"the summary lacks {first_few(missing)}",
            f"plotting.{where}",
            "give the dict of ambiguity.summary",
        )


def nothing(ax: Axes, words: str) -> Axes:
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=GREY)
    ax.set(xticks=[], yticks=[])
    return ax


def darker(colour: str) -> tuple[float, ...]:
    return tuple(0.68 * c for c in mpl.colors.to_rgb(colour))


def legend_above(ax: Axes, columns: int) -> None:
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=columns, borderaxespad=0.2)


def class_axis(ax: Axes, codes: Sequence[str]) -> None:
    """Class codes under the bars, family names under the codes, a thin line between families."""
    codes = list(codes)
    ax.set_xticks(range(len(codes)), codes, rotation=90)
    ax.set_xlim(-0.7, len(codes) - 0.3)
    ax.tick_params(axis="x", length=0)
    ax.grid(axis="x", visible=False)
    for code, label in zip(codes, ax.get_xticklabels(), strict=True):
        label.set_color(darker(FAMILY_COLOURS[family(code)]))
    for fam, name in FAMILIES.items():
        inside = [i for i, c in enumerate(codes) if family(c) == fam]
        if not inside:
            continue
        words = name.replace(" ", "\n")
        ax.annotate(
            words,
            ((inside[0] + inside[-1]) / 2, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -37),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9,
            annotation_clip=False,
        )
        if inside[0] > 0:
            ax.axvline(inside[0] - 0.5, color=LIGHT, lw=0.8, zorder=0.5)

"""Fig. 1: the whole system in one picture, with this run's numbers in its boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from .errors import HacError, first_few
from .figures import GREY, INK, LIGHT

_KEYS = ("dev", "noisy", "evaluation", "pseudo_kept", "audio_encoder", "text_encoder", "weights", "tau")
_AUDIO, _TEXT, _BOTH, _PLAIN, _PSEUDO = "#0072B2", "#C77C00", "#6A4C93", "#444444", "#00795A"
_FILL = {_AUDIO: "#E3F0F8", _TEXT: "#FDF1DC", _BOTH: "#EEE8F5", _PLAIN: "#F4F4F4", _PSEUDO: "#E1F3EC"}
_OFF = "#A0A0A0"
_ROWS = {"P": 56.0, "A": 46.5, "F": 39.8, "M": 33.1, "T": 26.4, "R": 18.0}  # heights of the six members


def overview(counts: Mapping[str, Any], *, ax: Axes) -> Axes:
    """Draw the system: inputs, encoders, heads, pseudo-labels, ensemble, the four systems, submission.

    Parameters
    ----------
    counts : dict
        dev, noisy, evaluation, pseudo_kept (clips, or a short text), audio_encoder, text_encoder
        (names), weights (dict of F, A, R, P), tau. None, also inside weights, means that the stage is
        not part of this run: its box is dashed and grey.

    Raises
    ------
    HacError
        A key is missing.
    """
    missing = [k for k in _KEYS if k not in counts]
    if missing:
        raise HacError(
            f"the overview lacks {first_few(missing)}",
            "overview.overview",
            "give every key; None means not in this run",
        )
    weights = counts["weights"] or {}
    weight = {m: weights.get(m) for m in "FARP"}
    audio, text = counts["audio_encoder"], counts["text_encoder"]
    has_pseudo = counts["noisy"] is not None and counts["pseudo_kept"] is not None
    ensemble = any(w is not None for w in weight.values())
    heads = {
        "A": (
            audio is not None and (weight["A"] is not None or not ensemble),
            _AUDIO,
            "Head A",
            "audio only",
        ),
        "F": (audio is not None and text is not None, _BOTH, "Head F", "gated fusion"),
        "M": (audio is not None and text is not None, _BOTH, "Head M", "concatenation"),
        "T": (text is not None, _TEXT, "Head T", "text only, for reference"),
    }
    ax.set(xlim=(0, 126), ylim=(-0.5, 65.5))
    ax.axis("off")
    for x, words in ((11, "Inputs"), (38, "Encoders"), (65, "Heads"), (85.5, "Ensemble"), (116.5, "Systems")):
        ax.text(x, 64.2, words, ha="center", va="center", fontsize=11, fontweight="bold", color=GREY)
    _panel(ax, 1, 14.5, 20, 47, f"Development set: {_clips(counts['dev'])}")
    _panel(ax, 27, 24, 22, 27.5, "frozen")
    _panel(ax, 55, 22, 20, 30.7, "trained on embeddings")
    _panel(ax, 108, 14.5, 17, 47, "")

    dev = counts["dev"] is not None
    _box(ax, 3, 43.5, 16, 9, "Audio", ["mono, up to 30 s"], _AUDIO, dev)
    _box(ax, 3, 21.5, 16, 9, "Metadata", ["title, tags,", "description"], _TEXT, dev)
    _box(ax, 28, 52.6, 20, 7, "PaSST (P)", ["fine-tuned on audio"], _AUDIO, weight["P"] is not None)
    _box(ax, 28, 40.4, 20, 7, "Audio encoder", [str(audio)], _AUDIO, audio is not None)
    _box(ax, 28, 26.6, 20, 7, "Text encoder", [str(text)], _TEXT, text is not None)
    _box(ax, 28, 14.5, 20, 7, "RoBERTa (R)", ["fine-tuned on text"], _TEXT, weight["R"] is not None)
    for name, (on, colour, title, words) in heads.items():
        _box(ax, 56, _ROWS[name] - 2.75, 18, 5.5, title, [words], colour, on)

    _arrow(ax, (19, 49.5), (28, 56), _AUDIO, dev and weight["P"] is not None)
    _arrow(ax, (19, 47.2), (28, 43.9), _AUDIO, dev and audio is not None)
    _arrow(ax, (19, 27.2), (28, 30.1), _TEXT, dev and text is not None)
    _arrow(ax, (19, 24.6), (28, 18), _TEXT, dev and weight["R"] is not None)
    for name, shift in (("A", 0), ("F", 1), ("M", 1)):
        _arrow(ax, (48, 43.9), (56, _ROWS[name] + shift), _AUDIO, heads[name][0])
    for name, shift in (("F", -1), ("M", -1), ("T", 0)):
        _arrow(ax, (48, 30.1), (56, _ROWS[name] + shift), _TEXT, heads[name][0])

    _ensemble(ax, weight, ensemble)
    _arrow(ax, (48, _ROWS["P"]), (79, _ROWS["P"]), _AUDIO, weight["P"] is not None)
    _arrow(ax, (48, _ROWS["R"]), (79, _ROWS["R"]), _TEXT, weight["R"] is not None)
    for name in "AF":
        _arrow(
            ax,
            (74, _ROWS[name]),
            (79, _ROWS[name]),
            heads[name][1],
            heads[name][0] and weight[name] is not None,
        )
    _systems(ax, counts["tau"], ensemble, heads["F"][0], heads["M"][0], has_pseudo)
    _pseudo_labels(ax, counts, has_pseudo)

    evaluated = counts["evaluation"] is not None
    _box(
        ax,
        79,
        1.5,
        19,
        8.5,
        "Evaluation set",
        [_clips(counts["evaluation"]), "through every system"],
        _PLAIN,
        evaluated,
    )
    _box(
        ax,
        106,
        1.5,
        19,
        8.5,
        "Submission",
        ["one CSV and one YAML", "per system, checked"],
        _PLAIN,
        evaluated,
    )
    _arrow(ax, (98, 5.75), (106, 5.75), _PLAIN, evaluated)
    _arrow(ax, (116.5, 14.5), (116.5, 10), _PLAIN, evaluated)
    return ax


def _ensemble(ax: Axes, weight: Mapping[str, Any], on: bool) -> None:
    """The ensemble box, one line per member at the height of its arrow."""
    _box(ax, 79, 14.5, 13, 47, "", [], _BOTH, on)
    ax.text(
        85.5,
        60.2,
        "Weighted mean",
        ha="center",
        va="center",
        fontsize=8.5,
        fontweight="bold",
        color=INK if on else _OFF,
    )
    if not on:
        ax.text(85.5, 38, "not in\nthis run", ha="center", va="center", fontsize=8, color=_OFF, style="italic")
        return
    for member in "PAFR":
        w = weight[member]
        words = f"{w:g} × {member}" if w is not None else f"{member}: none"
        ax.text(
            85.5,
            _ROWS[member],
            words,
            ha="center",
            va="center",
            fontsize=9.5 if w is not None else 8,
            color=INK if w is not None else _OFF,
            fontweight="bold" if w is not None else "normal",
        )


def _systems(ax: Axes, tau: float | None, ensemble: bool, fusion: bool, concat: bool, pseudo: bool) -> None:
    rows = (
        (51.3, "S1", "weighted mean", ensemble),
        (39.6, "S2", "S1, logit-adjusted", ensemble and tau is not None),
        (27.6, "S3", "head F alone", fusion),
        (15.7, "S4", "head M alone," if pseudo else "head M alone", concat),
    )
    for y, title, words, on in rows:
        lines = [words, "no pseudo-labels"] if title == "S4" and pseudo else [words]
        _box(ax, 109, y, 15, 9, title, lines, _BOTH, on)
    _arrow(ax, (92, 55.8), (109, 55.8), _BOTH, ensemble)
    _box(
        ax,
        95,
        39.6,
        10.5,
        9,
        "Logit adj.",
        [f"τ = {tau:g}" if tau is not None else ""],
        _PLAIN,
        ensemble and tau is not None,
    )
    _arrow(ax, (92, 44.1), (95, 44.1), _BOTH, ensemble and tau is not None)
    _arrow(ax, (105.5, 44.1), (109, 44.1), _BOTH, ensemble and tau is not None)
    for y, name, on in ((32.1, "F", fusion), (20.2, "M", concat)):
        _tag(ax, 100.2, y, f"from {name}", on)
        _arrow(ax, (104.2, y), (109, y), _BOTH, on)


def _pseudo_labels(ax: Axes, counts: Mapping[str, Any], on: bool) -> None:
    """Noisy corpus -> vote -> pseudo-labels -> back into the heads."""
    noisy = counts["noisy"]
    _box(
        ax,
        3,
        1.5,
        16,
        8.5,
        "Noisy corpus",
        [_clips(noisy), "its labels are ignored"],
        _PSEUDO,
        noisy is not None,
    )
    _box(ax, 28, 1.5, 20, 8.5, "Vote of M, R and P", ["keep a clip when", "2 of 3 agree"], _PSEUDO, on)
    kept = counts["pseudo_kept"]
    share = (
        f" ({100 * kept / noisy:.0f} %)"
        if on and all(isinstance(v, (int, float)) for v in (kept, noisy)) and noisy
        else ""
    )
    _box(
        ax,
        55,
        1.5,
        20,
        8.5,
        "Pseudo-labels",
        [f"{_clips(kept)}{share}", "join the head training"],
        _PSEUDO,
        on,
    )
    _arrow(ax, (19, 5.75), (28, 5.75), _PSEUDO, on)
    _arrow(ax, (48, 5.75), (55, 5.75), _PSEUDO, on)
    _arrow(ax, (65, 10), (65, 22), _PSEUDO, on)


def _box(
    ax: Axes, x: float, y: float, w: float, h: float, title: str, lines: Sequence[str], colour: str, on: bool
) -> None:
    """A rounded box with a bold title and up to two lines; dashed and grey when `on` is false."""
    ax.add_patch(
        FancyBboxPatch(
            (x + 0.5, y + 0.5),
            w - 1,
            h - 1,
            boxstyle="round,pad=0.5,rounding_size=0.9",
            linewidth=1.4 if on else 1.1,
            edgecolor=colour if on else _OFF,
            facecolor=_FILL[colour] if on else "white",
            linestyle="-" if on else (0, (4, 3)),
            zorder=2,
        )
    )
    if not title:
        return
    lines = [w for w in lines if w] if on else ["not in this run"]
    step = 2.25
    top = y + h / 2 + step * len(lines) / 2
    ax.text(
        x + w / 2,
        top,
        title,
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold",
        color=INK if on else _OFF,
        zorder=3,
    )
    for i, words in enumerate(lines, 1):
        ax.text(
            x + w / 2,
            top - i * step,
            words,
            ha="center",
            va="center",
            fontsize=8,
            color=INK if on else _OFF,
            style="normal" if on else "italic",
            zorder=3,
        )


def _panel(ax: Axes, x: float, y: float, w: float, h: float, words: str) -> None:
    """A light background that groups boxes, its name on its upper edge."""
    ax.add_patch(Rectangle((x, y), w, h, facecolor="#FAFAFA", edgecolor=LIGHT, linewidth=1, zorder=0.5))
    ax.text(
        x + w / 2,
        y + h - 1.5,
        words,
        ha="center",
        va="center",
        fontsize=8,
        color=GREY,
        style="italic",
        zorder=3,
    )


def _tag(ax: Axes, x: float, y: float, words: str, on: bool) -> None:
    ax.text(
        x,
        y,
        words,
        ha="center",
        va="center",
        fontsize=8,
        color=_BOTH if on else _OFF,
        fontweight="bold",
        zorder=3,
    )


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, on: bool) -> None:
    """An arrow; grey and dashed when one of its ends is not in this run."""
    ax.annotate(
        "",
        end,
        start,
        zorder=1.5,
        arrowprops={
            "arrowstyle": "-|>,head_width=0.22,head_length=0.5",
            "color": colour if on else _OFF,
            "linewidth": 1.4 if on else 0.9,
            "linestyle": "-" if on else (0, (4, 3)),
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )


def _clips(n: Any) -> str:
    return "not in this run" if n is None else n if isinstance(n, str) else f"{n:,} clips"

"""Score a file of predictions against a file of truth, with the task's metric, per class.

Both files may come from anywhere: columns are found by their usual names, ids are joined as text, classes may
be codes (``fx-o``) or ``class_idx`` numbers of either release. What cannot be scored is one clear error that
names every problem of both files; nothing is dropped in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .errors import HacError, did_you_mean, first_few
from .io import read_table
from .metrics import confusion_matrix, per_class, scores
from .schema import argmax_codes
from .taxonomy import CLASS_IDX, CLASSES, NAMES, is_leftover

ID_COLUMNS = (
    "sound_id id anonymous_id eval_id clip_id clip audio_id freesound_id uuid fname filename file_name file index"
).split()
#: Names that can only mean a prediction, then names a file of predictions alone may use.
PREDICTED_COLUMNS = (
    "pred prediction predicted predicted_class predicted_bst_second_level_class predicted_label pred_class "
    "pred_label y_pred predicted_class_idx pred_idx"
).split()
BARE_COLUMNS = "class label class_code class_idx label_idx".split()
TRUTH_COLUMNS = (
    "class gt ground_truth truth true_class true_label true label y_true target class_code class_idx true_idx label_idx"
).split()
AUDIO_ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".aiff", ".aif", ".m4a")

CODINGS = {
    "class_idx of v1.2 (101 … 504)": {str(idx): code for code, idx in CLASS_IDX.items()},
    "class_idx of v1.1 (0 … 22, taxonomy order)": {str(i): code for i, code in enumerate(CLASSES)},
}


@dataclass
class Side:
    """One of the two files while it is read: its clips, and all that is wrong or worth saying."""

    what: str  # "predictions" or "truth"
    where: str
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: pd.Series | None = None  # codes, indexed by id

    def problem(self, what: str, fix: str) -> None:
        self.problems.append((what, f"{self.where} ({self.what})", fix))


def evaluate_files(
    predictions: Path | str,
    truth: Path | str,
    *,
    id_column: str = "",
    class_column: str = "",
    truth_id_column: str = "",
    truth_class_column: str = "",
    system: str = "",
    seed: int | None = None,
    subset: bool = False,
) -> dict[str, Any]:
    """Score a table of predictions against a table of truth.

    Parameters
    ----------
    predictions, truth : path
        ``.csv``, ``.tsv`` or ``.parquet``. The predictions hold one class per clip, or one probability column
        per class code (the most probable class counts).
    id_column, class_column, truth_id_column, truth_class_column : str
        Column names; empty means found by the usual names.
    system, seed : str, int
        Which predictions to take from a table that holds several.
    subset : bool
        Score the clips present in both files, and say how many were left out. Else both must hold the same.

    Returns
    -------
    dict
        ``n``; ``hA``, ``official`` and ``strict`` (hP, hR, hF) in percent; ``per_class``, a list of 23 dicts
        (class, name, n, n_predicted, accuracy, hP, hR, hF, percent, None where undefined); ``notes``.

    Raises
    ------
    HacError
        Unreadable file, no such column, several systems; missing, extra, duplicate or empty ids; unknown
        classes.
    """
    given = Side("predictions", str(predictions)), Side("truth", str(truth))
    mine, theirs = given
    frames = read_any(mine), read_any(theirs)
    if frames[0] is not None:
        read_prediction_side(mine, frames[0], id_column, class_column, system, seed)
    if frames[1] is not None:
        read_truth(theirs, frames[1], truth_id_column, truth_class_column)
    if mine.classes is not None and theirs.classes is not None:
        _compare_ids(mine, theirs, subset)
    refuse(mine.problems + theirs.problems)
    ids = [i for i in theirs.classes.index if i in mine.classes.index]
    return _score(theirs.classes.loc[ids].to_numpy(), mine.classes.loc[ids].to_numpy(), mine.notes + theirs.notes)


def format_evaluation(result: dict[str, Any]) -> str:
    """The result of :func:`evaluate_files` as a plain text table for the terminal."""

    def number(value: float | None) -> str:
        return f"{value:7.2f}" if value is not None else "      –"

    lines = [f"{result['n']} clips", "", f"{'':10}{'hP':>7}{'hR':>8}{'hF':>8}   (percent)"]
    for reading in ("official", "strict"):
        lines.append(f"{reading:10}" + " ".join(number(result[reading][k]) for k in ("hP", "hR", "hF")))
    lines += [f"{'hA':10}" + number(result["hA"]), ""]
    width = max(len(row["name"]) for row in result["per_class"])
    head = f"{'class':6} {'name':{width}} {'n':>6} {'pred.':>6} {'acc.':>7} {'hP':>7} {'hR':>7} {'hF':>7}"
    lines += [head, "-" * len(head)]
    for row in result["per_class"]:
        figures = " ".join(number(row[k]) for k in ("accuracy", "hP", "hR", "hF"))
        lines.append(f"{row['class']:6} {row['name']:{width}} {row['n']:6d} {row['n_predicted']:6d} {figures}")
    lines += [""] * bool(result["notes"]) + [f"note: {note}" for note in result["notes"]]
    return "\n".join(lines) + "\n"


def _score(true: np.ndarray, pred: np.ndarray, notes: list[str]) -> dict[str, Any]:
    confusion = confusion_matrix(true, pred)
    official, strict = scores(confusion), scores(confusion, "zero")
    rows = []
    for row in per_class(confusion).to_dict("records"):
        percent = {k: None if np.isnan(row[k]) else 100 * row[k] for k in ("accuracy", "hP", "hR", "hF")}
        counts = {"n": int(row["n"]), "n_predicted": int(row["n_predicted"])}
        rows.append({"class": row["class"], "name": NAMES[row["class"]]} | counts | percent)
    never = [r["class"] for r in rows if r["n"] and not r["n_predicted"]]
    absent = [r["class"] for r in rows if not r["n"]]
    notes = list(notes)
    if never:
        notes.append(
            f"never predicted: {', '.join(never)}. The official script leaves such classes out of hP, hR and "
            "hF; the strict reading counts their hP and hF as 0"
        )
    if absent:
        notes.append(f"not in the truth, so in no mean: {', '.join(absent)}")
    return {
        "n": len(true),
        "hA": 100 * official["hA"],
        "official": {k: 100 * official[k] for k in ("hP", "hR", "hF")},
        "strict": {k: 100 * strict[k] for k in ("hP", "hR", "hF")},
        "per_class": rows,
        "notes": notes,
    }


def refuse(problems: list[tuple[str, str, str]]) -> None:
    """One HacError for all problems; nothing when there is none."""
    if not problems:
        return
    if len(problems) == 1:
        raise HacError(*problems[0])
    what = "".join(f"\n  {i}. {what}\n     in {where}" for i, (what, where, _) in enumerate(problems, 1))
    where = ", ".join(dict.fromkeys(p[1] for p in problems))
    fixes = "; ".join(f"({i}) {fix}" for i, (_, _, fix) in enumerate(problems, 1))
    raise HacError(f"{len(problems)} problems{what}", where, fixes)


def read_any(side: Side) -> pd.DataFrame | None:
    try:
        frame = read_table(side.where)
    except HacError as e:
        side.problem(e.what, e.fix)
        return None
    frame.columns = [str(c).strip() for c in frame.columns]
    double = frame.columns[frame.columns.duplicated()].tolist()
    if double:
        side.problem(f"columns that occur twice: {first_few(double)}", "rename one of them")
        return None
    if frame.empty:
        side.problem("the table has no rows", "give at least one clip")
        return None
    return frame


def read_prediction_side(
    side: Side, frame: pd.DataFrame, id_column: str, class_column: str, system: str, seed: int | None
) -> None:
    ids = _column(side, frame, id_column, ID_COLUMNS, "id", "--id-column")
    proba_columns = [c for c in CLASSES if c in frame.columns]
    known = PREDICTED_COLUMNS if proba_columns else PREDICTED_COLUMNS + BARE_COLUMNS
    use_proba = not class_column and proba_columns and not find_column(frame, known)
    classes = "" if use_proba else _column(side, frame, class_column, known, "class", "--class-column")
    chosen = _choose(side, frame, system, seed)
    if ids is None or classes is None or chosen is None:
        return
    if classes:
        set_classes(side, chosen, ids, chosen[classes], f"class column {classes!r}")
        return
    lacking = [c for c in CLASSES if c not in proba_columns]
    if lacking:
        side.problem(f"no probability column for {first_few(lacking)}", "give all 23, or one class per clip")
        return
    proba = chosen[list(CLASSES)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(proba).all(axis=1)
    if bad.any():
        names = as_ids(chosen[ids])[bad].tolist()
        side.problem(f"clips whose probabilities are not all numbers: {first_few(names)}", "give finite numbers")
        return
    codes = pd.Series(argmax_codes(proba), index=chosen.index)
    set_classes(side, chosen, ids, codes, "the most probable of 23 probability columns")


def read_truth(side: Side, frame: pd.DataFrame, id_column: str, class_column: str) -> None:
    ids = _column(side, frame, id_column, ID_COLUMNS, "id", "--truth-id-column")
    classes = _column(side, frame, class_column, TRUTH_COLUMNS, "class", "--truth-class-column")
    if ids is not None and classes is not None:
        set_classes(side, frame, ids, frame[classes], f"class column {classes!r}")


def find_column(frame: pd.DataFrame, known: list[str]) -> str:
    """The first column with one of the known names (case does not matter), or ``""``."""
    names = {c.lower(): c for c in reversed(list(frame.columns))}
    return next((names[k] for k in known if k in names), "")


def _column(side: Side, frame: pd.DataFrame, given: str, known: list[str], kind: str, option: str) -> str | None:
    """The column asked for, or found by name; None after noting the problem."""
    columns = list(frame.columns)
    if given:
        if given in columns:
            return given
        side.problem(f"no column {given!r} for the {kind}", did_you_mean(given, columns))
        return None
    found = find_column(frame, known)
    if not found:
        side.problem(
            f"no {kind} column found among {first_few(columns, 12)}",
            f"name it with {option}, or call it {known[0]!r}",
        )
        return None
    return found


def _choose(side: Side, frame: pd.DataFrame, system: str, seed: int | None) -> pd.DataFrame | None:
    """The rows of the one (system, seed) asked for."""
    wanted = {"system": system, "seed": "" if seed is None else str(seed)}
    keys = [k for k in wanted if k in frame.columns]
    for key, value in wanted.items():
        if value and key not in keys:
            side.problem(f"{key} {value!r} was asked for, but there is no column {key!r}", f"leave out --{key}")
            return None
    if not keys:
        return frame
    text = frame[keys].apply(as_text)
    options = sorted(text.drop_duplicates().itertuples(index=False, name=None))
    shown = first_few([" ".join(f"--{k} {v}" for k, v in zip(keys, o, strict=True)) for o in options], 12)
    match = np.logical_and.reduce([(text[k] == wanted[k]) if wanted[k] else np.ones(len(text), bool) for k in keys])
    asked = " ".join(f"--{k} {v}" for k, v in wanted.items() if v)
    left = text[match].drop_duplicates()
    if len(left) == 1:
        return frame[match]
    if left.empty:
        side.problem(f"no predictions for {asked}", f"choose one of {shown}")
    else:
        number = f"{len(left)} of them match {asked}" if asked else f"it holds {len(left)} of them"
        side.problem(f"predictions of one system and seed are needed; {number}", f"choose one of {shown}")
    return None


def as_text(values: pd.Series) -> pd.Series:
    """Cells as stripped text; whole numbers without ``.0``, missing ones empty."""
    text = values.astype(object).where(values.notna(), "").astype(str).str.strip()
    return text.str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)


def as_ids(values: pd.Series) -> pd.Series:
    """Ids as text; a file name loses its folders and its audio ending."""
    text = as_text(values)
    is_file = text.str.lower().str.endswith(AUDIO_ENDINGS)
    return text.where(~is_file, text.str.replace(r"^.*[/\\]", "", regex=True).str.replace(r"\.\w+$", "", regex=True))


def set_classes(side: Side, frame: pd.DataFrame, id_column: str, values: pd.Series, source: str) -> None:
    ids, text = as_ids(frame[id_column]), as_text(values)
    coding = "class codes"
    if text.str.fullmatch(r"\d+").all():
        coding = max(CODINGS, key=lambda name: text.isin(CODINGS[name]).sum())
        codes = text.map(CODINGS[coding])
    else:
        codes = text.where(text.isin(CLASSES))
    nameless = int((ids == "").sum())
    if nameless:
        side.problem(f"rows without an id: {nameless} of {len(ids)}", "give every clip an id")
    double = sorted(set(ids[ids.duplicated() & (ids != "")]))
    if double:
        side.problem(f"ids that occur twice: {first_few(double)}", "keep one row per clip")
    classless = sorted(ids[text == ""])
    if classless:
        side.problem(f"clips without a class: {first_few(classless)}", "give every clip one of the 23 classes")
    unknown = sorted(set(text[codes.isna() & (text != "")]))
    if unknown:
        rows = int(codes.isna().sum()) - len(classless)
        fix = f"read as {coding}; use the 23 class codes m-sp … ss-s, or class_idx of v1.2 or v1.1"
        if any(is_leftover(u) for u in unknown):
            fix += "; the task has no -other classes: remove these clips"
        side.problem(f"unknown classes: {first_few(unknown)}, in {rows} rows", fix)
    side.notes.append(f"{side.what}: id column {id_column!r}, {source}, {coding}")
    side.classes = pd.Series(codes.to_numpy(), index=ids.to_numpy())


def _compare_ids(mine: Side, theirs: Side, subset: bool) -> None:
    a, b = set(mine.classes.index) - {""}, set(theirs.classes.index) - {""}
    missing, extra = sorted(b - a), sorted(a - b)
    if not a & b:
        mine.problem(
            f"no id occurs in both files: predictions have {first_few(extra, 2)}, the truth {first_few(missing, 2)}",
            "are these the same clips, and are the id columns right?",
        )
    elif subset:
        if missing or extra:
            mine.notes.append(
                f"subset: scored the {len(a & b)} clips in both files; left out {len(missing)} clips of the "
                f"truth without a prediction and {len(extra)} predictions without a truth"
            )
    else:
        if missing:
            mine.problem(f"no prediction for {first_few(missing)} of {len(b)} clips", "predict them, or use --subset")
        if extra:
            mine.problem(
                f"predictions for clips that the truth lacks: {first_few(extra)}",
                "remove them, or use --subset",
            )

"""Write a system in the form the challenge takes, and check a submission folder before it is sent.

A system is a folder ``task1/<label>/`` with ``<label>.output.csv`` (id, class, score) and
``<label>.meta.yaml``; ``<label>`` is ``Lastname_Inst_task1_N``, N = 1 … 4. Rules after the challenge's
submission page and the validators of two teams.
"""

from __future__ import annotations

import codecs
import csv
import io as _io
import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .errors import HacError, did_you_mean, first_few
from .io import write_text
from .schema import argmax_codes
from .submission_meta import SYNTHETIC, Problem, check_meta, meta_document
from .taxonomy import CLASSES, N_CLASSES, is_leftover

__all__ = ["Problem", "check", "meta_document", "write_system"]

HEADER = ["id", "predicted_bst_second_level_class", "prediction_score"]
LABEL = re.compile(r"[^\W\d_][^\W_]*(?:-[^\W_]+)*_[^\W_]+(?:-[^\W_]+)*_task1_[1-4]")
MAX_SYSTEMS = 4
N_EVALUATION = 3246  # clips of the evaluation set


def write_system(folder: Path | str, label: str, ids: Sequence[str], proba: np.ndarray, meta: dict[str, Any]) -> Path:
    """Write ``folder/task1/<label>/`` with the predictions and the meta file, and return that folder.

    Parameters
    ----------
    folder : path
    label : str
        ``Lastname_Inst_task1_N``.
    ids : sequence of str, shape (n,)
        Anonymous ids, without ``.wav``.
    proba : array, shape (n, 23)
        Probabilities, taxonomy order. Each row's largest is the score, six decimals.
    meta : dict
        From :func:`meta_document`, for the same label. A true ``"synthetic"`` becomes a comment line.

    Raises
    ------
    HacError
        Whatever :func:`check` would call an error; then nothing is written.
    """
    ids, proba = [str(i) for i in ids], np.asarray(proba, dtype=np.float64)
    if proba.shape != (len(ids), N_CLASSES):
        raise HacError(
            f"{len(ids)} ids but probabilities of shape {proba.shape}", label, f"give shape ({len(ids)}, 23)"
        )
    meta = dict(meta)
    comment = SYNTHETIC if meta.pop("synthetic", False) else ""
    buffer = _io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows((i, c, f"{s:.6f}") for i, c, s in zip(ids, argmax_codes(proba), proba.max(axis=1), strict=True))
    output = buffer.getvalue()
    document = comment + yaml.safe_dump(meta, sort_keys=False, allow_unicode=True, width=1000)

    system = Path(folder) / "task1" / label
    found = [] if LABEL.fullmatch(label) else [Problem("error", label, _label_message(label))]
    found += _check_output(output.encode(), "output.csv", None)[0]
    found += check_meta(document.encode(), "meta.yaml", label)
    errors = [p.message for p in found if p.level == "error"]
    if errors:
        raise HacError("; ".join(errors), str(system), "correct the ids, the probabilities or the settings")
    write_text(system / f"{label}.output.csv", output)
    write_text(system / f"{label}.meta.yaml", document)
    return system


def check(folder: Path | str, ids: Sequence[str] | None = None) -> list[Problem]:
    """Check a submission: ``submissions/``, its ``task1/``, or one system's folder.

    Parameters
    ----------
    folder : path
    ids : sequence of str, optional
        The evaluation set's ids; every system must predict exactly these.

    Returns
    -------
    list of Problem
        Errors (the challenge would refuse or misread it) and warnings (probably not what you want), system by
        system. Empty when all is well.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise HacError("no such folder", str(folder), "give a submissions/ folder, its task1/, or one system in it")
    root = folder / "task1" if (folder / "task1").is_dir() else folder
    if any(root.glob("*.output.csv")) or any(root.glob("*.meta.yaml")):
        systems = [root.resolve()]
    else:
        systems = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not systems:
        return [Problem("error", root.name, "no systems here: expected folders <label>/ with <label>.output.csv")]
    expected = None if ids is None else [str(i) for i in ids]
    found: list[Problem] = []
    if len(systems) > MAX_SYSTEMS:
        found.append(Problem("error", root.name, f"{len(systems)} systems; a team may send at most {MAX_SYSTEMS}"))
    predictions: dict[str, dict[str, str]] = {}
    for system in systems:
        problems, predicted = _check_system(system, expected)
        found += problems
        if predicted:
            predictions[system.name] = predicted
    for (one, a), (two, b) in combinations(predictions.items(), 2):
        common = a.keys() & b.keys()
        same = sum(a[i] == b[i] for i in common)
        if common and same > 0.999 * len(common):
            message = f"{one} and {two} agree on {same} of {len(common)} clips: is one a copy of the other?"
            found.append(Problem("warning", root.name, message))
    return found


def _label_message(label: str) -> str:
    return f"{label!r} is not of the form Lastname_Inst_task1_N with N from 1 to 4"


def _check_system(system: Path, ids: list[str] | None) -> tuple[list[Problem], dict[str, str]]:
    outputs, metas = sorted(system.glob("*.output.csv")), sorted(system.glob("*.meta.yaml"))
    names = [p.name for p in outputs]
    if len(outputs) != 1:
        what = f"several output files: {', '.join(names)}" if outputs else f"no {system.name}.output.csv"
        found = [Problem("error", system.name, what)]
        found += [p for m in metas for p in check_meta(m.read_bytes(), m.name, m.name.removesuffix(".meta.yaml"))]
        return found, {}
    label = names[0].removesuffix(".output.csv")
    found = []
    if not LABEL.fullmatch(label):
        found.append(Problem("error", names[0], _label_message(label)))
    if label != system.name:
        found.append(
            Problem("warning", names[0], f"the folder is called {system.name!r}, the file's label is {label!r}")
        )
    problems, predicted = _check_output(outputs[0].read_bytes(), names[0], ids)
    found += problems
    meta = system / f"{label}.meta.yaml"
    if meta.is_file():
        found += check_meta(meta.read_bytes(), meta.name, label)
    else:
        there = f"; there is {metas[0].name}" if metas else ""
        found.append(Problem("error", meta.name, f"the meta file is missing{there}"))
    return found, predicted


def _check_output(data: bytes, file: str, ids: list[str] | None) -> tuple[list[Problem], dict[str, str]]:
    """Problems of one output file, and its id -> class."""
    found: list[Problem] = []

    def error(message: str) -> None:
        found.append(Problem("error", file, message))

    def warning(message: str) -> None:
        found.append(Problem("warning", file, message))

    if data.startswith(codecs.BOM_UTF8):
        error("starts with a byte-order mark: save it as plain UTF-8")
        data = data[len(codecs.BOM_UTF8) :]
    if b"\r" in data:
        warning("lines end in CRLF: save it with LF line ends")
    try:
        rows = list(csv.reader(_io.StringIO(data.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error) as e:
        error(f"not readable as UTF-8 CSV: {e}")
        return found, {}
    header = rows[0] if rows else []
    missing = [c for c in HEADER if c not in header]
    if missing:
        error(f"missing column {', '.join(missing)}; the header must be {','.join(HEADER)}")
        return found, {}
    if header != HEADER:
        error(f"the header is {','.join(header)}; it must be {','.join(HEADER)}")
    ragged = [str(i) for i, row in enumerate(rows[1:], 2) if len(row) != len(header)]
    if ragged:
        error(f"rows without exactly {len(header)} cells: lines {first_few(ragged)}")
    table = [dict(zip(header, row, strict=True)) for row in rows[1:] if len(row) == len(header)]
    if not table:
        error("no predictions")
        return found, {}
    names = [row["id"] for row in table]
    codes = [row["predicted_bst_second_level_class"] for row in table]
    _check_ids(names, ids, error, warning)
    _check_classes(names, codes, error, warning)
    _check_scores(names, [row["prediction_score"] for row in table], error, warning)
    return found, dict(zip(names, codes, strict=True))


def _check_ids(names: list[str], ids: list[str] | None, error: Any, warning: Any) -> None:
    empty = sum(not n.strip() for n in names)
    if empty:
        error(f"rows with an empty id: {empty}")
    double = sorted(n for n, k in Counter(names).items() if k > 1 and n.strip())
    if double:
        error(f"duplicate ids: {first_few(double)}")
    endings = sorted(n for n in names if n.lower().endswith(".wav"))
    if endings:
        error(f"ids that end in .wav: {first_few(endings)}; give the anonymous id alone")
    if ids is not None:
        missing, extra = sorted(set(ids) - set(names)), sorted(set(names) - set(ids) - {""})
        if missing:
            error(f"missing ids: {first_few(missing)} of {len(set(ids))}")
        if extra:
            error(f"ids that are not in the evaluation set: {first_few(extra)}")
    elif len(names) != N_EVALUATION and all(
        re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", n) for n in names
    ):
        warning(f"{len(names)} rows; the evaluation set has {N_EVALUATION} clips")


def _check_classes(names: list[str], codes: list[str], error: Any, warning: Any) -> None:
    empty = [n for n, c in zip(names, codes, strict=True) if not c.strip()]
    if empty:
        error(f"rows with an empty class: {first_few(empty)}")
    leftover = sorted({c for c in codes if is_leftover(c)})
    if leftover:
        error(f"classes the task does not have: {first_few(leftover)}; only the 23 second-level codes count")
    unknown = sorted({c for c in codes if c.strip() and c not in CLASSES and not is_leftover(c)})
    if unknown:
        error(f"unknown classes: {first_few(unknown)}; {did_you_mean(unknown[0].strip(), CLASSES)}")
    (top, count), *_ = Counter(codes).most_common(1)
    if len(codes) > 1 and count == len(codes):
        warning(f"every clip is {top!r}")
    elif len(codes) > 1 and count > len(codes) / 2:
        warning(f"{count} of {len(codes)} clips are {top!r}, more than half")


def _check_scores(names: list[str], texts: list[str], error: Any, warning: Any) -> None:
    values, words, infinite, outside = [], [], [], []
    for name, text in zip(names, texts, strict=True):
        try:
            value = float(text.replace("_", "?"))
        except ValueError:
            words.append(name)
            continue
        if not math.isfinite(value):
            infinite.append(name)
        elif not 0 <= value <= 1:
            outside.append(name)
        else:
            values.append(value)
    if words:
        error(f"scores that are not numbers: {first_few(words)}")
    if infinite:
        error(f"scores that are NaN or infinite: {first_few(infinite)}")
    if outside:
        error(f"scores outside [0, 1]: {first_few(outside)}")
    if len(values) > 1 and min(values) == max(values):
        warning(f"all scores are {values[0]:g}")
    flat = sum(abs(v - 1 / N_CLASSES) < 5e-4 for v in values)
    if flat:
        warning(f"{flat} scores are 1/23, as if nothing was known about the clips: did their audio or text load?")

"""The meta file of a submitted system: what stands in it, and whether a given one is complete.

Keys and their order as in the accepted files of two teams; values of results are fractions or null.
"""

from __future__ import annotations

import codecs
import copy
import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from .errors import HacError, did_you_mean
from .metrics import per_class, scores
from .taxonomy import CLASSES

DATASETS = ("bsd10k-v1.2", "bsd35k-cs")
SYNTHETIC = "# SYNTHETIC demo corpus: every number was measured on made-up clips. Not a submission.\n"

#: What a leaf may hold, by its phrase.
KINDS = {
    "text": lambda v: isinstance(v, str) and bool(v.strip()),
    "text or null": lambda v: v is None or isinstance(v, str),
    "text, a list of texts, or null": lambda v: v is None or isinstance(v, str) or _is_texts(v),
    "text, a number, or null": lambda v: v is None or isinstance(v, str) or _is_number(v) or _is_texts(v),
    "a list or null": lambda v: v is None or isinstance(v, list),
    "true or false": lambda v: isinstance(v, bool),
    "a fraction in [0, 1] or null": lambda v: v is None or (_is_number(v) and 0 <= v <= 1),
}
_TEXTS, _ANY = "text, a list of texts, or null", "text, a number, or null"
_FIGURES = dict.fromkeys(("hP", "hR", "hF"), "a fraction in [0, 1] or null")
_RESULTS = {"overall": _FIGURES, "class_wise": {code: _FIGURES for code in CLASSES}}
_AUTHOR = {
    "lastname": "text",
    "firstname": "text",
    "email": "text",
    "corresponding": "true or false",
    "affiliation": {
        "abbreviation": "text",
        "institute": "text",
        "department": "text or null",
        "location": "text",
    },
}
_DOCUMENT = {
    "submission": {"label": "text", "name": "text", "abbreviation": "text", "authors": None},
    "system": {
        "source_code": "text or null",
        "description": {
            "input_sampling_rate": _ANY,
            "audio_representation": _TEXTS,
            "text_representation": _TEXTS,
            "data_augmentation": _TEXTS,
            "machine_learning_method": _TEXTS,
            "external_data_usage": _TEXTS,
            "hierarchical_setting": _TEXTS,
            "summary": "text or null",
        },
        "complexity": {"total_parameters": _ANY, "MACS": _ANY},
        "external_datasets": "a list or null",
    },
    "results": {"development_datasets": {d: _RESULTS for d in DATASETS}},
}
_OPTIONAL = {"summary", "department", "corresponding"}  # may be left out
_LENIENT = {  # accepted submissions lack one or the other: a warning
    "system.complexity.MACS",
    "system.external_datasets",
    "results.development_datasets.bsd35k-cs.class_wise",
}


@dataclass(frozen=True)
class Problem:
    """One finding of :func:`check`: level ``"error"`` or ``"warning"``, the file, what is wrong."""

    level: str
    file: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.file}: {self.message}"


def meta_document(
    *,
    label: str,
    name: str,
    abbreviation: str,
    authors: Sequence[dict[str, Any]],
    input_sampling_rate: str | None,
    audio_representation: str | None,
    text_representation: str | None,
    machine_learning_method: str | None,
    total_parameters: int,
    confusions: dict[str, np.ndarray],
    summary: str | None = None,
    data_augmentation: str | None = None,
    external_data_usage: str | None = None,
    hierarchical_setting: str | None = None,
    external_datasets: Sequence | None = None,
    macs: int | None = None,
    source_code: str | None = None,
    synthetic: bool = False,
) -> dict[str, Any]:
    """The meta file's content, keys in the challenge's order.

    Parameters
    ----------
    authors : sequence of dict
        ``lastname firstname email corresponding affiliation{abbreviation institute [department] location}``;
        ``corresponding`` true for exactly one, else left out.
    confusions : dict
        ``"bsd10k-v1.2"`` and ``"bsd35k-cs"`` to what was measured there: counts [true, predicted], shape
        (23, 23). A data set left out gets nulls. Results are official fractions, four decimals; classes
        absent or never predicted are null.
    synthetic : bool
        The numbers come from the synthetic demo corpus; :func:`write_system` says so in the file.
    """
    unknown = sorted(set(confusions) - set(DATASETS))
    if unknown:
        raise HacError(f"no development set {unknown[0]!r}", "confusions", did_you_mean(unknown[0], DATASETS))
    document = {
        "submission": {
            "label": label,
            "name": name,
            "abbreviation": abbreviation,
            # A copy of each: YAML would write shared parts as anchors.
            "authors": [copy.deepcopy(a) for a in authors],
        },
        "system": {
            "source_code": source_code,
            "description": {
                "input_sampling_rate": input_sampling_rate,
                "audio_representation": audio_representation,
                "text_representation": text_representation,
                "data_augmentation": data_augmentation,
                "machine_learning_method": machine_learning_method,
                "external_data_usage": external_data_usage,
                "hierarchical_setting": hierarchical_setting,
                "summary": summary,
            },
            "complexity": {"total_parameters": int(total_parameters), "MACS": macs},
            "external_datasets": list(external_datasets) if external_datasets else None,
        },
        "results": {"development_datasets": {d: _results(confusions.get(d)) for d in DATASETS}},
    }
    return document | ({"synthetic": True} if synthetic else {})


def check_meta(data: bytes, file: str, label: str) -> list[Problem]:
    """Problems of one meta file: unreadable, missing or unknown keys, wrong types, another system's label."""
    if data.startswith(codecs.BOM_UTF8):
        return [Problem("error", file, "starts with a byte-order mark: save it as plain UTF-8")]
    try:
        text = data.decode("utf-8")
        document = yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as e:
        return [Problem("error", file, f"not readable as plain YAML: {' '.join(str(e).split())}")]
    found: list[Problem] = []
    _walk(document, _DOCUMENT, "", file, found)
    if text.startswith(SYNTHETIC.split(":")[0]):
        found.append(Problem("warning", file, "made from the synthetic demo corpus: not for submission"))
    if not isinstance(document, dict):
        return found
    submission = _get(document, "submission")
    written = submission.get("label")
    if isinstance(written, str) and written != label:
        found.append(Problem("error", file, f"submission.label is {_short(written)}, the file's label is {label!r}"))
    if "authors" in submission:
        _check_authors(submission["authors"], file, found)
    total = _get(_get(document, "system"), "complexity").get("total_parameters", 0)
    if isinstance(total, str):
        found.append(Problem("warning", file, f"total_parameters is {_short(total)}: give the number"))
    elif total is None or (_is_number(total) and not (math.isfinite(total) and total >= 0 and total == int(total))):
        found.append(Problem("error", file, f"total_parameters is {_short(total)}: give a whole number"))
    return found


def _check_authors(authors: Any, file: str, found: list[Problem]) -> None:
    if not isinstance(authors, list) or not authors:
        found.append(Problem("error", file, "submission.authors must be a list with at least one author"))
        return
    for i, author in enumerate(authors, 1):
        _walk(author, _AUTHOR, f"submission.authors[{i}]", file, found)
        email = author.get("email") if isinstance(author, dict) else None
        if isinstance(email, str) and not 0 < email.find("@") < len(email) - 1:
            found.append(Problem("error", file, f"submission.authors[{i}].email is {_short(email)}, not an address"))
        elif isinstance(email, str) and email.endswith("example.org"):
            found.append(
                Problem("warning", file, f"submission.authors[{i}].email is still the placeholder {_short(email)}")
            )
    corresponding = sum(isinstance(a, dict) and a.get("corresponding") is True for a in authors)
    if corresponding != 1:
        found.append(Problem("error", file, f"{corresponding} corresponding authors: mark exactly one"))


def _walk(value: Any, spec: Any, at: str, file: str, found: list[Problem]) -> None:
    """Compare a value with what is expected at this place, and go down."""
    if spec is None:
        return
    if isinstance(spec, str):
        if not KINDS[spec](value):
            hint = ""
            if spec.startswith("a fraction") and _is_number(value) and 1 < value <= 100:
                hint = f"; is it a percentage? Write {value / 100:.4f}"
            found.append(Problem("error", file, f"{at} is {_short(value)}, not {spec}{hint}"))
        return
    if not isinstance(value, dict):
        found.append(Problem("error", file, f"{at or 'the file'} must be a mapping with {', '.join(list(spec)[:4])} …"))
        return
    dot = f"{at}." if at else ""
    for key in value:
        if key not in spec:
            found.append(Problem("error", file, f"unknown key {dot}{key}: {did_you_mean(str(key), spec)}"))
    for key, below in spec.items():
        if key in value:
            _walk(value[key], below, dot + key, file, found)
        elif key not in _OPTIONAL:
            level = "warning" if dot + key in _LENIENT else "error"
            found.append(Problem(level, file, f"missing key {dot}{key}"))


def _short(value: Any) -> str:
    """A value for a message: cut off, however large or deep the file made it."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    return short.repr(value)


def _get(mapping: dict, key: str) -> dict:
    """The mapping below `key`, or an empty one."""
    below = mapping.get(key)
    return below if isinstance(below, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _results(confusion: np.ndarray | None) -> dict[str, Any]:
    keys = ("hP", "hR", "hF")
    if confusion is None:
        return {"overall": dict.fromkeys(keys), "class_wise": {c: dict.fromkeys(keys) for c in CLASSES}}
    overall, table = scores(confusion), per_class(confusion).set_index("class")
    rounded = table[list(keys)].round(4)
    class_wise = {c: {k: None if math.isnan(v) else float(v) for k, v in rounded.loc[c].items()} for c in CLASSES}
    return {"overall": {k: round(overall[k], 4) for k in keys}, "class_wise": class_wise}

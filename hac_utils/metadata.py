"""The metadata table of a data set: found, read, and every problem in it named at once.

Line numbers count the physical lines of a CSV file (a description may hold line breaks); for
parquet they are row numbers. Sources: README of BSD35k-CS (columns, ``-other`` codes), BSD10k v1.1
and v1.2 (the two codings of ``class_idx``).
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from .errors import HacError, first_few
from .io import read_json, read_table, sha256_text
from .schema import METADATA_COLUMNS as COLUMNS
from .taxonomy import CLASS_IDX, CLASSES, FAMILIES, INDEX, is_leftover

TEXT_COLUMNS = ["title", "tags", "description"]
NEEDED = ["sound_id", "class", *TEXT_COLUMNS]

#: The codings of class_idx: number as text -> code. v1.2 also has x99 (-other) and x00 (family only).
CODING_V11 = {str(i): code for code, i in INDEX.items()}
CODING_V12 = {str(i): code for code, i in CLASS_IDX.items()}
CODING_V12 |= {f"{digit}99": f"{top}-other" for digit, top in enumerate(FAMILIES, start=1)}
CODING_V12 |= {f"{digit}00": top for digit, top in enumerate(FAMILIES, start=1)}
ALPHABETICAL = {str(i): code for i, code in enumerate(sorted(CLASSES))}

_ALLOWED_CLASS = "a second-level BST code (" + ", ".join(CLASSES) + "), or one that is left out (fx-other, fx)"
_ALLOWED_IDX = "0 to 22 (v1.1) or 101 to 504 (v1.2), or empty beside a class"


@dataclass(frozen=True)
class Problem:
    """One thing wrong in the table.

    Attributes
    ----------
    column : the column
    what : the value, or the whole finding when it concerns the table
    allowed : what is allowed there, or what to do
    line : line in the file, None when the whole table is meant
    sound_id : of that line, "" if unknown
    """

    column: str
    what: str
    allowed: str
    line: int | None = None
    sound_id: str = ""

    def __str__(self) -> str:
        place = f"column {self.column}" if self.line is None else f"row {self.line}, column {self.column}"
        clip = f", sound_id {self.sound_id}" if self.sound_id and self.column != "sound_id" else ""
        return f"{place}{clip}: {self.what}; allowed: {self.allowed}" if self.line else f"{place}: {self.what}"


@dataclass(frozen=True)
class Examination:
    """What :func:`examine` found: the usable rows in canonical form, all problems, and notes in sentences.

    `ids` are all usable sound_ids of the table, also of rows that are left out of `frame`; `release`
    is "BSD10k v1.2" or "BSD10k v1.1" when the labels are exactly those, else "".
    """

    frame: pd.DataFrame
    ids: list[str]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    release: str = ""


@lru_cache(maxsize=1)
def releases() -> dict:
    """Fingerprints of the published releases: ``assets/releases.json``."""
    return read_json(Path(__file__).parent / "assets" / "releases.json")


def find_metadata(folder: Path | str) -> Path:
    """The metadata table of a dataset folder: ``metadata/*_metadata.csv``, ``metadata.csv``, or ``metadata/metadata.csv``."""
    folder = Path(folder)
    if not folder.is_dir():
        raise HacError("no such folder", str(folder), "give a dataset folder in the BSD10k layout: DATA=path/to/folder")
    found = sorted((folder / "metadata").glob("*_metadata.csv")) or [
        p for p in (folder / "metadata.csv", folder / "metadata" / "metadata.csv") if p.is_file()
    ]
    if not found:
        raise HacError(
            "no metadata table in the dataset folder",
            str(folder),
            "put it at metadata/NAME_metadata.csv or metadata.csv (columns: " + ", ".join(COLUMNS) + ")",
        )
    if len(found) > 1:
        raise HacError(
            f"more than one metadata table: {first_few([p.name for p in found])}",
            str(folder / "metadata"),
            "keep one",
        )
    return found[0]


def read_metadata(path: Path | str) -> tuple[pd.DataFrame, list[str]]:
    """Read and check a metadata table.

    Returns
    -------
    frame : canonical columns; clips with ``-other`` and family-only codes are dropped
    notes : what was dropped or filled in

    Raises
    ------
    HacError
        Names every problem: the first ten in full, the rest counted by column.
    """
    found = examine(path)
    if found.problems:
        count = len(found.problems)
        lines = [
            f"{count} problem{'s' if count > 1 else ''} in the metadata table",
            *(f"  {p}" for p in found.problems[:10]),
        ]
        rest = Counter(p.column for p in found.problems[10:])
        if rest:
            lines.append(f"  and {count - 10} more: " + ", ".join(f"{n} in column {c}" for c, n in rest.items()))
        columns = sorted({p.column for p in found.problems})
        raise HacError(
            "\n".join(lines),
            f"{path}, column{'s' if len(columns) > 1 else ''} {', '.join(columns)}",
            _advice(found.problems),
        )
    return found.frame, found.notes


def _advice(problems: list[Problem]) -> str:
    """The fix of the whole-table problems (they cause the others), else that of the first row."""
    whole = [p for p in problems if p.line is None]
    return (
        "; ".join(dict.fromkeys(p.allowed for p in whole))
        if whole
        else f"column {problems[0].column}: {problems[0].allowed}"
    )


def examine(path: Path | str) -> Examination:
    """Read a metadata table and list all its problems instead of raising.

    Raises
    ------
    HacError
        Only when there is nothing to examine: the file is unreadable, or has no rows or ids.
    """
    path = Path(path)
    where = str(path)
    frame = read_table(path)
    frame.columns = [str(c).strip() for c in frame.columns]
    if frame.empty:
        raise HacError("the metadata has no rows", where, "give a table with one row per sound")
    problems, notes = [], []
    twice = sorted(
        {c for c in frame.columns[frame.columns.duplicated()]}
        | {c[:-2] for c in frame.columns if c.endswith(".1") and c[:-2] in COLUMNS}
    )
    problems += [Problem(c, f"the column {c} appears twice", "keep one column of each name") for c in twice]
    frame = frame.loc[:, ~frame.columns.duplicated()]
    frame = frame.astype(object).where(frame.notna(), "").astype(str).reset_index(drop=True)
    if "anonymous_id" in frame.columns and "sound_id" not in frame.columns:
        frame = frame.rename(columns={"anonymous_id": "sound_id"})
        unlabelled = not {"class", "class_idx"} & set(frame.columns)
    else:
        unlabelled = "anonymous_id" in frame.columns and "class" not in frame.columns
    missing = [
        c
        for c in NEEDED
        if c not in frame.columns and not (c == "class" and (unlabelled or "class_idx" in frame.columns))
    ]
    if "sound_id" in missing:
        raise HacError(
            f"the metadata lacks the columns {first_few(missing)}",
            where,
            "columns found: " + ", ".join(frame.columns),
        )
    present = ", ".join(frame.columns)
    problems += [
        Problem(c, f"the column {c} is missing; columns found: {present}", f"add the column {c}") for c in missing
    ]
    if "class" in missing:
        unlabelled = True
    for column in COLUMNS:
        frame[column] = (
            frame[column].str.strip()
            if column in frame.columns and column not in TEXT_COLUMNS
            else frame.get(column, "")
        )

    coded = _Codes(frame) if not unlabelled else None
    if coded:
        problems += coded.problems
        notes += coded.notes
    rows = _failures(frame, coded)
    lines = _line_numbers(path, len(frame)) if rows else []
    problems += [Problem(c, what, allowed, int(lines[i]), frame["sound_id"][i]) for i, c, what, allowed in rows]
    if coded and coded.mixed:
        problems = [
            _with_first_lines(p, coded, path, len(frame)) if p.what.startswith("two codings") else p for p in problems
        ]

    bad_id = np.zeros(len(frame), bool)
    bad_row = np.zeros(len(frame), bool)
    for i, column, _, _ in rows:
        bad_row[i] = True
        bad_id[i] |= column == "sound_id"
    ids = frame["sound_id"][~bad_id].tolist()
    if unlabelled:
        frame["class"] = ""
        keep = ~bad_row
    else:
        frame["class"] = coded.codes
        leftover = frame["class"].map(is_leftover).to_numpy(bool)
        if leftover.any():
            notes.append(
                f"{int(leftover.sum())} clips with -other or family-only codes left out, as the official preparation does"
            )
        if leftover.all():
            problems.append(
                Problem(
                    "class",
                    "only -other and family-only classes in the metadata",
                    "give clips with second-level classes",
                )
            )
        keep = ~bad_row & ~leftover
        top = frame["class_top"]
        odd = keep & (top != "").to_numpy() & (top != _family(frame["class"])).to_numpy()
        if odd.any():
            notes.append(
                f"class_top is not the family of the class in {int(odd.sum())} rows (sound_id {first_few(frame['sound_id'][odd].tolist())}); it is taken from the class"
            )
    release = ""
    if not unlabelled:
        release, mixed_up, said = _release(frame, path, coded)
        problems += mixed_up
        notes += said
    return Examination(
        _canonical(frame[keep]),
        ids,
        sorted(problems, key=lambda p: (p.line is not None, p.line or 0)),
        notes,
        release,
    )


def _number(cells: pd.Series) -> pd.Series:
    return pd.to_numeric(cells.replace("", np.nan), errors="coerce").astype("float64")


def _family(codes: pd.Series) -> pd.Series:
    return codes.str.split("-").str[0]


def _canonical(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.reset_index(drop=True)
    frame["confidence"] = _number(frame["confidence"])
    frame["class_idx"] = frame["class"].map(CLASS_IDX).fillna(-1).astype("int64")
    frame["class_top"] = _family(frame["class"])
    return frame[COLUMNS]


class _Codes:
    """Class codes of the rows from ``class`` and ``class_idx``, and what the two together give away.

    Attributes
    ----------
    codes : Series, the class, filled from class_idx where it is empty
    contradicts : bool (n,), rows whose index means another class
    explained : bool (n,), contradictions that a whole-table problem already names
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.given = frame["class"]
        self.idx = frame["class_idx"].str.replace(r"\.0+$", "", regex=True)
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        old, new = self.idx.map(CODING_V11), self.idx.map(CODING_V12)
        self.old, self.new = old.notna(), new.notna()
        self.known = (self.old | self.new).to_numpy()
        self.meant = old.fillna(new).fillna("")
        real = self.given.isin(CLASSES) | self.given.map(is_leftover)
        self.contradicts = (self.known & real & (self.meant != self.given)).to_numpy()
        self.explained = np.zeros(len(frame), bool)
        self.mixed = bool(self.old.any() and self.new.any())
        if self.mixed:
            self.problems.append(
                Problem(
                    "class_idx",
                    f"two codings in one file: 0-22 (v1.1) in {int(self.old.sum())} rows and 101-504 (v1.2) in {int(self.new.sum())} rows",
                    "use one coding of class_idx: the rows come from two releases",
                )
            )
        if self.old.any():
            self._look_for_alphabetical_order(frame)
        empty = (self.given == "") & self.known
        self.codes = self.given.where(~empty, self.meant)
        if empty.any():
            self.notes.append(f"class filled in from class_idx in {int(empty.sum())} rows")
        if self.old.any() and not self.mixed and not self.explained.any():
            self.notes.append("class_idx is in the v1.1 coding 0-22; 101-504 is used instead")

    def _look_for_alphabetical_order(self, frame: pd.DataFrame) -> None:
        """The index as a rank among the sorted codes, seen against ``class``, or else against ``class_top``."""
        alphabetical = self.idx.map(ALPHABETICAL).fillna("")
        labelled = self.given != ""
        wrong, fits, seen = self.contradicts & self.old, alphabetical == self.given, self.given
        if not labelled.any():
            top = frame["class_top"]
            wrong, fits, seen = (
                self.old & (top != "") & (_family(self.meant) != top),
                _family(alphabetical) == top,
                alphabetical,
            )
        explained = (wrong & fits).to_numpy()
        if explained.sum() and explained.sum() >= 0.9 * wrong.sum() and seen[explained].nunique() >= 3:
            self.explained = explained
            i = int(np.flatnonzero(explained)[0])
            self.problems.append(
                Problem(
                    "class_idx",
                    f"alphabetical class order: class_idx counts the codes in alphabetical order in {int(explained.sum())} rows "
                    f"(sound_id {frame['sound_id'][i]}: {self.idx[i]} is {self.meant[i]} in the taxonomy, {alphabetical[i]} in the alphabet)",
                    "number the classes in taxonomy order (m-sp 0 or 101, … ss-s 22 or 504), or leave class_idx out",
                )
            )


def _with_first_lines(problem: Problem, coded: _Codes, path: Path, n: int) -> Problem:
    lines = _line_numbers(path, n)
    first = [int(lines[int(np.flatnonzero(mask)[0])]) for mask in (coded.old, coded.new)]
    return Problem(problem.column, f"{problem.what} (first in rows {first[0]} and {first[1]})", problem.allowed)


def _show(value: object) -> str:
    text = ascii(str(value))
    return text if len(text) <= 62 else text[:58] + "…'"


def _failures(frame: pd.DataFrame, coded: _Codes | None) -> list[tuple[int, str, str, str]]:
    """Row by row, against a pandera schema: (row number, column, what is there, what is allowed)."""
    import pandera.pandas as pa

    def check(fails: Callable[[pd.Series], pd.Series], allowed: str) -> pa.Check:
        return pa.Check(lambda s: ~pd.Series(fails(s), index=s.index).astype(bool), error=allowed)

    columns = {
        "sound_id": [
            check(lambda s: s == "", "an id for every clip"),
            check(lambda s: (s != "") & s.duplicated(), "one row per clip"),
            check(
                lambda s: s.str.contains(r"[/\\\x00-\x1f]|^\.{1,2}$", regex=True),
                "an id that can be a file name, without path separators",
            ),
        ],
        "confidence": [check(lambda s: (s != "") & ~_number(s).between(1, 5), "1 to 5, or empty")],
    }
    if coded is not None:
        columns["class"] = [
            check(
                lambda s: ~coded.codes.isin(CLASSES) & ~coded.codes.map(is_leftover) & ((s != "") | (coded.idx == "")),
                _ALLOWED_CLASS,
            )
        ]
        columns["class_idx"] = [
            check(lambda s: (s != "") & ~coded.known, _ALLOWED_IDX),
            check(lambda s: coded.contradicts & ~coded.explained, "the class_idx of the class in the same row"),
        ]
    schema = pa.DataFrameSchema({name: pa.Column(checks=checks) for name, checks in columns.items()})
    try:
        schema.validate(frame, lazy=True)
        return []
    except pa.errors.SchemaErrors as e:
        cases = e.failure_cases
    rows = []
    for column, allowed, i in zip(cases["column"], cases["check"], cases["index"], strict=True):
        i = int(i)
        value = _show(frame[column][i])
        if column == "sound_id" and allowed == "one row per clip":
            value = f"duplicate sound_id {value}"
        elif column == "sound_id" and allowed.startswith("an id that"):
            value = f"{value} cannot be a file name"
        elif column == "class_idx" and allowed.startswith("the class_idx"):
            value = f"{value} is {coded.meant[i]}, but the class is {coded.given[i]!r}"
        rows.append((i, column, value, allowed))
    order = {c: k for k, c in enumerate(COLUMNS)}
    return sorted(rows, key=lambda r: (r[0], order[r[1]]))


def _line_numbers(path: Path, n: int) -> np.ndarray:
    """First line of each of the `n` rows in the file; int (n,)."""
    plain = np.arange(n) + (1 if path.suffix.lower() == ".parquet" else 2)
    if path.suffix.lower() == ".parquet":
        return plain
    starts, last = [], 0
    try:
        with open(path, encoding="utf-8-sig", newline="") as f:
            reader = csv.reader(f, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            for row in reader:
                if row and not (len(row) == 1 and not row[0].strip()):
                    starts.append(last + 1)
                last = reader.line_num
    except (csv.Error, UnicodeDecodeError):
        return plain
    return np.array(starts[1:]) if len(starts) == n + 1 else plain


def claims_v12(path: Path) -> bool:
    """The file or its dataset folder is named v1.2."""
    parent = path.parent.parent if path.parent.name == "metadata" else path.parent
    return any(re.search(r"(?<!\d)v?1[._]2(?![\d.])", name) for name in (path.stem, parent.name))


def _release(frame: pd.DataFrame, path: Path, coded: _Codes) -> tuple[str, list[Problem], list[str]]:
    """Which release of BSD10k the labels are, as (name, problems, notes): exactly, or by the 58 relabelled clips."""
    known = releases()
    digest = sha256_text("\n".join(sorted(frame["sound_id"] + "," + frame["class"])))
    exact = next((f"BSD10k {v}" for v, d in known["labels"].items() if d == digest), "")
    codes = dict(zip(frame["sound_id"], frame["class"], strict=True))
    pairs = {i: pair for i, pair in known["relabelled"].items() if i in codes}
    old = [i for i, (before, _) in pairs.items() if codes[i] == before]
    new = [i for i, (_, after) in pairs.items() if codes[i] == after]
    if not old:
        return exact, [], []
    mixture = f", {len(new)} the one of v1.2: a mixture of two releases" if new else ""
    what = f"{len(old)} of the {len(pairs)} clips here that v1.2 relabelled carry the class of BSD10k v1.1{mixture} (sound_id {first_few(old)})"
    claim = (
        "the name says v1.2" if claims_v12(path) else "class_idx is in the coding of v1.2" if coded.new.any() else ""
    )
    if claim and len(old) >= 3:
        fix = "get the v1.2 table (hac data get bsd10k), or name the folder v1.1 and leave class_idx out: official folds and scores differ between the two"
        return exact, [Problem("class", f"v1.1 labels under the name v1.2 ({claim}): {what}", fix)], []
    return (
        exact,
        [],
        [f"labels of BSD10k v1.1: {what}; the official folds of the challenge are those of v1.2"],
    )

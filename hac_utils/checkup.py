"""What is in a dataset folder, and everything that is wrong with it, found in one run.

Nothing is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from . import features, plotting, splits
from .audio import MAX_SECONDS, SUFFIXES, map_clips
from .datasets import describe, find_audio, join_text, read_dataset
from .errors import HacError
from .metadata import COLUMNS, TEXT_COLUMNS, Examination, Problem, examine, find_metadata
from .soundcheck import duplicates, probe
from .taxonomy import CLASSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 10


@dataclass(frozen=True)
class Finding:
    """`level` is "error" (stops a run or falsifies it), "warning" (clips are lost) or "note"."""

    level: str
    what: str
    where: str
    fix: str = ""


@dataclass(frozen=True)
class Report:
    """Counts of what is in the folder (name -> number or text) and the findings, worst first."""

    folder: Path
    counts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """No error and no warning; notes may be there."""
        return all(f.level == "note" for f in self.findings)


def check(folder: Path | str, workers: int = 2) -> Report:
    """Look at a dataset folder: table, sounds, provided embeddings, texts, ratings, uploaders, splits.

    Raises
    ------
    HacError
        Only when there is no such folder; everything else is a finding.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise HacError("no such folder", str(folder), "give a dataset folder in the BSD10k layout")
    counts: dict[str, Any] = {}
    findings: list[Finding] = []
    try:
        path = find_metadata(folder)
        found = examine(path)
    except HacError as e:
        findings.append(Finding("error", e.what, e.where, e.fix))
        found = Examination(pd.DataFrame(columns=COLUMNS), [])
    else:
        counts |= {"table": path.relative_to(folder).as_posix(), "clips": len(found.frame)}
        if found.release:
            counts["labels"] = found.release
        findings += _table(found, str(path))
    sound_counts, sound_findings = _sounds(folder, found.ids, workers)
    embedding_counts, embedding_findings = _embeddings(folder, found.frame["sound_id"].tolist(), found.ids)
    coverage_counts, coverage_findings = _coverage(found.frame, folder)
    counts |= sound_counts | embedding_counts | coverage_counts
    findings += sound_findings + embedding_findings + coverage_findings
    order = {"error": 0, "warning": 1, "note": 2}
    return Report(folder, counts, sorted(findings, key=lambda f: order[f.level]))


def _some(items: Sequence[Any]) -> str:
    """``"a, b, c and 12 more"``."""
    shown = ", ".join(str(i) for i in items[:_SHOWN])
    return shown if len(items) <= _SHOWN else f"{shown} and {len(items) - _SHOWN} more"


def _number(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _table(found: Examination, where: str) -> list[Finding]:
    """Problems of one kind together, whole-table ones singly; then the reader's notes."""
    out = [Finding("error", p.what, f"{where}, column {p.column}", p.allowed) for p in found.problems if p.line is None]
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for p in found.problems:
        if p.line is not None:
            kinds[p.column, p.allowed].append(p)
    for (column, allowed), rows in kinds.items():
        shown = _some(
            [
                f"row {p.line}"
                + (f" (sound_id {p.sound_id}): " if p.sound_id and column != "sound_id" else ": ")
                + p.what
                for p in rows
            ]
        )
        out.append(
            Finding(
                "error",
                f"{_number(len(rows), 'value')} not allowed in column {column}: {shown}",
                f"{where}, column {column}",
                f"allowed: {allowed}",
            )
        )
    return out + [
        Finding("warning" if note.startswith("labels of BSD10k v1.1") else "note", note, where) for note in found.notes
    ]


def _sounds(folder: Path, ids: list[str], workers: int) -> tuple[dict[str, Any], list[Finding]]:
    audio = folder / "audio"
    if not audio.is_dir():
        return {"sound files": 0}, [
            Finding(
                "note",
                "no audio folder: only the stages that need no audio run",
                str(audio),
                "hac data get NAME --audio",
            )
        ]
    where, out = str(audio), []
    files = sorted(p for p in audio.iterdir() if not p.name.startswith("."))
    sounds = [p for p in files if p.suffix.lower() in SUFFIXES]
    known = find_audio(folder, ids)
    wanted = set(ids)
    missing = [i for i in ids if i not in known]
    if ids and not known:
        out.append(
            Finding(
                "error",
                f"none of the {len(ids)} sound_ids has a file in the audio folder (first: {ids[0]})",
                where,
                "does the metadata belong to this folder?",
            )
        )
    elif missing:
        out.append(
            Finding(
                "warning",
                f"{_number(len(missing), 'clip')} without a sound file: {_some(missing)}",
                where,
                "fetch the files again, or leave the clips out of the metadata",
            )
        )
    extra = [p.name for p in sounds if p.stem not in wanted]
    if extra and ids:
        out.append(
            Finding(
                "warning",
                f"{_number(len(extra), 'sound file')} without a row in the table: {_some(extra)}",
                where,
                "they are not used: add rows, or move them away",
            )
        )
    other = [p.name for p in files if p.suffix.lower() not in SUFFIXES]
    if other:
        out.append(
            Finding(
                "note",
                f"{_number(len(other), 'file')} that no sound reader takes: {_some(other)}",
                where,
                "sounds end in " + " ".join(SUFFIXES),
            )
        )
    spare = [p.name for p in sounds if p.stem in known and known[p.stem] != p]
    if spare:
        out.append(
            Finding(
                "note",
                f"{_number(len(spare), 'more file')} of a clip that has one already, not used: {_some(spare)}",
                where,
                "keep one file per clip",
            )
        )

    done = dict(zip(known, map_clips(probe, [str(p) for p in known.values()], workers, "check sounds"), strict=True))
    reasons: dict[str, list[str]] = defaultdict(list)
    for sound_id, sound in done.items():
        if sound.reason:
            reasons[sound.reason].append(known[sound_id].name)
    for reason, names in reasons.items():
        out.append(
            Finding(
                "warning",
                f"{_number(len(names), 'unreadable sound file')}, {reason}: {_some(names)}",
                where,
                "fetch the file again, or leave the clip out of the metadata",
            )
        )
    good = {i: s for i, s in done.items() if not s.reason}
    for group in duplicates({i: known[i] for i in good}, good):
        out.append(
            Finding(
                "warning",
                f"the same sound under {len(group)} ids: {_some(group)}",
                where,
                "keep one: the same sound in training and test inflates the score",
            )
        )
    long = [i for i, s in good.items() if s.seconds > MAX_SECONDS + 0.05]
    if long:
        out.append(
            Finding(
                "note",
                f"{_number(len(long), 'sound')} longer than {MAX_SECONDS:.0f} s, of which the start is used: {_some(long)}",
                where,
            )
        )
    counts: dict[str, Any] = {"sound files": len(sounds), "readable sounds": len(good)}
    if good:
        counts["hours of sound"] = round(sum(s.seconds for s in good.values()) / 3600, 3)
    return counts, out


def _embeddings(folder: Path, ids: list[str], table: list[str]) -> tuple[dict[str, Any], list[Finding]]:
    """The provided embeddings, as :func:`features.load` would give them, without writing a pack."""
    counts, out = {}, []
    there = [kind for kind in features.KINDS if features.has_embeddings(folder, kind)]
    for kind in features.KINDS if ids and there else []:
        source = features.source_folder(folder, kind)
        if kind not in there:
            out.append(
                Finding(
                    "warning",
                    f"no {kind} embeddings, but those of the {there[0]}",
                    str(source),
                    "unpack features.zip again, or run on one modality",
                )
            )
            continue
        try:
            kept, X, failures, extra = features.inspect(folder, ids, kind)
        except HacError as e:
            out.append(Finding("error", e.what, e.where, e.fix))
            continue
        counts[f"{kind} embeddings"] = len(kept)
        for reason, rows in failures.groupby(failures["reason"].str.replace(r"^no file .*", "no file", regex=True)):
            what = "without a file" if reason == "no file" else f"not usable, {reason}"
            out.append(
                Finding(
                    "warning",
                    f"{_number(len(rows), f'{kind} embedding')} {what}: {_some(rows['sound_id'].tolist())}",
                    str(source),
                    "unpack features.zip again; these clips are left out",
                )
            )
        off = features.off_norm(kept, X)
        if off:
            out.append(
                Finding(
                    "note",
                    f"{_number(len(off), f'{kind} embedding')} with a norm that is not 1: {_some(off)}",
                    str(source),
                    "the provided embeddings have norm 1: were these made otherwise?",
                )
            )
        extra = [i for i in extra if i not in set(table)]
        if extra:
            out.append(
                Finding(
                    "note",
                    f"{_number(len(extra), f'{kind} embedding')} without a row in the table: {_some(extra)}",
                    str(source),
                    "they are not used",
                )
            )
    return counts, out


def _coverage(frame: pd.DataFrame, folder: Path) -> tuple[dict[str, Any], list[Finding]]:
    """Texts, ratings and uploaders; uploader leakage of every split."""
    out: list[Finding] = []
    n = len(frame)
    if n == 0:
        return {}, out
    where = str(folder)
    with_text = sum(t != "" for t in join_text(frame))
    counts: dict[str, Any] = {"clips with text": with_text}
    if with_text < n:
        level = "warning" if with_text == 0 else "note"
        out.append(
            Finding(
                level,
                f"{_number(n - with_text, 'clip')} of {n} without any text (title, tags, description)",
                where,
                "the text systems see an empty text there",
            )
        )
    if (frame["class"] == "").all():
        return counts, out
    rated, known = int(frame["confidence"].notna().sum()), int((frame["uploader"] != "").sum())
    counts |= {
        "classes": int(frame["class"].nunique()),
        "clips with a confidence": rated,
        "clips with an uploader": known,
        "uploaders": int(frame["uploader"][frame["uploader"] != ""].nunique()),
    }
    for column, have, use in (
        ("confidence", rated, "the label ambiguity figures leave these clips out"),
        ("uploader", known, "each counts as an uploader of its own in uploader-disjoint splits"),
    ):
        if have < n:
            out.append(
                Finding(
                    "note",
                    f"{_number(n - have, 'clip')} of {n} without {'a confidence' if column == 'confidence' else 'an uploader'}",
                    f"{where}, column {column}",
                    use,
                )
            )
    absent = [c for c in CLASSES if c not in set(frame["class"])]
    if absent:
        out.append(
            Finding(
                "note",
                f"{_number(len(absent), 'class', 'classes')} without a clip: {_some(absent)}",
                f"{where}, column class",
            )
        )
    for name, make in splits.PROTOCOLS.items():
        try:
            split, notes = make(frame)
        except HacError as e:
            out.append(Finding("warning", f"no split {name}: {e.what}", e.where, e.fix))
            continue
        leak = splits.uploader_leakage(split, frame)
        counts[f"split {name}"] = f"{_number(split['fold'].nunique(), 'fold')}, hash {splits.split_hash(split)}" + (
            f", uploader leakage {leak:.1%}" if known else ""
        )
        out += [Finding("note", f"split {name}: {note}", where) for note in notes]
        if leak > 0:
            out.append(
                Finding(
                    "note",
                    f"split {name}: {leak:.1%} of the scored clips have an uploader who is also in training",
                    f"{where}, column uploader",
                    "compare with an uploader-disjoint split before you trust small gains",
                )
            )
    return counts, out


def format_report(report: Report) -> str:
    """The report as text for a terminal."""
    width = max((len(k) for k in report.counts), default=0)
    lines = [
        f"{report.folder}",
        *(f"  {k:<{width}}  {v:,}" if isinstance(v, int) else f"  {k:<{width}}  {v}" for k, v in report.counts.items()),
    ]
    for f in report.findings:
        lines += ["", f"{f.level + ':':<8} {f.what}", f"where:   {f.where}"] + ([f"fix:     {f.fix}"] if f.fix else [])
    tally = {level: sum(f.level == level for f in report.findings) for level in ("error", "warning", "note")}
    verdict = (
        "clean: no error, no warning"
        if report.clean
        else f"{_number(tally['error'], 'error')}, {_number(tally['warning'], 'warning')}"
    )
    return "\n".join([*lines, "", f"{verdict}, {_number(tally['note'], 'note')}"])


def show(folder: Path | str, workers: int = 2) -> dict[str, Any]:
    """Numbers about a dataset folder that can be read.

    Returns
    -------
    dict with name, clips, classes (table class, n, mean_confidence, uploaders), confidence (level ->
    clips, "none" where empty), uploaders, text (field -> clips that have it), seconds (float array,
    one length per readable sound).
    """
    data = read_dataset(folder)
    frame = data.frame
    rating = frame["confidence"].round().astype("Int64")
    sounds = map_clips(probe, [str(p) for p in data.audio.values()], workers, "lengths")
    uploader = frame["uploader"][frame["uploader"] != ""]
    return {
        "name": data.name,
        "clips": len(frame),
        "classes": describe(data) if (frame["class"] != "").any() else None,
        "confidence": {str(k): int((rating == k).sum()) for k in range(1, 6)} | {"none": int(rating.isna().sum())},
        "uploaders": {
            "known": int(uploader.nunique()),
            "clips": len(uploader),
            "largest": {str(k): int(v) for k, v in uploader.value_counts().head(5).items()},
        },
        "text": {
            "any": sum(t != "" for t in join_text(frame)),
            **{c: int((frame[c].str.strip() != "").sum()) for c in TEXT_COLUMNS},
        },
        "seconds": np.array([s.seconds for s in sounds if not s.reason]),
    }


def _share(k: int, n: int) -> str:
    return f"{k:,} ({k / n:.1%})"


def format_show(summary: dict[str, Any]) -> str:
    """What :func:`show` found, as text for a terminal."""
    n, seconds = summary["clips"], summary["seconds"]
    lines = [f"{summary['name']}: {n:,} clips"]
    if summary["classes"] is not None:
        lines += ["", summary["classes"].to_string(index=False, float_format="{:.2f}".format, na_rep="-")]
        lines += ["", "confidence  " + ", ".join(f"{k}: {v:,}" for k, v in summary["confidence"].items())]
        who = summary["uploaders"]
        lines.append(
            f"uploaders   {who['known']:,} known, of {_share(who['clips'], n)} clips; largest: "
            + ", ".join(f"{k} {v:,}" for k, v in who["largest"].items())
        )
    lines.append("text        " + ", ".join(f"{k}: {_share(v, n)}" for k, v in summary["text"].items()))
    if len(seconds):
        low, mid, high = np.quantile(seconds, [0, 0.5, 1])
        lines.append(
            f"sounds      {len(seconds):,}, {seconds.sum() / 3600:.2f} h, {low:.2f} to {high:.2f} s, median {mid:.2f} s"
        )
    return "\n".join(lines)


def figure(summary: dict[str, Any]) -> Figure:
    """Clips per class and a histogram of the lengths, from :func:`show`; save it with :func:`plotting.save`."""
    import matplotlib.pyplot as plt

    with plotting.style():
        drawn = [k for k in ("classes", "seconds") if summary[k] is not None and len(summary[k])]
        if not drawn:
            raise HacError(
                "neither labels nor sounds to draw",
                summary["name"],
                "give a data set with a class column or an audio folder",
            )
        fig, axes = plt.subplots(len(drawn), 1, figsize=(10.0, 3.9 * len(drawn)), layout="constrained", squeeze=False)
        for kind, ax in zip(drawn, axes[:, 0], strict=True):
            (plotting.class_counts if kind == "classes" else plotting.durations)(summary[kind], ax=ax)
    return fig

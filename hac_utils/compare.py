"""Compare two files of predictions for the same clips: is one better, by how much, and where.

Files are read as `hac evaluate` reads them. A table with several seeds of one system is compared by its mean
probabilities, and the spread over its seeds enters the verdict. Everything in a result is in percent or
points (percent of a minus percent of b), but p-values.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import evaluation as ev
from .errors import HacError, did_you_mean, first_few
from .metrics import confusion_matrix, scores
from .stats import METRICS, gains, mcnemar, paired_bootstrap, verdict
from .taxonomy import CLASSES, FAMILIES, NAMES
from .variance import corrected_t_test, seed_error

#: Columns of a file of predictions that can only mean the truth.
OWN_TRUTH_COLUMNS = "gt ground_truth truth true_class true_label true y_true target".split()


@dataclass
class _System:
    """One of the two files: its clips, and what else it says about them."""

    side: ev.Side
    name: str = ""
    truth: ev.Side | None = None  # the file's own truth column, if it has one
    fold: pd.Series | None = None  # text, indexed by id
    by_seed: list[pd.Series] = field(default_factory=list)  # codes of each seed, when there are several

    @property
    def classes(self) -> pd.Series:
        return self.side.classes


def compare_files(
    a: Path | str,
    b: Path | str,
    truth: Path | str | None = None,
    *,
    system_a: str = "",
    system_b: str = "",
    metric: str = "hF",
    cluster: str = "uploader",
    subset: bool = False,
    seed: int = 0,
    n_resamples: int = 10_000,
) -> dict[str, Any]:
    """Compare two files of predictions, a minus b.

    Parameters
    ----------
    a, b : path
        ``.csv``, ``.tsv`` or ``.parquet``, in any form that :func:`hac_utils.evaluation.evaluate_files` reads.
        A ``fold`` column, when the folds of both files agree, adds the test over folds.
    truth : path, optional
        An id and a class column. May be left out when both files carry the same truth (column ``gt`` or alike).
    system_a, system_b : str
        Which system to take from a table that holds several.
    metric : {"hF", "hA"}
    cluster : str
        Column of the truth whose groups are drawn whole, if it is there; the verdict is then about new
        uploaders. Empty: clips only.
    subset : bool
        Compare the clips present everywhere, and say how many were left out. Else all files hold the same.
    seed, n_resamples : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``a b`` (file, name, hF, hA, strict_hF, accuracy, n_seeds), ``metric n diff low high p level verdict``,
        ``unit`` ("clip" or the cluster column), ``clips`` and ``clusters`` (low, high, p, verdict; clusters may
        be None), ``folds`` (per_fold, and the corrected resampled t-test; or None), ``counts`` (clips only
        one gets right, McNemar's p), ``per_class`` (23 rows) and ``per_family`` (5 rows) of gains in hF with
        intervals, p_holm and ``survives``, ``seed_noise`` (None when unknown), ``left_out``, ``notes``.

    Raises
    ------
    HacError
        What `evaluate_files` raises; two truths that disagree; clips that are not everywhere; a cluster column
        that was asked for and is missing.
    """
    if metric not in METRICS:
        raise HacError(f"no metric {metric!r}", "metric", did_you_mean(metric, METRICS))
    one, two = _read_system(a, "predictions a", system_a), _read_system(b, "predictions b", system_b)
    both = (one, two)
    true_side, clusters = read_truth(truth, cluster, both)
    ev.refuse(one.side.problems + two.side.problems + true_side.problems)
    one.name, two.name = _names(both)
    notes = one.side.notes + two.side.notes + true_side.notes
    ids, left_out = _common(both, true_side, subset, notes)

    y, p, q = (c.loc[ids].to_numpy() for c in (true_side.classes, one.classes, two.classes))
    options = {"n_resamples": n_resamples, "seed": seed}
    noise = _seed_noise(both, true_side.classes, ids, metric)
    group = None if clusters is None else clusters.loc[ids].to_numpy()
    over_clips = paired_bootstrap(y, p, q, metric=metric, **options)
    over_clusters = None if group is None else paired_bootstrap(y, p, q, metric=metric, cluster=group, **options)
    head = over_clusters or over_clips
    table = gains(y, p, q, cluster=group, **options)
    if group is not None:
        known = group[group != ""]
        notes.append(
            f"{cluster}: {len(set(known))} of them; {len(group) - len(known)} clips without one stand for themselves"
        )
    return {
        "a": _summary(one, y, p),
        "b": _summary(two, y, q),
        "metric": metric,
        "n": len(ids),
        **{k: 100 * head[k] for k in ("diff", "low", "high")},
        "p": head["p"],
        "level": head["level"],
        "verdict": verdict(head, noise),
        "unit": "clip" if group is None else cluster,
        "clips": _interval(over_clips, noise),
        "clusters": over_clusters and _interval(over_clusters, noise),
        "folds": _folds(both, ids, y, p, q, metric, notes),
        "counts": mcnemar(y, p, q),
        "per_class": _rows(table, "class", head["level"]),
        "per_family": _rows(table, "family", head["level"]),
        "seed_noise": None if noise is None else 100 * noise,
        "left_out": left_out,
        "notes": notes,
    }


def format_comparison(result: dict[str, Any]) -> str:
    """The result of :func:`compare_files` as plain text for the terminal, at most 100 columns wide."""
    a, b, metric = result["a"], result["b"], result["metric"]
    unit = "" if result["unit"] == "clip" else f", interval over {result['unit']}s"
    lines = [
        result["verdict"],
        f"{metric} of a against b, {result['n']} clips{unit}",
        f"a  {_tail(a['name'], 96)}",
        f"b  {_tail(b['name'], 96)}",
        "",
        f"{'percent':30}{'a':>8}{'b':>8}{'a - b':>8}   {100 * result['level']:g} % interval       p",
    ]

    def row(label: str, one: float | None, two: float | None, part: dict[str, Any], *more: str) -> str:
        line = f"{_clip(label, 29):30}{_number(one)}{_number(two)}{_number(part.get('diff'), '+')}"
        if part.get("low") is not None:
            line += f"   {part['low']:6.2f} … {part['high']:6.2f}  {part['p']:6.4f}"
        return (line + "".join(more)).rstrip()

    diff = {"diff": result["diff"]}
    lines.append(row(f"{metric}, over clips", a[metric], b[metric], result["clips"] | diff))
    if result["clusters"]:
        lines.append(row(f"{metric}, over {result['unit']}s", a[metric], b[metric], result["clusters"] | diff))
    if result["folds"]:
        f = result["folds"]
        lines.append(row(f"{metric}, mean of {f['k']} folds (t-test)", f["a"], f["b"], f))
    for key, label in (("strict_hF", "hF, strict"), ("hF", "hF"), ("hA", "hA"), ("accuracy", "accuracy")):
        if key != metric:
            lines.append(row(label, a[key], b[key], {"diff": a[key] - b[key]}))
    c = result["counts"]
    lines += [
        "",
        f"only a right: {c['only_a']}, only b right: {c['only_b']} (McNemar p {c['p']:.2g}); both right: "
        f"{c['both_right']}, neither: {c['neither']}",
        "",
        f"{'hF per class':36}{'n':>6}{'a':>8}{'b':>8}{'a - b':>8}   {100 * result['level']:g} % interval  p (Holm)",
    ]
    for part in ("per_family", "per_class"):
        for r in result[part]:
            name = f"{r['class']:6}{r['name']}" if "class" in r else r["name"]
            line = f"{_clip(name, 35):36}{r['n']:6d}{_number(r['a'])}{_number(r['b'])}{_number(r['diff'], '+')}"
            if r["low"] is not None:
                line += f"   {r['low']:6.2f} … {r['high']:6.2f}  {r['p_holm']:6.4f}{' *' if r['survives'] else ''}"
            lines.append(line)
        lines.append("")
    lines.append("* differs after Holm's correction over the rows of its block")
    lines += [_wrap(note) for note in result["notes"]]
    return "\n".join(lines) + "\n"


def _read_system(path: Path | str, what: str, system: str) -> _System:
    """One file: classes, and the file's own truth and folds if it has them. Problems stay in its side."""
    out = _System(ev.Side(what, str(path)))
    side = out.side
    frame = ev.read_any(side)
    if frame is None:
        return out
    frame = _one_system(side, frame, system)
    if frame is None:
        return out
    if "system" in frame.columns:
        out.name = str(frame["system"].iloc[0])
        frame = frame.drop(columns="system")
    seeds = sorted(ev.as_text(frame["seed"]).unique()) if "seed" in frame.columns else []
    if len(seeds) > 1:
        frame = _mean_of_seeds(out, frame, seeds)
        if frame is None:
            return out
    frame = frame.drop(columns="seed", errors="ignore")
    ev.read_prediction_side(side, frame, "", "", "", None)
    if side.classes is None or side.problems:
        return out
    ids = ev.as_ids(frame[ev.find_column(frame, ev.ID_COLUMNS)])
    if "fold" in frame.columns:
        out.fold = pd.Series(ev.as_text(frame["fold"]).to_numpy(), index=ids.to_numpy())
    column = _own_truth(frame)
    if column:
        out.truth = ev.Side(f"truth within {what}", side.where)
        ev.set_classes(
            out.truth, frame, ev.find_column(frame, ev.ID_COLUMNS), frame[column], f"class column {column!r}"
        )
    return out


def _one_system(side: ev.Side, frame: pd.DataFrame, system: str) -> pd.DataFrame | None:
    """The rows of the system asked for, or of the only one there is."""
    option = f"--system-{side.what[-1]}"
    if "system" not in frame.columns:
        if system:
            side.problem(f"system {system!r} was asked for, but there is no column 'system'", f"leave out {option}")
            return None
        return frame
    names = ev.as_text(frame["system"])
    known = sorted(names.unique())
    if system and system not in known:
        side.problem(f"no predictions of system {system!r}", did_you_mean(system, known))
        return None
    if not system and len(known) > 1:
        side.problem(f"it holds {first_few(known, 12)} systems", f"choose one with {option}")
        return None
    return frame[names == (system or known[0])]


def _mean_of_seeds(out: _System, frame: pd.DataFrame, seeds: list[str]) -> pd.DataFrame | None:
    """One row per clip with the mean probabilities of its seeds; each seed's own classes go to `out`."""
    side = out.side
    if any(c not in frame.columns for c in CLASSES) or ev.find_column(frame, ev.PREDICTED_COLUMNS):
        side.problem(
            f"it holds {first_few(seeds, 12)} seeds, and one class per clip cannot be averaged",
            "give a table of probabilities, or a file with one seed",
        )
        return None
    text = ev.as_text(frame["seed"])
    parts = []
    for seed in seeds:
        part = frame[text == seed].drop(columns="seed")
        one = ev.Side(side.what, side.where)
        ev.read_prediction_side(one, part, "", "", "", None)
        side.problems += one.problems
        if one.problems:
            return None
        out.by_seed.append(one.classes)
        numbers = part[list(CLASSES)].apply(pd.to_numeric).set_axis(one.classes.index, axis=0)
        parts.append(part.set_axis(one.classes.index, axis=0).assign(**numbers))
    ids = parts[0].index
    for seed, part in zip(seeds, parts, strict=True):
        if set(part.index) != set(ids):
            odd = sorted(set(part.index) ^ set(ids))
            side.problem(f"seeds {seeds[0]} and {seed} differ in the clips {first_few(odd)}", "give the same clips")
            return None
    parts = [part.loc[ids] for part in parts]
    mean = parts[0].copy()
    mean[list(CLASSES)] = np.mean([part[list(CLASSES)].to_numpy(dtype=float) for part in parts], axis=0)
    if "fold" in mean.columns:
        folds = [ev.as_text(part["fold"]).tolist() for part in parts]
        if any(f != folds[0] for f in folds):
            mean = mean.drop(columns="fold")
            side.notes.append(f"{side.what}: seeds differ in their folds, so there is no test over folds")
    side.notes.append(f"{side.what}: mean probabilities of {len(seeds)} seeds ({', '.join(seeds)})")
    return mean


def _own_truth(frame: pd.DataFrame) -> str:
    """The truth column of a file of predictions, or "". A bare `class` is one only beside a `pred` or probabilities."""
    beside = ev.find_column(frame, ev.PREDICTED_COLUMNS) or any(c in frame.columns for c in CLASSES)
    return ev.find_column(frame, ev.TRUTH_COLUMNS if beside else OWN_TRUTH_COLUMNS)


def read_truth(
    truth: Path | str | None, cluster: str, both: tuple[_System, _System]
) -> tuple[ev.Side, pd.Series | None]:
    """The true classes, from the table of truth or from both files, and the cluster of each clip if known."""
    if truth is None:
        return _shared_truth(cluster, both), None
    side = ev.Side("truth", str(truth))
    frame = ev.read_any(side)
    if frame is None:
        return side, None
    ev.read_truth(side, frame, "", "")
    if side.classes is None or side.problems:
        return side, None
    for s in both:
        if s.truth is not None:
            odd = _differ(s.truth.classes, side.classes)
            if odd:
                side.notes.append(f"{s.truth.what} differs from the truth file for {first_few(odd)} clips")
    if cluster in frame.columns:
        names = ev.as_text(frame[cluster])
        if names[names != ""].nunique() + (names == "").sum() > 1:
            return side, pd.Series(names.to_numpy(), index=side.classes.index)
        side.notes.append(f"all clips have one {cluster}, so the interval is over clips")
    elif cluster and cluster != "uploader":
        side.problem(f"no column {cluster!r} to draw whole groups by", did_you_mean(cluster, list(frame.columns)))
    return side, None


def _shared_truth(cluster: str, both: tuple[_System, _System]) -> ev.Side:
    """The truth that both files carry; it must agree wherever both have the clip."""
    side = ev.Side("truth", " and ".join(s.side.where for s in both))
    for s in both:
        if s.truth is not None:
            side.problems += s.truth.problems
        elif not s.side.problems:
            s.side.problem("no column with the true class", "give the truth with --truth")
    if side.problems or any(s.truth is None for s in both):
        return side
    if cluster and cluster != "uploader":
        side.problem(f"no table of truth to find {cluster!r} in", "give --truth")
    x, y = (s.truth.classes for s in both)
    odd = _differ(x, y)
    if odd:
        side.problem(f"the two files disagree about the true class of {first_few(odd)}", "give the truth with --truth")
    side.classes = pd.concat([x, y[y.index.difference(x.index)]])
    side.notes.append("truth: the column that both files carry")
    return side


def _differ(x: pd.Series, y: pd.Series) -> list[str]:
    """Ids that both hold with two different classes."""
    common = x.index.intersection(y.index)
    return sorted(common[(x[common] != y[common]).to_numpy()])


def _names(both: tuple[_System, _System]) -> tuple[str, str]:
    """System names or file names; longer ones where they are equal."""
    paths = [Path(s.side.where) for s in both]
    short = [s.name or path.stem for s, path in zip(both, paths, strict=True)]
    if short[0] != short[1]:
        return short[0], short[1]
    full = [f"{name} ({path})" for name, path in zip(short, paths, strict=True)]
    return full[0], full[1]


def _common(
    both: tuple[_System, _System], truth: ev.Side, subset: bool, notes: list[str]
) -> tuple[list[str], dict[str, int]]:
    """The clips to compare, sorted, and how many are not everywhere."""
    a, b, t = (set(c.index) for c in (both[0].classes, both[1].classes, truth.classes))
    ids = sorted(a & b & t)
    left_out = {
        "only_in_a": len(a - b),
        "only_in_b": len(b - a),
        "without_truth": len((a | b) - t),
        "truth_only": len(t - a - b),
    }
    if not ids:
        raise HacError(
            f"no clip is in all files: a has {first_few(sorted(a), 2)}, b {first_few(sorted(b), 2)}, "
            f"the truth {first_few(sorted(t), 2)}",
            f"{both[0].side.where}, {both[1].side.where}, {truth.where}",
            "are these the same clips, and are the id columns right?",
        )
    odd = [
        ("only in a", sorted(a - b)),
        ("only in b", sorted(b - a)),
        ("without a truth", sorted((a | b) - t)),
        ("in the truth only", sorted(t - a - b)),
    ]
    words = "; ".join(f"{what}: {first_few(which, 3)}" for what, which in odd if which)
    if words and not subset:
        raise HacError(
            f"the files do not hold the same clips. Clips {words}",
            f"{both[0].side.where}, {both[1].side.where}, {truth.where}",
            f"give all files the same clips, or compare the {len(ids)} that are everywhere with --subset",
        )
    if words:
        notes.append(f"subset: {len(ids)} clips compared. Left out: {words}")
    return ids, left_out


def _seed_noise(both: tuple[_System, _System], truth: pd.Series, ids: list[str], metric: str) -> float | None:
    """Standard error over seeds of the difference, from the systems with several seeds; None when there is none."""
    y = truth.loc[ids].to_numpy()
    errors = [
        seed_error([scores(confusion_matrix(y, codes.loc[ids].to_numpy()))[metric] for codes in s.by_seed])
        for s in both
        if s.by_seed
    ]
    return float(np.hypot.reduce(errors)) if errors else None


def _folds(
    both: tuple[_System, _System], ids: list[str], y: np.ndarray, p: np.ndarray, q: np.ndarray, metric: str, notes
) -> dict[str, Any] | None:
    """Each fold's difference and the corrected resampled t-test; None, with a note, where folds do not pair."""
    if any(s.fold is None for s in both):
        return None
    fold, other = (s.fold.loc[ids].to_numpy() for s in both)
    names = sorted(set(fold), key=lambda f: (len(f), f))
    if (fold != other).any():
        notes.append(f"the files differ in the fold of {int((fold != other).sum())} clips: no test over folds")
        return None
    if len(names) < 2 or "" in names:
        return None
    rows = []
    for name in names:
        i = fold == name
        a, b = (100 * scores(confusion_matrix(y[i], x[i]))[metric] for x in (p, q))
        rows.append({"fold": name, "n": int(i.sum()), "a": a, "b": b, "diff": a - b})
    n_test = len(ids) / len(names)
    test = corrected_t_test([r["diff"] / 100 for r in rows], n_train=len(ids) - n_test, n_test=n_test)
    notes.append(
        f"test over folds: corrected resampled t-test, {len(ids) - n_test:.0f} training and {n_test:.0f} test clips a "
        "fold (all clips outside a fold taken as its training part)"
    )
    means = {k: float(np.mean([r[k] for r in rows])) for k in ("a", "b")}
    points = {k: 100 * test[k] for k in ("diff", "low", "high", "se")}
    rest = {k: test[k] for k in ("t", "df", "p", "k", "level")}
    sizes = {"n_train": len(ids) - n_test, "n_test": n_test}
    return {"per_fold": rows, **means, **points, **rest, **sizes, "verdict": verdict(test)}


def _summary(system: _System, y: np.ndarray, pred: np.ndarray) -> dict[str, Any]:
    confusion = confusion_matrix(y, pred)
    official = scores(confusion)
    return {
        "file": system.side.where,
        "name": system.name,
        "hF": 100 * official["hF"],
        "hA": 100 * official["hA"],
        "strict_hF": 100 * scores(confusion, "zero")["hF"],
        "accuracy": 100 * official["accuracy"],
        "n_seeds": max(1, len(system.by_seed)),
    }


def _interval(result: dict[str, Any], noise: float | None) -> dict[str, Any]:
    return {
        "low": 100 * result["low"],
        "high": 100 * result["high"],
        "p": result["p"],
        "verdict": verdict(result, noise),
    }


def _rows(table: pd.DataFrame, kind: str, level: float) -> list[dict[str, Any]]:
    rows = []
    for r in table[table["kind"] == kind].to_dict("records"):
        known = r["n"] > 0
        points = {k: 100 * r[k] if known else None for k in ("a", "b", "diff", "low", "high")}
        p = {k: r[k] if known else None for k in ("p", "p_holm")}
        survives = bool(known and r["p_holm"] <= 1 - level and not r["low"] <= 0 <= r["high"])
        name = {kind: r["name"], "name": (NAMES if kind == "class" else FAMILIES)[r["name"]]}
        rows.append(name | {"n": int(r["n"])} | points | p | {"survives": survives})
    return rows


def _number(value: float | None, sign: str = "") -> str:
    return f"{'–':>8}" if value is None else f"{value:{sign}8.2f}"


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _tail(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[1 - width :]


def _wrap(note: str) -> str:
    return textwrap.fill(f"note: {note}", 100, subsequent_indent="      ")

"""Tables 1–3 of the report, from predictions tables and the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .errors import HacError, first_few
from .io import read_json
from .metrics import confusion_matrix, scores
from .paths import RunPaths
from .schema import argmax_codes, mean_over_seeds, proba_of
from .stats import mean_std, table_verdicts
from .taxonomy import CLASSES, family
from .variance import seed_error


def truth_for(frame: pd.DataFrame, truth: pd.DataFrame) -> np.ndarray:
    """True class code of each row of a predictions table, shape (n,)."""
    codes = truth.set_index("sound_id")["class"].reindex(frame["sound_id"])
    if codes.isna().any():
        raise HacError(
            f"predictions for clips without a label: {first_few(codes.index[codes.isna()].tolist())}",
            "predictions",
            "score only labelled clips",
        )
    return codes.to_numpy(dtype=object)


def score(frame: pd.DataFrame, truth: pd.DataFrame, never_predicted: str = "drop") -> dict[str, Any]:
    """`metrics.scores` of the rows of one system."""
    return scores(confusion_matrix(truth_for(frame, truth), argmax_codes(proba_of(frame))), never_predicted)


def _by(frame: pd.DataFrame, truth: pd.DataFrame, key: str) -> pd.DataFrame:
    """hA, hF and strict hF for every (system, seed, fold), averaged to one row per (system, `key`)."""
    rows = []
    for (system, seed, fold), part in frame.groupby(["system", "seed", "fold"], sort=True):
        official = score(part, truth)
        rows.append(
            {
                "system": system,
                "seed": seed,
                "fold": fold,
                "hA": official["hA"],
                "hF": official["hF"],
                "strict hF": score(part, truth, "zero")["hF"],
            }
        )
    return pd.DataFrame(rows).groupby(["system", key], as_index=False)[["hA", "hF", "strict hF"]].mean()


def summarise(
    frame: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    over: str,
    order: list[str],
    reference: str = "",
    n_resamples: int = 10_000,
) -> pd.DataFrame:
    """One row per system: mean ± standard deviation (ddof 0) over `over`, in percent, and a verdict.

    Parameters
    ----------
    truth : sound_id, class; with a column ``uploader`` whole uploaders are drawn, else clips
    over : {"fold", "seed"}
        What the deviation is taken over; the other one is averaged first. Table 1: "fold", Table 2: "seed".
    reference : system that every other row is compared with by the paired bootstrap (seeds' probabilities
        averaged, folds pooled), corrected over the table (Holm); the verdict's seed noise is the standard
        error over seeds.

    Returns
    -------
    DataFrame
        ``system``; ``hA``, ``hF``, ``strict hF``, each with ``… std``; ``verdict``; with a reference also
        ``diff low high`` (points, row minus reference; NaN for the reference) and ``p_holm``.
    """
    by, by_seed = _by(frame, truth, over), _by(frame, truth, "seed")
    mean = mean_over_seeds(frame)
    rows = []
    for system in order:
        part = by[by["system"] == system]
        row: dict[str, Any] = {"system": system}
        for column in ("hA", "hF", "strict hF"):
            row[column], row[f"{column} std"] = (100 * v for v in mean_std(part[column].to_numpy()))
        rows.append(row)
    table = pd.DataFrame(rows).assign(verdict="")
    if not reference:
        return table
    sorted_by_clip = {s: mean[mean["system"] == s].sort_values("sound_id", kind="stable") for s in order}
    clips = sorted_by_clip[reference]["sound_id"].tolist()
    same = {s: part for s, part in sorted_by_clip.items() if part["sound_id"].tolist() == clips}
    uploader = (
        truth.set_index("sound_id")["uploader"].reindex(clips) if "uploader" in truth else pd.Series(dtype=object)
    )
    seeds = {s: by_seed.loc[by_seed["system"] == s, "hF"].to_numpy() for s in same}
    compared = table_verdicts(
        truth_for(sorted_by_clip[reference], truth),
        {s: argmax_codes(proba_of(part)) for s, part in same.items()},
        reference,
        cluster=uploader.to_numpy() if uploader.nunique() > 1 else None,
        seed_noise={s: seed_error(v) for s, v in seeds.items() if len(v) > 1},
        n_resamples=n_resamples,
    ).set_index("system")
    for column in ("diff", "low", "high"):
        table[column] = 100 * compared[column].reindex(table["system"]).to_numpy()
    table["p_holm"] = compared["p_holm"].reindex(table["system"]).to_numpy()
    table["verdict"] = compared["verdict"].reindex(table["system"]).fillna("other clips: not compared").to_numpy()
    return table


def stepwise(frame: pd.DataFrame, truth: pd.DataFrame, order: list[str], n_resamples: int = 10_000) -> pd.DataFrame:
    """Systems that build on each other: mean ± deviation over folds, each row compared with the one above it.

    Over uploaders where `truth` names several. Columns: system, hA, hF (as text), what the step brings.
    """
    parts = [summarise(frame, truth, over="fold", order=order[:1], n_resamples=n_resamples)]
    for above, system in zip(order, order[1:], strict=False):
        both = frame[frame["system"].isin([above, system])]
        parts.append(
            summarise(both, truth, over="fold", order=[above, system], reference=above, n_resamples=n_resamples).iloc[
                1:
            ]
        )
    table = pd.concat(parts, ignore_index=True)
    return pd.DataFrame({
        "system": table["system"],
        **{m: [f"{v:.2f} ± {s:.2f}" for v, s in zip(table[m], table[f"{m} std"], strict=True)] for m in ("hA", "hF")},
        "against the row above": table["verdict"],
    })  # fmt: skip


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows for JSON; what is missing is None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def pretty(table: pd.DataFrame, names: dict[str, str] | None = None) -> pd.DataFrame:
    """A `summarise` table for reading: "71.20 ± 0.84", systems by their full names."""
    out = pd.DataFrame({"system": [(names or {}).get(s, s) for s in table["system"]]})
    for column in ("hA", "hF", "strict hF"):
        out[column] = [f"{m:.2f} ± {s:.2f}" for m, s in zip(table[column], table[f"{column} std"], strict=True)]
    if table["verdict"].any():
        out["against the reference"] = table["verdict"]
    return out


def show(table: pd.DataFrame | str) -> Any:
    """A table for reading in a notebook and in the report (no row numbers, every cell escaped), or a sentence."""
    from IPython.display import HTML, Markdown

    if isinstance(table, str):
        return Markdown(table)
    return HTML(table.to_html(index=False, border=0, na_rep=""))


#: System -> (hA, its std, hF, its std) over the official folds as published, and where. Quoted, not measured here.
PUBLISHED: dict[str, tuple[float | None, ...]] = {
    "audio": (76.80, 0.55, 75.81, 0.60),
    "concat": (79.46, 0.95, 78.50, 1.03),
    "gated": (79.56, 0.96, 78.81, 1.08),
    "hatr audio": (77.36, None, 76.11, None),
    "hatr": (79.71, None, 78.76, None),
}


def beside_published(shown: pd.DataFrame, systems: list[str]) -> pd.DataFrame:
    """A `pretty` table with two more columns: what the report (its Table 1) says of the same systems."""

    def quoted(system: str, at: int) -> str:
        mean, std = PUBLISHED.get(system, (None,) * 4)[at : at + 2]
        return "" if mean is None else f"{mean:.2f}" + (f" ± {std:.2f}" if std is not None else "")

    at = list(shown.columns).index("strict hF") + 1
    left, right = shown.iloc[:, :at], shown.iloc[:, at:]
    published = {f"published {m}": [quoted(s, k) for s in systems] for m, k in (("hA", 0), ("hF", 2))}
    return pd.concat([left, pd.DataFrame(published), right], axis=1)


def confusion_table(counts: np.ndarray) -> Any:
    """A confusion matrix as an HTML table: percent of the true class, shaded; clips per class in the last column.

    `counts`: int (23, 23), [true, predicted], taxonomy order.
    """
    from IPython.display import HTML

    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f'<th style="padding:2px 3px">{c}</th>' for c in CLASSES)
    rows = []
    for i, code in enumerate(CLASSES):
        cells = "".join(
            f'<td style="padding:2px 3px;text-align:right;background:rgba({"0,114,178" if family(code) == family(CLASSES[j]) else "213,94,0"},{min(1.0, v / 100) * 0.85:.2f})"'
            f' title="{code} taken for {CLASSES[j]}: {counts[i, j]}">{f"{v:.0f}" if v >= 0.5 else ""}</td>'
            for j, v in enumerate(share[i])
        )
        rows.append(f"<tr><th>{code}</th>{cells}<td>{counts[i].sum()}</td></tr>")
    body = "\n".join(rows)
    return HTML(
        f'<table class="confusion" style="font-size:75%"><tr><th>true \\ predicted</th>{head}<th>clips</th></tr>\n{body}</table>'
    )


def composition(systems: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Table 3: what each submitted system is made of."""
    rows = []
    for name, spec in systems.items():
        members = spec["members"]
        total = sum(members.values())
        rows.append(
            {
                "system": name,
                "members (weight)": ", ".join(f"{m} ({w:g})" for m, w in members.items())
                if len(members) > 1
                else next(iter(members)),
                "share of the sum": ", ".join(f"{w / total:.0%}" for w in members.values()),
                "pseudo-labels": "yes" if spec["pseudo_labels"] else "no",
                "logit adjustment": f"τ = {spec['tau']:g}" if spec["tau"] else "no",
            }
        )
    return pd.DataFrame(rows)


def report_facts(paths: RunPaths) -> list[tuple[str, str]]:
    """(label, value) pairs for the head of the HTML report, from the results that are there."""
    found = {p.stem[:2]: read_json(p) for p in sorted(paths.results.glob("0*.json"))}
    facts = []
    if "01" in found:
        roles = found["01"]["roles"]
        facts.append(("labelled clips", f"{roles['dev']:,}"))
        facts += [
            (label, f"{roles[role]:,}")
            for role, label in (("noisy", "noisy clips"), ("evaluation", "evaluation clips"))
            if role in roles
        ]
        facts.append(("clips left out", f"{len(found['01']['failures']):,}"))
    if "02" in found:
        best = max(found["02"]["table1"], key=lambda r: r["hF"])
        facts.append((f"best head, official folds: {best['system']}", f"hF {best['hF']:.1f}"))
    if "05" in found:
        s1 = next(r for r in found["05"]["table2"] if r["system"] == "S1")
        facts.append(("ensemble S1, fixed split", f"hF {s1['hF']:.1f}"))
    if "06" in found and found["06"]["findings"]["all"]["r_class"] is not None:
        facts.append(
            (
                "accuracy against confidence, over classes",
                f"r = {found['06']['findings']['all']['r_class']:.2f}",
            )
        )
    return facts

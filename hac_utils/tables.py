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
from .stats import mean_std, paired_bootstrap, verdict


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
    n_resamples: int = 2000,
) -> pd.DataFrame:
    """One row per system: mean ± standard deviation (ddof 0) over `over`, in percent, and a verdict.

    Parameters
    ----------
    over : {"fold", "seed"}
        What the deviation is taken over; the other one is averaged first. Table 1: "fold", Table 2: "seed".
    reference : system that every other row is compared with by the paired bootstrap over clips
        (seeds' probabilities averaged, folds pooled); the verdict's seed noise is the spread over seeds.
    """
    by = _by(frame, truth, over)
    noise = _by(frame, truth, "seed").groupby("system")["hF"].std(ddof=0)
    mean = mean_over_seeds(frame)
    rows = []
    for system in order:
        part = by[by["system"] == system]
        row: dict[str, Any] = {"system": system}
        for column in ("hA", "hF", "strict hF"):
            row[column], row[f"{column} std"] = (100 * v for v in mean_std(part[column].to_numpy()))
        row["verdict"] = "reference" if system == reference else ""
        if reference and system != reference:
            a, b = (mean[mean["system"] == s].sort_values("sound_id", kind="stable") for s in (system, reference))
            if a["sound_id"].tolist() == b["sound_id"].tolist():
                result = paired_bootstrap(
                    truth_for(a, truth),
                    argmax_codes(proba_of(a)),
                    argmax_codes(proba_of(b)),
                    n_resamples=n_resamples,
                )
                row["verdict"] = verdict(result, seed_noise=float(noise[system]))
        rows.append(row)
    return pd.DataFrame(rows)


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

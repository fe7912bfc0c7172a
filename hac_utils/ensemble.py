"""Weighted probability averaging and logit adjustment (report, Sec. 3.5 and Table 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .errors import HacError, first_few
from .schema import KEYS, mean_over_seeds, proba_of
from .taxonomy import CLASSES


def class_prior(codes: Sequence[str]) -> np.ndarray:
    """Relative class frequencies, shape (23,), taxonomy order; an absent class counts half a clip."""
    counts = pd.Series(list(codes)).value_counts().reindex(list(CLASSES)).fillna(0.5).to_numpy(dtype=float)
    return counts / counts.sum()


def logit_adjustment(proba: np.ndarray, prior: np.ndarray, tau: float) -> np.ndarray:
    """s_c = log p_c − τ log π_c, given back as probabilities (softmax of s), shape (n, 23).

    References
    ----------
    Menon et al. 2021; the report, Sec. 3.5 (τ = .5).
    """
    s = np.log(np.clip(proba, 1e-12, None)) - tau * np.log(prior)
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _at_seed(member: pd.DataFrame, seed: int) -> pd.DataFrame:
    rows = member[member["seed"] == seed]
    return rows if len(rows) else mean_over_seeds(member)


def weighted_average(
    members: dict[str, pd.DataFrame], weights: dict[str, float], *, seed: int, system: str
) -> pd.DataFrame:
    """p = Σ w_i p_i / Σ w_i for one seed.

    A member that was not trained with that seed enters with the mean over its seeds. All members
    must cover the same clips.
    """
    if not members:
        raise HacError("no members to average", f"system {system}", "give at least one predictions table")
    unweighted = sorted(set(members) - set(weights))
    if unweighted:
        raise HacError(
            f"no weight for member {first_few(unweighted)}", f"system {system}", "give one weight per member"
        )
    total = sum(weights[m] for m in members)
    if not total > 0 or min(weights[m] for m in members) < 0:
        raise HacError(
            f"weights must be >= 0 and not all 0, got {weights}",
            f"system {system}",
            "for example 0.55,0.25,1.0,0.5",
        )
    base, p = None, 0.0
    for name, member in members.items():
        rows = _at_seed(member, seed).sort_values("sound_id", kind="stable")
        if base is None:
            base = rows
        elif rows["sound_id"].tolist() != base["sound_id"].tolist():
            odd = sorted(set(rows["sound_id"]) ^ set(base["sound_id"]))
            raise HacError(
                f"members cover different clips: {first_few(odd)} in one but not the other",
                f"system {system}, member {name}",
                "predict the same clips with every member",
            )
        p = p + weights[name] * proba_of(rows)
    out = base[KEYS].reset_index(drop=True).assign(system=system, seed=seed)
    return pd.concat([out, pd.DataFrame(p / total, columns=list(CLASSES))], axis=1)


def adjusted(frame: pd.DataFrame, prior: np.ndarray, tau: float, *, system: str) -> pd.DataFrame:
    """A predictions table after logit adjustment, under a new system name."""
    out = frame[KEYS].reset_index(drop=True).assign(system=system)
    return pd.concat([out, pd.DataFrame(logit_adjustment(proba_of(frame), prior, tau), columns=list(CLASSES))], axis=1)


def four_systems(available: Sequence[str], weights: dict[str, float], tau: float) -> dict[str, dict]:
    """Table 3: S1 … S4 from the members at hand.

    Parameters
    ----------
    available : system names that have predictions
    weights : member letter (F, A, R, P) -> weight

    Returns
    -------
    dict system -> {"members": {system name: weight}, "tau", "pseudo_labels"}
        F is the gated head, with pseudo-labels where there are any; without sound the text head takes
        its place, A and P are left out, and so is S4 (it would equal S3).
    """
    choices = {
        "F": ("gated+pl", "gated", "text+pl", "text"),
        "A": ("audio+pl", "audio"),
        "R": ("roberta",),
        "P": ("passt",),
    }
    found = {letter: next((n for n in names if n in available), None) for letter, names in choices.items()}
    if found["F"] is None:
        raise HacError(
            f"no fusion or text head among {first_few(sorted(available))}",
            "ensemble",
            "run notebook 02 first",
        )
    members = {name: weights[letter] for letter, name in found.items() if name is not None}
    with_labels = any(name.endswith("+pl") for name in members)
    out = {
        "S1": {"members": members, "tau": 0.0, "pseudo_labels": with_labels},
        "S2": {"members": members, "tau": tau, "pseudo_labels": with_labels},
        "S3": {"members": {found["F"]: 1.0}, "tau": 0.0, "pseudo_labels": found["F"].endswith("+pl")},
    }
    if "concat" in available:
        out["S4"] = {"members": {"concat": 1.0}, "tau": 0.0, "pseudo_labels": False}
    return out


def predict_systems(
    systems: dict[str, dict], tables: pd.DataFrame, seeds: Sequence[int], prior: np.ndarray
) -> pd.DataFrame:
    """Predictions of S1 … S4 for every seed, from the members' predictions (all in one table)."""
    rows = []
    for name, spec in systems.items():
        members = {m: tables[tables["system"] == m] for m in spec["members"]}
        for seed in seeds:
            average = weighted_average(members, spec["members"], seed=seed, system=name)
            rows.append(adjusted(average, prior, spec["tau"], system=name) if spec["tau"] else average)
    return pd.concat(rows, ignore_index=True)


def fill_missing(frame: pd.DataFrame, ids: Sequence[str], prior: np.ndarray) -> pd.DataFrame:
    """Rows for every id, in the order of `ids`; a clip that no model could read gets the class prior."""
    known = frame.set_index("sound_id")
    out = known.reindex(list(ids))
    lost = ~out.index.isin(known.index)
    out.loc[lost, list(CLASSES)] = prior
    first = frame.iloc[0]
    out[["system", "seed", "fold"]] = [first["system"], first["seed"], first["fold"]]
    return out.rename_axis("sound_id").reset_index()[[*KEYS, *CLASSES]]

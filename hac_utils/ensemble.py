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


def weighted_average(members: dict[str, pd.DataFrame], weights: dict[str, float], *, seed: int, system: str) -> pd.DataFrame:
    """p = Σ w_i p_i / Σ w_i for one seed.

    A member that was not trained with that seed enters with the mean over its seeds. All members
    must cover the same clips.
    """
    if not members:
        raise HacError("no members to average", f"system {system}", "give at least one predictions table")
    unweighted = sorted(set(members) - set(weights))
    if unweighted:
        raise HacError(f"no weight for member {first_few(unweighted)}", f"system {system}", "give one weight per member")
    total = sum(weights[m] for m in members)
    if not total > 0 or min(weights[m] for m in members) < 0:
        raise HacError(f"weights must be >= 0 and not all 0, got {weights}", f"system {system}", "for example 0.55,0.25,1.0,0.5")
    base, p = None, 0.0
    for name, member in members.items():
        rows = _at_seed(member, seed).sort_values("sound_id", kind="stable")
        if base is None:
            base = rows
        elif rows["sound_id"].tolist() != base["sound_id"].tolist():
            odd = sorted(set(rows["sound_id"]) ^ set(base["sound_id"]))
            raise HacError(f"members cover different clips: {first_few(odd)} in one but not the other", f"system {system}, member {name}", "predict the same clips with every member")
        p = p + weights[name] * proba_of(rows)
    out = base[KEYS].reset_index(drop=True).assign(system=system, seed=seed)
    return pd.concat([out, pd.DataFrame(p / total, columns=list(CLASSES))], axis=1)


def adjusted(frame: pd.DataFrame, prior: np.ndarray, tau: float, *, system: str) -> pd.DataFrame:
    """A predictions table after logit adjustment, under a new system name."""
    out = frame[KEYS].reset_index(drop=True).assign(system=system)
    return pd.concat([out, pd.DataFrame(logit_adjustment(proba_of(frame), prior, tau), columns=list(CLASSES))], axis=1)

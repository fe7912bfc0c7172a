"""Pseudo-labels for the noisy corpus: a hard majority of independent models (report, Sec. 3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .errors import HacError
from .schema import argmax_codes, mean_over_seeds, proba_of


def majority(voters: dict[str, pd.DataFrame], *, needed: int = 2) -> pd.DataFrame:
    """Keep the clips on which at least `needed` voters agree; crowd labels are never looked at.

    Parameters
    ----------
    voters : dict name -> predictions table of the noisy corpus (several seeds are averaged first)
    needed : int
        2 of 3 in the report.

    Returns
    -------
    table, one row per clip, sorted by sound_id: sound_id, one column ``vote_<name>`` each, label
    ("" where nothing is kept), votes (how many voters chose the winner), kept (bool).
    """
    if len(voters) < needed:
        raise HacError(
            f"{len(voters)} voters cannot give {needed} equal votes",
            "voters",
            "the report uses three: multimodal head, RoBERTa, PaSST",
        )
    out = None
    for name, frame in voters.items():
        mean = mean_over_seeds(frame)
        votes = pd.DataFrame({"sound_id": mean["sound_id"], f"vote_{name}": argmax_codes(proba_of(mean))})
        out = votes if out is None else out.merge(votes, on="sound_id", how="inner", validate="one_to_one")
    columns = [f"vote_{n}" for n in voters]
    block = out[columns].to_numpy()
    counts = (block[:, :, None] == block[:, None, :]).sum(axis=2)
    best = counts.argmax(axis=1)
    out["votes"] = counts.max(axis=1)
    out["kept"] = out["votes"] >= needed
    out["label"] = np.where(out["kept"], block[np.arange(len(block)), best], "")
    return out.sort_values("sound_id", kind="stable").reset_index(drop=True)


def agreement_pattern(table: pd.DataFrame, voters: Sequence[str]) -> dict[str, int]:
    """How many clips each pattern holds: "all agree", "M = R only", …, "none agree". For two or three voters; sums to the clips."""
    votes = {v: table[f"vote_{v}"].to_numpy() for v in voters}
    out = {"all agree": int((table["votes"] == len(votes)).sum())}
    names = list(votes)
    for i, a in enumerate(names if len(names) > 2 else []):
        for b in names[i + 1 :]:
            out[f"{a} = {b} only"] = int(((votes[a] == votes[b]) & (table["votes"] == 2).to_numpy()).sum())
    out["none agree"] = int((table["votes"] == 1).sum())
    return out

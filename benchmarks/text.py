"""Classes from titles and tags alone: the ladder of text systems on a dataset folder, with a verdict on every step.

    python benchmarks/text.py DATASET [--protocol official5,uploader5] [--seeds 0] [--workers 2]

All clips are split by each protocol, every system is fitted on the training parts and scored once on the test
parts. The verdict compares a step with the one before it on the clips with text, paired over clips or, where the
folds are uploader-disjoint, over uploaders. Clips without text get the class shares of such clips in training. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial

import numpy as np
import pandas as pd

from hac_utils import splits, stats
from hac_utils.datasets import read_dataset
from hac_utils.metrics import hierarchical_f1
from hac_utils.minilm import embed
from hac_utils.schema import argmax_codes, proba_of
from hac_utils.text_members import spoken, text_rows
from hac_utils.text_systems import cross_fit_ladder, ladder


def predicted(table: pd.DataFrame, name: str, ids: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold classes of a system in the order of `ids`, and their folds; seed 0 only."""
    own = table[(table["system"] == name) & (table["seed"] == table["seed"].min())].set_index("sound_id").loc[ids]
    return argmax_codes(proba_of(own)), own["fold"].to_numpy()


def by_fold(y: np.ndarray, pred: np.ndarray, fold: np.ndarray) -> list[float]:
    return [100 * hierarchical_f1(y[fold == k], pred[fold == k]) for k in np.unique(fold)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--protocol", default="official5,uploader5")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    seeds = [int(s) for s in args.seeds.split(",")]

    frame = read_dataset(args.dataset).frame
    began = time.perf_counter()
    X = text_rows(frame, partial(embed, workers=args.workers))
    result: dict = {"embed_s": round(time.perf_counter() - began, 1)}
    told = spoken(X)
    print(
        f"{told.sum()} of {len(frame)} clips have text; MiniLM vectors of text, title and tags: {result['embed_s']} s"
    )

    for protocol in args.protocol.split(","):
        folds = list(splits.folds_of(splits.PROTOCOLS[protocol](frame)[0], frame))
        began = time.perf_counter()
        table, seconds = cross_fit_ladder(X, frame, folds, seeds, workers=args.workers)
        spent = time.perf_counter() - began
        y = frame["class"].to_numpy()
        groups = frame["uploader"].to_numpy()[told] if protocol == "uploader5" else None
        print(f"\n{protocol}: hF in points, mean ± std of {len(folds)} folds; {spent:.0f} s")
        print(f"{'':24}{'with text':>14}{'all clips':>16}{'s':>7}  clips with text, against the step before")
        rows, preds = {}, []
        for name in ladder():
            pred, fold = predicted(table, name, frame["sound_id"])
            mean, std = stats.mean_std(by_fold(y[told], pred[told], fold[told]))
            mean_all, std_all = stats.mean_std(by_fold(y, pred, fold))
            preds.append(pred[told])
            words = stats.verdict(stats.paired_bootstrap(y[told], *preds[:-3:-1], cluster=groups)) if rows else ""
            print(f"{name:24}{mean:7.2f} ± {std:4.2f}{mean_all:9.2f} ± {std_all:4.2f}{seconds[name]:7.1f}  {words}")
            rows[name] = {"hF": round(mean, 2), "std": round(std, 2), "hF_all": round(mean_all, 2), "verdict": words}
        whole = stats.verdict(stats.paired_bootstrap(y[told], preds[-1], preds[0], cluster=groups))
        print(f"last step against the first: {whole}", flush=True)
        result[protocol] = {"seconds": round(spent, 1), "steps": rows, "last_to_first": whole}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

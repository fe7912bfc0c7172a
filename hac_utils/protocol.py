"""The same honest protocol for every model: folds × seeds in, predictions tables out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import kept
from .encoders import DIM
from .extract import embed_texts
from .fitting import Fitted, Job, fit_predict_many
from .schema import predictions_table
from .splits import Fold


@dataclass(frozen=True)
class CrossFit:
    """What cross-fitting some systems gave.

    Attributes
    ----------
    scored : predictions of every fold's scored part (out-of-fold predictions when folds cover all clips)
    extra : dict corpus -> predictions of another corpus by the fold models
    history : one row per epoch: system, seed, fold, epoch, loss, val_hF
    gate : sound_id, system, seed, fold, input ("scored" or a variant), gate (gated systems only)
    variants : dict variant -> predictions of every fold's scored part from altered inputs
    facts : dict system -> {"n_parameters", "source"}
    """

    scored: pd.DataFrame
    extra: dict[str, pd.DataFrame]
    history: pd.DataFrame
    gate: pd.DataFrame
    facts: dict[str, dict[str, Any]]
    variants: dict[str, pd.DataFrame]


def cross_fit(
    systems: dict[str, Any],
    inputs: Callable[[str, Fold], dict[str, Any]],
    frame: pd.DataFrame,
    folds: Sequence[Fold],
    seeds: Sequence[int],
    *,
    extra_ids: dict[str, Sequence[str]] | None = None,
    variants: Sequence[str] = (),
    y: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
    workers: int = 2,
    desc: str = "train",
    keep: Path | None = None,
) -> CrossFit:
    """Train every system on every fold with every seed.

    Parameters
    ----------
    systems : dict name -> estimator with a ``seed`` parameter
    inputs : (name, fold) -> {"dev": X of the training table, corpus: X, …}
        Called once per system and fold; whatever it fits must see ``fold.train`` only.
    frame : the training table (sound_id, class); row numbers in `folds` refer to it and to X
    extra_ids : dict corpus -> ids of the rows of ``inputs(...)[corpus]``
    variants : keys of ``inputs(...)`` with the training table's clips in another form, without text for example;
        their scored rows are predicted too
    keep : folder for finished trainings: a run that was killed takes them from there
    y : labels of all rows of X, if X has more rows than `frame` (pseudo-labelled clips behind them)
    """
    extra_ids = extra_ids or {}
    y = frame["class"].to_numpy() if y is None else y
    ids = frame["sound_id"].to_numpy()
    jobs, keys = [], []
    for name, estimator in systems.items():
        for fold in folds:
            x = inputs(name, fold)
            wanted = {"scored": fold.scored, **{c: x[c] for c in extra_ids}}
            wanted |= {v: x[v][fold.scored] for v in variants}
            for seed in seeds:
                model = dataclasses.replace(
                    Job(estimator, x["dev"], y, fold.train, fold.val, wanted, sample_weight),
                    estimator=_seeded(estimator, seed),
                )
                jobs.append(model)
                keys.append((name, fold, seed))
    hashes: dict[int, str] = {}
    names = [kept.key_of(job, hashes) if keep else "" for job in jobs]
    found = [kept.read(keep, name) if keep else None for name in names]
    missing = [i for i, fitted in enumerate(found) if fitted is None]
    made = fit_predict_many(
        [jobs[i] for i in missing],
        workers=workers,
        desc=desc,
        finished=lambda i, fitted: kept.write(keep, names[missing[i]], fitted) if keep else None,
    )
    new = dict(zip(missing, made, strict=True))
    done = [new[i] if fitted is None else fitted for i, fitted in enumerate(found)]
    return _collect(keys, done, ids, extra_ids, variants)


def _seeded(estimator: Any, seed: int) -> Any:
    from sklearn.base import clone

    return clone(estimator).set_params(seed=seed)


def _collect(
    keys: list[tuple[str, Fold, int]],
    done: list[Fitted],
    ids: np.ndarray,
    extra_ids: dict[str, Sequence[str]],
    variants: Sequence[str],
) -> CrossFit:
    scored, history, gates, facts = [], [], [], {}
    extra: dict[str, list[pd.DataFrame]] = {c: [] for c in extra_ids}
    altered: dict[str, list[pd.DataFrame]] = {v: [] for v in variants}
    for (name, fold, seed), fitted in zip(keys, done, strict=True):
        key = {"system": name, "seed": seed, "fold": fold.fold}
        scored.append(predictions_table(ids[fold.scored], fitted.proba["scored"], fitted.classes, **key))
        for corpus, corpus_ids in extra_ids.items():
            extra[corpus].append(predictions_table(corpus_ids, fitted.proba[corpus], fitted.classes, **key))
        for v in variants:
            altered[v].append(predictions_table(ids[fold.scored], fitted.proba[v], fitted.classes, **key))
        history += [{**key, **row} for row in fitted.history]
        for form in ("scored", *variants):
            if form in fitted.gate:
                gates.append(
                    pd.DataFrame({"sound_id": ids[fold.scored], **key, "input": form, "gate": fitted.gate[form]})
                )
        facts[name] = {"n_parameters": fitted.n_parameters, "source": fitted.source}
    return CrossFit(
        scored=pd.concat(scored, ignore_index=True),
        extra={c: pd.concat(t, ignore_index=True) for c, t in extra.items()},
        history=pd.DataFrame(history),
        gate=pd.concat(gates, ignore_index=True)
        if gates
        else pd.DataFrame(columns=["sound_id", "system", "seed", "fold", "input", "gate"]),
        facts=facts,
        variants={v: pd.concat(t, ignore_index=True) for v, t in altered.items()},
    )


def with_training_rows(fold: Fold, keep: np.ndarray | None = None, more: np.ndarray | None = None) -> Fold:
    """The fold with its training part filtered to rows in `keep`, or with rows `more` added; never the scored part."""
    train = fold.train if keep is None else np.intersect1d(fold.train, keep)
    return dataclasses.replace(fold, train=train if more is None else np.concatenate([train, more]))


def embed_texts_per_fold(
    encoder: str,
    texts: Sequence[str],
    folds: Sequence[Fold],
    others: dict[str, Sequence[str]],
    *,
    workers: int = 2,
) -> list[dict[str, np.ndarray]]:
    """Fit a text encoder on each fold's training texts alone and embed all texts with it.

    Returns
    -------
    list over folds of {"dev": float32 (len(texts), 512), corpus: float32 (n, 512), …}
        Does not depend on `workers`: every fit uses one thread. A fold without any training text gives zeros.
    """
    from joblib import Parallel, delayed

    corpora = {"dev": texts, **others}
    jobs = [delayed(_embed_fold)(encoder, [texts[i] for i in fold.train], corpora, fold.fold) for fold in folds]
    return Parallel(min(workers, len(jobs)), backend="loky")(jobs)


def _embed_fold(encoder: str, train: list[str], corpora: dict[str, Sequence[str]], seed: int) -> dict[str, np.ndarray]:
    from threadpoolctl import threadpool_limits

    if not any(t.strip() for t in train):
        return {name: np.zeros((len(t), DIM), dtype=np.float32) for name, t in corpora.items()}
    with threadpool_limits(1):
        return embed_texts(encoder, train, corpora, seed=seed)

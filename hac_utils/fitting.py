"""Many trainings at once: one-thread processes side by side, each bitwise the same as alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Job:
    """One training: fit a copy of `estimator` on rows `train` of X, y, then predict.

    Attributes
    ----------
    X : array (n, …) or list of str; shared by jobs, never copied for a job
    y : array of str, shape (n,)
    predict : dict name -> inputs of the same kind as X, or row numbers into X
    """

    estimator: Any
    X: Any
    y: np.ndarray
    train: np.ndarray
    val: np.ndarray | None = None
    predict: dict[str, Any] = field(default_factory=dict)
    sample_weight: np.ndarray | None = None


@dataclass(frozen=True)
class Fitted:
    """What a training left: probabilities (columns as `classes`), per-epoch history, and facts to report."""

    proba: dict[str, np.ndarray]
    classes: list[str]
    history: list[dict]
    n_parameters: int
    source: str
    gate: dict[str, np.ndarray]


def _take(X: Any, rows: np.ndarray) -> Any:
    return X[rows] if isinstance(X, np.ndarray) else [X[i] for i in rows]


def _inputs(X: Any, wanted: Any) -> Any:
    return _take(X, wanted) if isinstance(wanted, np.ndarray) and wanted.ndim == 1 and wanted.dtype.kind == "i" else wanted


def _run(job: Job) -> Fitted:
    from sklearn.base import clone

    estimator = clone(job.estimator)
    val = None if job.val is None or len(job.val) == 0 else (_take(job.X, job.val), job.y[job.val])
    weights = {} if job.sample_weight is None else {"sample_weight": job.sample_weight[job.train]}
    estimator.fit(_take(job.X, job.train), job.y[job.train], val=val, **weights)
    inputs = {name: _inputs(job.X, wanted) for name, wanted in job.predict.items()}
    return Fitted(
        proba={name: estimator.predict_proba(x) for name, x in inputs.items()},
        classes=[str(c) for c in estimator.classes_],
        history=list(estimator.history_),
        n_parameters=int(estimator.n_parameters_),
        source=getattr(estimator, "source_", ""),
        gate={name: estimator.gate(x) for name, x in inputs.items()} if hasattr(estimator, "gate") else {},
    )


def fit_predict_many(jobs: Sequence[Job], *, workers: int = 2, desc: str = "train") -> list[Fitted]:
    """Run the jobs in `workers` processes of one thread each, results in the order of `jobs`.

    Results do not depend on `workers`: every training seeds its own generators and uses one thread.
    """
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    bar = {"total": len(jobs), "desc": desc, "unit": "model", "disable": None}
    if workers <= 1 or len(jobs) == 1:
        return [_run(job) for job in tqdm(jobs, **bar)]
    parallel = Parallel(workers, backend="loky", inner_max_num_threads=1, return_as="generator", batch_size=1)
    return list(tqdm(parallel(delayed(_run)(job) for job in jobs), **bar))

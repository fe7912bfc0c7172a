"""What every estimator of ours shares: label codes, private random state, and many trainings at once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from .errors import HacError, did_you_mean, first_few
from .taxonomy import CLASSES


def class_codes(classes: Sequence[str] | None) -> np.ndarray:
    """The codes an estimator tells apart, sorted, shape (k,); None means all 23."""
    codes = CLASSES if classes is None else [str(c) for c in classes]
    unknown = [c for c in codes if c not in CLASSES]
    if unknown:
        raise HacError(f"unknown class {unknown[0]!r}", "classes", did_you_mean(unknown[0], CLASSES))
    if not codes:
        raise HacError("no classes", "classes", "give second-level BST codes, or None for all 23")
    return np.array(sorted(set(codes)))


def targets(y: Sequence[str], classes: np.ndarray, n: int, where: str = "y") -> np.ndarray:
    """Positions of the labels in `classes`, int64, shape (n,).

    Raises
    ------
    HacError
        Not `n` labels, or a label (NaN, say) that is none of `classes`.
    """
    labels = np.asarray(y, dtype=object)
    if labels.shape != (n,):
        raise HacError(f"{n} rows, but labels of shape {labels.shape}", where, "give one label per row")
    known = {c: i for i, c in enumerate(classes.tolist())}
    unknown = sorted({str(v) for v in labels if v not in known})
    if unknown:
        fix = f"the classes are {', '.join(classes)}"
        raise HacError(f"unknown labels: {first_few(unknown)}", where, fix)
    return np.array([known[v] for v in labels], dtype=np.int64)


def at_least(estimator: BaseEstimator, low: float, names: Sequence[str]) -> None:
    """Refuse parameters that are no numbers of at least `low`."""
    for name in names:
        value = getattr(estimator, name)
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not number or not low <= value < math.inf:
            fix = f"give a number of at least {low:g}"
            raise HacError(f"{name} is {value!r}", type(estimator).__name__, fix)


@contextlib.contextmanager
def private_torch(seed: int, threads: int) -> Iterator[None]:
    """Own torch random state and thread count inside, the caller's again afterwards."""
    import torch

    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        torch.set_num_threads(int(threads))
        try:
            yield
        finally:
            torch.set_num_threads(before)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of probabilities, float64, same shape as `logits`."""
    e = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


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
    return (
        _take(X, wanted) if isinstance(wanted, np.ndarray) and wanted.ndim == 1 and wanted.dtype.kind == "i" else wanted
    )


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

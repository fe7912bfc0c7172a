"""What every estimator of ours shares: label codes, private random state, and many trainings at once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

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


def checked(estimator: BaseEstimator, X: Any, name: str = "X") -> np.ndarray:
    """Embeddings as float32 (n, d): numbers, finite, and as wide as those the estimator was fitted on, if any."""
    who = type(estimator).__name__
    X = np.asarray(X)
    if X.ndim != 2 or X.dtype.kind not in "fiu" or X.shape[1] == 0:
        what = f"{name} must be numbers of shape (n, d), got shape {X.shape}, dtype {X.dtype}"
        raise HacError(what, who, "one row per clip, one column per dimension")
    bad = ~np.isfinite(X).all(axis=1)
    if bad.any():
        what = f"embeddings that are NaN or infinite in rows {first_few(np.flatnonzero(bad).tolist())}"
        raise HacError(what, f"{who}, {name}", "leave these clips out, or extract them again")
    known = getattr(estimator, "n_features_in_", None)
    if known is not None and X.shape[1] != known:
        what = f"{name} has {X.shape[1]} columns, the model was fitted on {known}"
        raise HacError(what, who, "use the encoder the model was trained with")
    return X.astype(np.float32, copy=False)


def learnable(estimator: BaseEstimator, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Training embeddings and the positions of their labels in ``classes_``; sets ``classes_`` and ``n_features_in_``."""
    estimator.classes_ = class_codes(estimator.classes)
    if hasattr(estimator, "n_features_in_"):
        del estimator.n_features_in_
    features = checked(estimator, X)
    target = targets(y, estimator.classes_, len(features), f"{type(estimator).__name__}, y")
    if len(set(target.tolist())) < 2:
        what = f"only one class in y: {estimator.classes_[target[0]]}" if len(target) else "no clips to learn from"
        raise HacError(what, type(estimator).__name__, "give at least two classes")
    estimator.n_features_in_ = features.shape[1]
    return features, target


def weights_of(estimator: BaseEstimator, sample_weight: Any, n: int, dtype: Any = np.float32) -> np.ndarray:
    """Sample weights (n,), ones where none are given; negative and not finite ones, and only zeros, are refused."""
    weight = np.ones(n, dtype) if sample_weight is None else np.asarray(sample_weight, dtype)
    if weight.shape != (n,) or not (np.isfinite(weight).all() and (weight >= 0).all()):
        what = f"sample weights of shape {weight.shape} for {n} rows, or some negative or not finite"
        raise HacError(what, type(estimator).__name__, "one weight of at least 0 per row")
    if not weight.any():
        raise HacError("all sample weights are zero", type(estimator).__name__, "leave some clips a weight")
    return weight


class NetworkClassifier:
    """Of an estimator with a fitted torch network ``network_``: how it predicts, and how it is pickled.

    Pickled, the network travels as its weights: its class is made in a function, which pickle cannot name, and
    ``_network(n_features, n_classes)`` builds it again.
    """

    _eval_rows = 2048  # rows a network sees at once

    def _prepare(self, X: np.ndarray) -> np.ndarray:
        """Checked embeddings to the network's input."""
        return X

    def _logits(self, net: Any, features: np.ndarray) -> np.ndarray:
        import torch

        net.eval()
        step = self._eval_rows
        with torch.inference_mode():
            blocks = [net(torch.tensor(features[i : i + step])) for i in range(0, len(features), step)]
        return torch.cat(blocks).numpy()

    def predict_proba(self, X) -> np.ndarray:
        """Class probabilities, float64 (n, len(classes_)), rows sum to 1, columns as ``classes_``."""
        check_is_fitted(self, "network_")
        features = checked(self, X)
        if not len(features):
            return np.empty((0, len(self.classes_)))
        with private_torch(self.seed, self.threads):
            return softmax(self._logits(self.network_, self._prepare(features)))

    def predict(self, X) -> np.ndarray:
        """Most probable code, shape (n,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def __getstate__(self) -> dict:
        state = dict(super().__getstate__())
        if "network_" in state:
            state["network_"] = {k: v.numpy() for k, v in state["network_"].state_dict().items()}
        return state

    def __setstate__(self, state: dict) -> None:
        import torch

        super().__setstate__(state)
        if "network_" in state:
            weights = {k: torch.tensor(v) for k, v in state["network_"].items()}
            n_classes = len(list(weights.values())[-1])  # the last one is the last layer's bias
            with private_torch(self.seed, self.threads):
                self.network_ = self._network(self.n_features_in_, n_classes).eval()
            self.network_.load_state_dict(weights)


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
    return _result(estimator, job)


def _run_stack(jobs: Sequence[Job]) -> list[Fitted]:
    return [_result(e, job) for e, job in zip(jobs[0].estimator.fit_stack(jobs), jobs, strict=True)]


def _result(estimator: Any, job: Job) -> Fitted:
    inputs = {name: _inputs(job.X, wanted) for name, wanted in job.predict.items()}
    return Fitted(
        proba={name: estimator.predict_proba(x) for name, x in inputs.items()},
        classes=[str(c) for c in estimator.classes_],
        history=list(estimator.history_),
        n_parameters=int(estimator.n_parameters_),
        source=getattr(estimator, "source_", ""),
        gate={name: estimator.gate(x) for name, x in inputs.items()} if hasattr(estimator, "gate") else {},
    )


def stacks(jobs: Sequence[Job]) -> list[list[int]]:
    """Positions of the jobs that are trained as one stack, every job in one list.

    An estimator says with ``stack_key(job)`` which jobs belong together; None, or no such method, trains alone.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, job in enumerate(jobs):
        key = job.estimator.stack_key(job) if hasattr(job.estimator, "stack_key") else None
        groups.setdefault(("alone", i) if key is None else ("stack", key), []).append(i)
    return list(groups.values())


def _cost(job: Job) -> float:
    """Where an estimator tells its ``cost(job)``, long trainings start first; others before them, in their order."""
    return job.estimator.cost(job) if hasattr(job.estimator, "cost") else math.inf


def fit_predict_many(
    jobs: Sequence[Job],
    *,
    workers: int = 2,
    desc: str = "train",
    finished: Callable[[int, Fitted], None] = lambda i, fitted: None,
) -> list[Fitted]:
    """Run the jobs in `workers` processes of one thread each, results in the order of `jobs`.

    Heads on a GPU are trained in stacks, in this process; everything else one by one. Results do not depend on
    `workers`: every training seeds its own generators and uses one thread. On a GPU a result depends on the
    stack it was in, to float rounding and by its dropout draws. `finished` is called with the position of each
    training that is done.
    """
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    groups = stacks(jobs)
    together = [g for g in groups if len(g) > 1]
    alone = sorted((g[0] for g in groups if len(g) == 1), key=lambda i: -_cost(jobs[i]))
    done: dict[int, Fitted] = {}
    with tqdm(total=len(jobs), desc=desc, unit="model", disable=None) as bar:
        for group in together:
            for i, result in zip(group, _run_stack([jobs[i] for i in group]), strict=True):
                done[i] = result
                finished(i, result)
            bar.update(len(group))
        if workers <= 1 or len(alone) <= 1:
            results = (_run(jobs[i]) for i in alone)
        else:
            parallel = Parallel(workers, backend="loky", inner_max_num_threads=1, return_as="generator", batch_size=1)
            results = parallel(delayed(_run)(jobs[i]) for i in alone)
        for i, result in zip(alone, results, strict=True):
            done[i] = result
            finished(i, result)
            bar.update(1)
    return [done[i] for i in range(len(jobs))]

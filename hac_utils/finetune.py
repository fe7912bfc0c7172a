"""The training loop of the two networks that are trained end to end (finetune_text, finetune_audio).

Training is bitwise reproducible on one machine for the same seed and number of threads. Across
machines, or on a GPU, expect small differences: torch promises no more.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone

from .errors import HacError, did_you_mean, first_few
from .metrics import hierarchical_f1
from .taxonomy import CLASSES

log = logging.getLogger(__name__)


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


def train(
    model: Any,
    *,
    name: str,
    batches: list[list[Any]],
    loss_of: Callable[[Any], Any],
    logits_of: Callable[[], np.ndarray],
    val_y: np.ndarray | None,
    classes: np.ndarray,
    lr: float,
    weight_decay: float,
    warmup: float,
) -> list[dict[str, Any]]:
    """AdamW with linear warm-up and decay, gradients clipped at norm 1; the model is changed in place.

    Parameters
    ----------
    batches : list over epochs of lists of row numbers
        Each batch is an array of rows, handed to `loss_of`, which returns the mean loss.
    logits_of : callable
        Logits of the validation rows, shape (m, k); called after each epoch if `val_y` is given.
    val_y : array of str, shape (m,), or None
        With it the model ends with the weights of the epoch of the highest validation hF (the first of
        equals), without it with the last epoch's.
    warmup : float in [0, 1]
        Part of all steps in which the learning rate rises.

    Returns
    -------
    list of dict
        ``epoch`` (from 1), ``loss`` (mean over rows) and ``val_hF`` (a fraction, None without `val_y`).
        Here a class never predicted counts 0: by the official drop a first epoch that knows two classes
        could win.
    """
    import torch
    from tqdm import tqdm

    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)
    total = sum(len(epoch) for epoch in batches)
    rising = max(1, round(warmup * total))
    step, history, best, kept = 0, [], -1.0, None
    with tqdm(total=total, desc=name, unit="batch", delay=2, disable=None, leave=False) as bar:
        for epoch, rows_of_batch in enumerate(batches, 1):
            model.train()
            losses = 0.0
            for rows in rows_of_batch:
                rate = (step + 1) / rising if step < rising else (total - step) / max(1, total - rising)
                for group in optimizer.param_groups:
                    group["lr"] = lr * rate
                optimizer.zero_grad(set_to_none=True)
                loss = loss_of(rows)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                losses, step = losses + loss.item() * len(rows), step + 1
                bar.update()
            mean = losses / sum(map(len, rows_of_batch))
            if not math.isfinite(mean):
                what = f"the loss became {mean} in epoch {epoch}"
                raise HacError(what, f"{name}, lr={lr:g}", "choose a smaller lr")
            model.eval()
            score = None
            if val_y is not None:
                predicted = classes[logits_of().argmax(axis=1)]
                score = hierarchical_f1(val_y, predicted, never_predicted="zero")
                if score > best:
                    best, kept = score, {k: v.clone() for k, v in model.state_dict().items()}
            history.append({"epoch": epoch, "loss": mean, "val_hF": score})
            shown = "" if score is None else f", validation hF {100 * score:.2f}"
            log.info("%s epoch %d of %d: loss %.4f%s", name, epoch, len(batches), mean, shown)
    if kept is not None:
        model.load_state_dict(kept)
    return history


def fit_predict_many(jobs: Sequence[tuple], workers: int = 2) -> list[dict[str, Any]]:
    """Train many estimators, each on one thread, in `workers` processes; results do not depend on `workers`.

    Parameters
    ----------
    jobs : sequence of (estimator, X, y, val, inputs)
        An unfitted RobertaClassifier or PasstClassifier, its training rows, ``(X, y)`` for validation or
        None, and ``{name: X}`` to predict. Big arrays reach the processes as files mapped into memory;
        an array object that occurs in several jobs is written once.
    workers : int
        1 trains here, one after the other.

    Returns
    -------
    list of dict, in the order of `jobs`
        Each name with its probabilities, float64, shape (n, k), and ``"history"``, ``"source"``,
        ``"n_parameters"``.
    """
    reserved = {"history", "source", "n_parameters"}
    for job in jobs:
        if clash := sorted(reserved & set(job[4])):
            what = f"inputs cannot be called {clash[0]!r}"
            raise HacError(what, "jobs", f"reserved: {', '.join(sorted(reserved))}")
    if workers <= 1 or len(jobs) <= 1:
        return [_fit_predict(*job) for job in jobs]
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", inner_max_num_threads=1):
        return Parallel(n_jobs=min(workers, len(jobs)))(delayed(_fit_predict)(*job) for job in jobs)


def _fit_predict(estimator: Any, X: Any, y: Sequence[str], val: tuple | None, inputs: dict[str, Any]) -> dict:
    fitted = clone(estimator).set_params(threads=1).fit(X, y, val)
    out = {name: fitted.predict_proba(rows) for name, rows in inputs.items()}
    return out | {"history": fitted.history_, "source": fitted.source_, "n_parameters": fitted.n_parameters_}

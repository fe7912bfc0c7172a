"""Classes from titles and tags alone: a house estimator, and the ladder from plain baselines to a mean of members.

X is what :func:`text_members.text_rows` makes of a metadata table, or a list of strings. A text system is a weighted
mean of members' scores, each of about unit spread over the classes, softmaxed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from .errors import HacError, did_you_mean
from .fitting import at_least, class_codes, softmax, targets, weights_of
from .metrics import hierarchical_f1
from .schema import predictions_table
from .splits import Fold
from .taxonomy import family
from .text_members import MEMBERS, checked_rows, spoken, stacked

#: What :class:`TextSystem` with ``choose=True`` chooses from: share of the kernel, weight of the family, sharpness.
KERNEL_SHARES = (0.3, 0.4, 0.5, 0.6, 0.7)
FAMILY_WEIGHTS = (0.0, 0.1, 0.2, 0.3)
SHARPNESS = tuple(np.round(np.geomspace(0.5, 4.0, 13), 3))


class TextSystem(ClassifierMixin, BaseEstimator):
    """Mean of members' scores, as a classifier of texts.

    Parameters
    ----------
    members : sequence of str
        Names in :data:`MEMBERS`. A member that is a kernel shares its part of the weight with other kernels, the
        rest with the others.
    kernel_share : float in [0, 1]
        Weight of the kernels, where there are members of both kinds.
    family_weight : float
        Added to a class's score: this times the sum over the classes of its family.
    sharpness : float
        Scores times this are softmaxed.
    choose : bool
        Choose `kernel_share` and `family_weight` by hF on `val` (the mean of the best few, as one clip more or less
        means nothing), and `sharpness` by likelihood, with members fitted on X alone.
    refit : bool
        Fit the members on X and `val` in the end. Not where `val` is what is scored, as in the fixed split.
    seed : int
        Of the SVMs' data order.
    classes : sequence of str, optional
        Default: the 23 BST codes.

    Attributes
    ----------
    classes_ : array of str, sorted; the columns of ``predict_proba``
    history_ : empty, there are no epochs
    chosen_ : dict of kernel_share, family_weight and sharpness in use
    prior_ : class shares of training clips without text, which clips without text get
    """

    def __init__(
        self,
        members=("kernel fields", "words by field", "clean words"),
        kernel_share=0.5,
        family_weight=0.2,
        sharpness=1.3,
        choose=False,
        refit=False,
        seed=0,
        classes=None,
    ):
        self.members = members
        self.kernel_share = kernel_share
        self.family_weight = family_weight
        self.sharpness = sharpness
        self.choose = choose
        self.refit = refit
        self.seed = seed
        self.classes = classes

    def fit(self, X, y, val=None, sample_weight=None, fitted=None):
        """Learn from the clips of X, and with `refit` from those of `val`.

        Parameters
        ----------
        X : rows of :func:`text_members.text_rows`, or list of str, length n
        y : array of str, shape (n,)
        val : (X, y), optional
            What is to be chosen is chosen here. It must not be the data that is scored.
        sample_weight : array, shape (n,), optional; clips of `val` weigh 1
        fitted : dict, optional
            Keeps members between systems that are fitted on the same rows in the same order: :func:`cross_fit_ladder`.

        Raises
        ------
        HacError
            X holds no texts, labels are unknown, there is one class only, no clip has text, or a parameter is off.
        """
        from threadpoolctl import threadpool_limits

        self._check()
        self.classes_ = class_codes(self.classes)
        rows = checked_rows(X)
        goal = targets(y, self.classes_, len(rows), "TextSystem, y")
        weight = weights_of(self, sample_weight, len(rows), np.float64)
        fitted = {} if fitted is None else fitted
        with threadpool_limits(1):
            self.chosen_ = {n: float(getattr(self, n)) for n in ("kernel_share", "family_weight", "sharpness")}
            given = val is not None and len(val[0]) > 0
            if given:
                more = checked_rows(val[0], "val X")
                more_goal = targets(val[1], self.classes_, len(more), "TextSystem, val y")
            if not self.refit or (given and self.choose):
                self._members = self._learn(rows, goal, weight, fitted, "train")
            if given and self.choose:
                self._choose(more, more_goal)
            if self.refit:
                if given:
                    rows, goal = stacked(rows, more), np.concatenate([goal, more_goal])
                    weight = np.concatenate([weight, np.ones(len(more))])
                self._members = self._learn(rows, goal, weight, fitted, "all")
        silent = ~spoken(rows)
        share = np.bincount(goal, weight, minlength=len(self.classes_)) / max(weight.sum(), 1e-12)
        without = np.bincount(goal[silent], weight[silent], minlength=len(self.classes_))
        self.prior_ = (without + share) / (without + share).sum()
        self.history_: list[dict] = []
        self.n_parameters_ = sum(m.n_parameters_ for m in self._members)
        return self

    def _check(self) -> None:
        if isinstance(self.members, str) or not len(self.members):
            raise HacError(f"members is {self.members!r}", "TextSystem", "give a list of: " + ", ".join(MEMBERS))
        for name in self.members:
            if name not in MEMBERS:
                raise HacError(f"no member {name!r}", "TextSystem, members", did_you_mean(name, MEMBERS))
        at_least(self, 0, ["kernel_share", "family_weight", "sharpness", "seed"])
        if self.kernel_share > 1:
            raise HacError(f"kernel_share is {self.kernel_share!r}", "TextSystem", "give a number from 0 to 1")

    def _learn(self, rows: np.ndarray, goal: np.ndarray, weight: np.ndarray, fitted: dict, part: str) -> list:
        told = spoken(rows) & (weight > 0)
        if len(set(goal[told].tolist())) < 2:
            what = "no two classes have clips with text" if told.any() else "all training texts are empty"
            raise HacError(what, "TextSystem, X", "text systems need texts of at least two classes")
        members = []
        for name in self.members:
            key = (name, part, int(self.seed))
            if key not in fitted:
                member = MEMBERS[name][0](int(self.seed))
                fitted[key] = member.fit(rows[told], goal[told], weight[told], len(self.classes_))
            members.append(fitted[key])
        return members

    def _scores(self, rows: np.ndarray) -> list[np.ndarray]:
        """Each member's scores, (n, k): mean 0 over the classes, about unit spread."""
        out = []
        for name, member in zip(self.members, self._members, strict=True):
            z = member.scores(rows)
            out.append((z - z.mean(axis=1, keepdims=True)) / MEMBERS[name][1])
        return out

    def _mean(self, scores: list[np.ndarray], kernel_share: float, family_weight: float) -> np.ndarray:
        kernel = np.array([name.startswith("kernel") for name in self.members])
        share = (
            np.where(kernel, kernel_share, 1 - kernel_share) if 0 < kernel.sum() < len(kernel) else np.ones(len(kernel))
        )
        share = share / np.where(kernel, max(kernel.sum(), 1), max((~kernel).sum(), 1))
        families = np.array([family(str(c)) for c in self.classes_])
        z = sum(s * w for s, w in zip(scores, share, strict=True))
        return z @ (np.eye(len(families)) + family_weight * (families[:, None] == families[None, :]))

    def _choose(self, rows: np.ndarray, goal: np.ndarray) -> None:
        told = spoken(rows)
        if not told.any():
            return
        rows, goal = rows[told], goal[told]
        scores, truth = self._scores(rows), self.classes_[goal]
        both = {name.startswith("kernel") for name in self.members} == {True, False}
        grid = [(s, f) for s in (KERNEL_SHARES if both else (self.kernel_share,)) for f in FAMILY_WEIGHTS]
        value = [
            hierarchical_f1(truth, self.classes_[self._mean(scores, s, f).argmax(1)], never_predicted="zero")
            for s, f in grid
        ]
        best = np.array(grid)[np.argsort(-np.array(value), kind="stable")[:3]].mean(axis=0)
        share, weight = (float(round(v, 6)) for v in best)
        z = self._mean(scores, share, weight)
        losses = [-np.log(np.maximum(softmax(t * z)[np.arange(len(z)), goal], 1e-12)).mean() for t in SHARPNESS]
        sharpness = float(SHARPNESS[int(np.argmin(losses))])
        self.chosen_ = {"kernel_share": share, "family_weight": weight, "sharpness": sharpness}

    def predict_proba(self, X) -> np.ndarray:
        """Class probabilities, float64 (n, len(classes_)), rows sum to 1; a clip without text gets ``prior_``."""
        from threadpoolctl import threadpool_limits

        check_is_fitted(self, "prior_")
        rows = checked_rows(X)
        out = np.tile(self.prior_, (len(rows), 1))
        told = spoken(rows)
        if told.any():
            with threadpool_limits(1):
                z = self._mean(self._scores(rows[told]), self.chosen_["kernel_share"], self.chosen_["family_weight"])
            out[told] = softmax(self.chosen_["sharpness"] * z)
        return out

    def predict(self, X) -> np.ndarray:
        """Most probable code, shape (n,)."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def ladder(*, refit: bool = True) -> dict[str, TextSystem]:
    """Step -> system, each adding one thing to the one before it; all take rows of :func:`text_members.text_rows`.

    With `refit` the validation part is learned from as well, after the choice: for protocols that do not score it.
    """
    kernel, clean, fields = "kernel fields", "clean words", "words by field"
    steps = {
        "tfidf svm": TextSystem(("words",), family_weight=0.0),
        "minilm logistic": TextSystem(("logistic",), family_weight=0.0, sharpness=2.4),
        "minilm kernel": TextSystem(("kernel",), family_weight=0.0),
        "+ title and tags apart": TextSystem((kernel,), family_weight=0.0),
        "+ words": TextSystem((kernel, clean), family_weight=0.0),
        "+ words by field": TextSystem((kernel, clean, fields), family_weight=0.0),
        "+ family": TextSystem((kernel, clean, fields)),
        "+ weights chosen": TextSystem((kernel, clean, fields), choose=True),
    }
    return {name: system.set_params(refit=refit) for name, system in steps.items()}


def cross_fit_ladder(
    X: np.ndarray,
    frame: pd.DataFrame,
    folds: Sequence[Fold],
    seeds: Sequence[int] = (0,),
    *,
    systems: dict[str, TextSystem] | None = None,
    workers: int = 2,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """:func:`protocol.cross_fit` of the ladder, in less than half the time: a member is fitted once a fold, not once a system.

    Parameters
    ----------
    X : rows of :func:`text_members.text_rows`, one per row of `frame`
    frame : the training table (sound_id, class); row numbers in `folds` refer to it and to X
    systems : dict name -> system; default :func:`ladder`

    Returns
    -------
    predictions : predictions table of every fold's scored part, as ``CrossFit.scored``
    seconds : system -> time it took over all folds, for what the systems before it had not fitted
    """
    from joblib import Parallel, delayed

    systems = ladder() if systems is None else systems
    y, ids = frame["class"].to_numpy(), frame["sound_id"].to_numpy()
    jobs = [delayed(_fit_fold)(systems, X, y, fold, seed) for fold in folds for seed in seeds]
    with warnings.catch_warnings():  # loky renews a worker whose memory grew, as a kernel of 8,000 clips makes it
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        done = Parallel(min(workers, len(jobs)), backend="loky", inner_max_num_threads=1)(jobs)
    tables, seconds = [], dict.fromkeys(systems, 0.0)
    keys = [(fold, seed) for fold in folds for seed in seeds]
    for name in systems:
        for (fold, seed), result in zip(keys, done, strict=True):
            proba, classes, spent = result[name]
            key = {"system": name, "seed": seed, "fold": fold.fold}
            tables.append(predictions_table(ids[fold.scored], proba, classes, **key))
            seconds[name] += spent
    return pd.concat(tables, ignore_index=True), seconds


def _fit_fold(systems: dict[str, TextSystem], X: np.ndarray, y: np.ndarray, fold: Fold, seed: int) -> dict[str, tuple]:
    """System -> probabilities of the fold's scored rows, classes, seconds."""
    fitted: dict[tuple, Any] = {}
    rows = np.setdiff1d(fold.val, fold.scored)  # in the fixed split val is what is scored: never learned from
    val = (X[rows], y[rows]) if len(rows) else None
    out = {}
    for name, system in systems.items():
        began = time.perf_counter()
        model = clone(system).set_params(seed=seed).fit(X[fold.train], y[fold.train], val=val, fitted=fitted)
        proba = model.predict_proba(X[fold.scored])
        out[name] = (proba, model.classes_.tolist(), time.perf_counter() - began)
    return out

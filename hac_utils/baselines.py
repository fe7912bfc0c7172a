"""Plain picks on frozen embeddings: logistic regression, nearest neighbours and zero-shot CLAP.

Same interface as the heads: X float (n, d), BST codes y, ``classes_`` all 23 codes, sorted, unless given.
None of them has epochs: ``history_`` is empty, and `val` is taken but not used.
"""

from __future__ import annotations

import string

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from .encoders import unit_rows
from .errors import HacError, first_few
from .fitting import at_least, checked, class_codes, learnable, softmax, weights_of
from .taxonomy import CLASSES, FAMILIES, NAMES, family

#: Scale of the cosines of :class:`ZeroShot`: the cap of the learned logit scale of CLIP and CLAP (exp(scale) ≤ 100).
SCALE = 100.0
#: LAION-CLAP's own wording for class names, with the family, as "percussion" alone is two classes.
PROMPT = "This is a sound of {name} ({family})."


def class_prompts(template: str = PROMPT) -> list[str]:
    """One sentence per class for a text tower, 23 texts in taxonomy order (that of ``taxonomy.CLASSES``).

    Parameters
    ----------
    template : str
        ``{name}`` and ``{family}`` stand for the class and its family in lower-case words, ``{code}`` for the code.

    References
    ----------
    Wu et al. 2023 (LAION-CLAP), zero-shot classification: "This is a sound of …".
    """
    known = {"name", "family", "code"}
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as e:
        raise HacError(f"not a template: {e}", f"template {template!r}", "write {name} where the class goes") from None
    if fields - known or not fields & {"name", "code"}:
        what = f"a template with the placeholders {first_few(sorted(fields))}" if fields else "no placeholder"
        raise HacError(what, f"template {template!r}", "use {name}, and {family} or {code} if you like")
    return [template.format(name=NAMES[c].lower(), family=FAMILIES[family(c)].lower(), code=c) for c in CLASSES]


class _Baseline(ClassifierMixin, BaseEstimator):
    """Attributes: ``classes_``, ``history_`` (empty), ``n_parameters_`` (what training found; 0 if nothing) and
    ``learned_``, all arrays that a prediction needs, by name.
    """

    def predict_proba(self, X) -> np.ndarray:
        """Class probabilities, float64 (n, len(classes_)), rows sum to 1, columns as ``classes_``."""
        from threadpoolctl import threadpool_limits

        check_is_fitted(self, "learned_")
        features = checked(self, X)
        if not len(features):
            return np.empty((0, len(self.classes_)))
        with threadpool_limits(1):
            return self._proba(features)

    def predict(self, X) -> np.ndarray:
        """Most probable code, shape (n,)."""
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]

    def _spread(self, proba: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Columns of the classes seen in training among all of ``classes_``; the others get 0."""
        out = np.zeros((len(proba), len(self.classes_)))
        out[:, seen] = proba
        return out


class LogisticHead(_Baseline):
    """Standardisation and logistic regression (scikit-learn, L-BFGS), both fitted on the rows of `fit` only.

    Parameters
    ----------
    C : float
        Inverse strength of the L2 penalty.
    max_iter : int
    seed : int
        Not used (the solver draws nothing); protocols set it.
    classes : sequence of str, optional
        Default: the 23 BST codes. A class that `fit` does not see gets probability 0.
    """

    def __init__(self, C=1.0, max_iter=1000, seed=0, classes=None):
        self.C = C
        self.max_iter = max_iter
        self.seed = seed
        self.classes = classes

    def fit(self, X, y, val=None, sample_weight=None):
        """Train on X (n, d), y (n,); `val` is not used."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits

        at_least(self, 1, ["max_iter"])
        at_least(self, 1e-12, ["C"])
        features, target = learnable(self, X, y)
        weight = weights_of(self, sample_weight, len(target))
        weights = {f"{step}__sample_weight": weight for step in ("standardscaler", "logisticregression")}
        with threadpool_limits(1):
            scaler, model = make_pipeline(
                StandardScaler(), LogisticRegression(C=float(self.C), max_iter=int(self.max_iter))
            ).fit(features.astype(np.float64), target, **weights)
        coef, intercept = model.coef_, model.intercept_
        if len(coef) == 1:  # of two classes scikit-learn keeps the second one's
            coef, intercept = np.vstack([np.zeros_like(coef), coef]), np.r_[0.0, intercept]
        self.learned_ = {
            "mean": scaler.mean_,
            "scale": scaler.scale_,
            "coef": coef,
            "intercept": intercept,
            "seen": model.classes_.astype(np.int64),
        }
        self.n_iter_ = int(model.n_iter_.max())
        self.n_parameters_ = int(model.coef_.size + model.intercept_.size)
        self.history_ = []
        return self

    def _proba(self, features: np.ndarray) -> np.ndarray:
        mean, scale, coef, intercept, seen = (self.learned_[k] for k in ("mean", "scale", "coef", "intercept", "seen"))
        return self._spread(softmax(((features - mean) / scale) @ coef.T + intercept), seen)


class NeighboursHead(_Baseline):
    """k nearest neighbours by cosine (scikit-learn); the probability of a class is its share of them.

    Parameters
    ----------
    k : int
        At most as many as there are training rows are used.
    weights : {"distance", "uniform"}
        Of the neighbours' votes: one over the cosine distance, or equal.
    seed : int
        Not used; protocols set it.
    classes : as in :class:`LogisticHead`
    """

    def __init__(self, k=10, weights="distance", seed=0, classes=None):
        self.k = k
        self.weights = weights
        self.seed = seed
        self.classes = classes

    def fit(self, X, y, val=None, sample_weight=None):
        """Remember X (n, d) and y (n,); `val` is not used."""
        at_least(self, 1, ["k"])
        if self.weights not in ("distance", "uniform"):
            raise HacError(f"weights cannot be {self.weights!r}", type(self).__name__, "'distance' or 'uniform'")
        if sample_weight is not None:
            raise HacError("sample weights mean nothing here", type(self).__name__, "fit without sample_weight")
        features, target = learnable(self, X, y)
        self.learned_ = {"rows": features, "target": target}
        self.n_parameters_, self.history_ = 0, []
        return self

    def _proba(self, features: np.ndarray) -> np.ndarray:
        from sklearn.neighbors import KNeighborsClassifier

        rows, target = self.learned_["rows"], self.learned_["target"]
        model = KNeighborsClassifier(
            min(int(self.k), len(rows)), weights=self.weights, metric="cosine", algorithm="brute"
        ).fit(rows.astype(np.float64), target)
        return self._spread(model.predict_proba(features.astype(np.float64)), model.classes_)


class ZeroShot(_Baseline):
    """Zero-shot CLAP: a clip gets the class whose prompt is nearest; nothing is learned.

    p = softmax(scale · cosine(clip, prompt)). The scale moves probabilities, never the predicted class.

    Parameters
    ----------
    class_vectors : array, shape (23, d)
        The text tower's embeddings of :func:`class_prompts`, in that order; of any length.
    scale : float
    seed : int
        Not used; protocols set it.

    References
    ----------
    Radford et al. 2021 (CLIP), Wu et al. 2023 (LAION-CLAP).
    """

    def __init__(self, class_vectors=None, scale=SCALE, seed=0):
        self.class_vectors = class_vectors
        self.scale = scale
        self.seed = seed

    def fit(self, X=None, y=None, val=None, sample_weight=None):
        """Check the vectors, against the width of X (n, d) if given; the labels are not looked at."""
        at_least(self, 1e-12, ["scale"])
        vectors = np.asarray(self.class_vectors, dtype=object if self.class_vectors is None else None)
        if vectors.ndim != 2 or len(vectors) != len(CLASSES) or vectors.dtype.kind not in "fiu":
            what = f"class_vectors must be numbers of shape (23, d), got shape {vectors.shape}"
            raise HacError(what, "ZeroShot", "embed class_prompts() with the text encoder of the audio embeddings")
        norm = np.linalg.norm(vectors, axis=1)
        if not np.isfinite(norm).all() or not norm.all():
            raise HacError("class_vectors hold a zero, NaN or infinite row", "ZeroShot", "embed the prompts again")
        self.classes_ = class_codes(None)
        self.n_features_in_ = vectors.shape[1]
        if X is not None:
            checked(self, X)
        self.learned_ = {"class_vectors": np.asarray(vectors, dtype=np.float32)}
        self.n_parameters_, self.history_ = 0, []
        return self

    def _proba(self, features: np.ndarray) -> np.ndarray:
        vectors = unit_rows(self.learned_["class_vectors"])[[CLASSES.index(c) for c in self.classes_]]
        return softmax(float(self.scale) * (unit_rows(features).astype(np.float64) @ vectors.T.astype(np.float64)))

"""The members of text systems: small models of titles and tags, each with scores per class.

They read rows of :func:`text_rows`. ``fit(rows, y, weight, k)`` takes positions of classes, ``scores(rows)`` is (n, k):

=============== ==================================================================================
member          what it is
=============== ==================================================================================
words           TF-IDF of words 1–2 and characters 2–5, LinearSVC (C .3, balanced)
clean words     the same on cleaned text (file endings gone, camelCase, digits and hyphens split), C .1
words by field  title words, tag words, whole tags, characters of each: five vocabularies, C .1
logistic        MiniLM vector of the text, logistic regression (C 10, balanced)
kernel          MiniLM vector of the text, kernel ridge classifier (Gaussian kernel, balanced)
kernel fields   the same on the vectors of text, title and tags, weighted 2 : 1 : 1
=============== ==================================================================================

The members' settings were fixed on the inner validation parts of the training parts, never on scored clips.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .datasets import join_text
from .encoders import unit_rows
from .errors import HacError
from .minilm import embed

#: The vectors of a clip, in this order: of title, tags and description together, of the title, of the tags.
VIEWS = ("text", "title", "tags")
#: Share of each view in the kernel on fields.
SHARES = (0.5, 0.25, 0.25)

_ENDING = re.compile(r"\.(wav|mp3|aiff?|aifc|flac|ogg|m4a|mp4|wma)\b", re.IGNORECASE)
_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")


def clean(text: str) -> str:
    """Lower-case words of a title: ``"BirdSong03_final.WAV"`` gives ``"bird song 03 final"``."""
    return " ".join(re.sub(r"[\W_]+", " ", _CASE.sub(" ", _ENDING.sub(" ", text))).lower().split())


def text_rows(frame: pd.DataFrame, encode: Callable[[list[str]], np.ndarray] | None = None) -> np.ndarray:
    """A metadata table as input of the text systems.

    Parameters
    ----------
    frame : metadata with title, tags and description
    encode : texts -> (n, d), such as :func:`minilm.embed`; without it the members that need vectors make
        their own, again in every fit.

    Returns
    -------
    structured array (n,): text, title, tags (str), and vectors float32 (3, d) with `encode`, one per view
    """
    columns = {"text": join_text(frame), "title": join_text(frame, ("title",)), "tags": _cells(frame["tags"])}
    dtype: list[tuple] = [(name, object) for name in VIEWS]
    vectors = None
    if encode is not None:
        vectors = _views(columns, encode)
        dtype.append(("vectors", np.float32, vectors.shape[1:]))
    rows = np.empty(len(frame), dtype=dtype)
    for name, values in columns.items():
        rows[name] = values
    if vectors is not None:
        rows["vectors"] = vectors
    return rows


def _cells(column: pd.Series) -> list[str]:
    return [str(v) for v in column.fillna("")]


def _views(columns: dict[str, Any], encode: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """The vectors of the three views, float32 (n, 3, d); commas in tags become spaces."""
    texts = [list(columns["text"]), list(columns["title"]), [t.replace(",", " ") for t in columns["tags"]]]
    return np.stack([unit_rows(encode(t)) for t in texts], axis=1)


def checked_rows(X: Any, name: str = "X") -> np.ndarray:
    """X as rows of text, title and tags; a plain string stands for all three."""
    if isinstance(X, np.ndarray) and X.dtype.names and set(VIEWS) <= set(X.dtype.names) and X.ndim == 1:
        if "vectors" in X.dtype.names and not np.isfinite(X["vectors"]).all():
            raise HacError("vectors that are NaN or infinite", f"TextSystem, {name}", "embed the texts again")
        return X
    texts = list(X) if isinstance(X, (list, tuple, np.ndarray, pd.Series)) else None
    if texts is None or not all(isinstance(t, str) for t in texts):
        what = f"{name} holds no texts but {type(X if texts is None else next(iter(texts), None)).__name__}"
        raise HacError(what, "TextSystem", "give text_rows(frame), or a list of strings")
    rows = np.empty(len(texts), dtype=[(view, object) for view in VIEWS])
    for view in VIEWS:
        rows[view] = texts
    return rows


def embed_alone(texts: list[str]) -> np.ndarray:
    """:func:`minilm.embed` in this process."""
    return embed(texts, workers=1)


def _vectors(rows: np.ndarray) -> np.ndarray:
    if "vectors" in rows.dtype.names:
        return rows["vectors"]
    return _views({view: rows[view] for view in VIEWS}, embed_alone)


def spoken(rows: np.ndarray) -> np.ndarray:
    """Whether a clip has text, a letter or digit at least, bool (n,)."""
    return np.array([re.search(r"\w", text) is not None for text in rows["text"]], dtype=bool)


def stacked(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rows of both; vectors only where both have them."""
    names = [n for n in a.dtype.names if n in b.dtype.names]
    return np.concatenate([a[names], b[names]])


# members ------------------------------------------------------------------------------------------


class _Words:
    """TF-IDF and a linear SVM, one against the rest.

    Joachims 1998 (text and SVMs); sublinear term frequencies, document frequencies of the training texts only.
    """

    def __init__(self, kind: str, C: float, seed: int) -> None:
        self.kind, self.C, self.seed = kind, C, seed

    def _texts(self, rows: np.ndarray) -> list[tuple[str, list[str]]]:
        """The texts by vocabulary: ("words", …) or ("characters", …)."""
        if self.kind == "raw":
            text = list(rows["text"])
            return [("words2", text), ("characters", text)]
        if self.kind == "clean":
            text = [f"{clean(a)} . {clean(b)}" for a, b in zip(*self._parts(rows), strict=True)]
            return [("words2", text), ("characters", text)]
        title, tags = self._parts(rows)
        title, words = [clean(t) for t in title], [clean(t) for t in tags]
        whole = [" ".join("_".join(clean(tag).split()) for tag in t.split(",")) for t in tags]
        return [
            ("words2", title),
            ("words1", words),
            ("words1", whole),
            ("characters", title),
            ("characters", words),
        ]

    @staticmethod
    def _parts(rows: np.ndarray) -> tuple[list[str], list[str]]:
        return list(rows["title"]), list(rows["tags"])

    def fit(self, rows: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int) -> _Words:
        from sklearn.svm import LinearSVC

        blocks, self.vectorizers_ = [], []
        for how, texts in self._texts(rows):
            vectorizer, block = self._learn(how, texts)
            self.vectorizers_.append(vectorizer)
            if vectorizer is not None:
                blocks.append(block)
        self.k_, self.svm_ = k, None
        if not blocks:
            raise HacError("the training texts hold no word", "title, tags", "text systems need some text")
        X = _beside(blocks)
        self.svm_ = LinearSVC(C=self.C, class_weight="balanced", dual=True, max_iter=3000, random_state=self.seed)
        self.svm_.fit(X, y, sample_weight=weight)
        self.n_parameters_ = int(self.svm_.coef_.size + self.svm_.intercept_.size)
        return self

    def _learn(self, how: str, texts: list[str]) -> tuple[Any, Any]:
        """A fitted vectoriser and the training texts' matrix; (None, None) where the texts hold nothing to count."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        least = 2 if len(texts) >= 500 else 1
        options = {"sublinear_tf": True, "min_df": least, "dtype": np.float32}
        if how == "characters":
            more = {"min_df": 2 * least, "max_features": 60_000} if self.kind == "raw" else {}
            options |= {"analyzer": "char_wb", "ngram_range": (2, 5)} | more
        else:
            options |= {"ngram_range": (1, int(how[-1])), "token_pattern": r"(?u)\b\w+\b"}
        for attempt in (options, options | {"min_df": 1}):  # every n-gram may be rarer than min_df
            vectorizer = TfidfVectorizer(**attempt)
            try:
                return vectorizer, vectorizer.fit_transform(texts)
            except ValueError:
                continue
        return None, None

    def scores(self, rows: np.ndarray) -> np.ndarray:
        texts = [t for _, t in self._texts(rows)]
        blocks = [v.transform(t) for v, t in zip(self.vectorizers_, texts, strict=True) if v is not None]
        found = self.svm_.decision_function(_beside(blocks))
        if found.ndim == 1:
            found = np.column_stack([-found, found])
        out = np.repeat(found.min(axis=1, keepdims=True) - 1.0, self.k_, axis=1)  # classes never seen come last
        out[:, self.svm_.classes_] = found
        return out


def _beside(blocks: list) -> Any:
    from scipy import sparse

    return sparse.hstack(blocks).tocsr()


class _Logistic:
    """Logistic regression on the vector of the text."""

    def __init__(self, C: float, seed: int) -> None:
        self.C, self.seed = C, seed

    def fit(self, rows: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int) -> _Logistic:
        from sklearn.linear_model import LogisticRegression

        self.k_ = k
        self.model_ = LogisticRegression(C=self.C, class_weight="balanced", max_iter=500)
        self.model_.fit(_vectors(rows)[:, 0], y, sample_weight=weight)
        self.n_parameters_ = int(self.model_.coef_.size + self.model_.intercept_.size)
        return self

    def scores(self, rows: np.ndarray) -> np.ndarray:
        out = np.full((len(rows), self.k_), np.log(1e-6))
        out[:, self.model_.classes_] = np.log(np.maximum(self.model_.predict_proba(_vectors(rows)[:, 0]), 1e-6))
        return out


class _Kernel:
    """Kernel ridge regression on ±1 per class, Gaussian kernel exp(−γ‖a − b‖²), rows weighted against their class's size.

    Closed form: (K + λ W⁻¹) A = T. Saunders et al. 1998 (ridge regression in dual variables); as a classifier:
    regularised least squares, Rifkin & Klautau 2004.
    """

    def __init__(self, shares: Sequence[float], gamma: float, lam: float) -> None:
        self.shares, self.gamma, self.lam = np.asarray(shares), gamma, lam

    def _features(self, rows: np.ndarray) -> np.ndarray:
        views = _vectors(rows)[:, : len(self.shares)] * np.sqrt(self.shares / self.shares.sum())[None, :, None]
        return views.reshape(len(rows), -1).astype(np.float32)

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        K = a @ b.T
        K -= 1.0
        K *= 2 * self.gamma
        return np.exp(K, out=K)

    def fit(self, rows: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int) -> _Kernel:
        from scipy.linalg import cho_factor, cho_solve

        kept = weight > 0
        self.X_ = self._features(rows)[kept]
        y = y[kept]
        mass = np.bincount(y, weight[kept], minlength=k)
        w = weight[kept] / mass[y]
        w *= weight.sum() / w.sum()  # a clip of weight 2 counts as the clip twice
        K = self._kernel(self.X_, self.X_)
        K[np.diag_indices(len(K))] += (self.lam / w).astype(np.float32)
        goal = np.full((len(K), k), -1.0, np.float32)
        goal[np.arange(len(K)), y] = 1.0
        # K is symmetric: its transpose is column-major, so LAPACK works in place
        self.A_ = cho_solve(cho_factor(K.T, lower=True, overwrite_a=True, check_finite=False), goal)
        self.n_parameters_ = int(self.A_.size)
        return self

    def scores(self, rows: np.ndarray) -> np.ndarray:
        X = self._features(rows)
        parts = [self._kernel(X[i : i + 1024], self.X_) @ self.A_ for i in range(0, len(X), 1024)]
        return np.concatenate(parts).astype(np.float64)


#: Member -> function of the seed, and the spread of its scores over the classes (measured on inner validation
#: parts), which they are divided by.
MEMBERS: dict[str, tuple[Callable[[int], Any], float]] = {
    "words": (lambda seed: _Words("raw", 0.3, seed), 0.34),
    "clean words": (lambda seed: _Words("clean", 0.1, seed), 0.28),
    "words by field": (lambda seed: _Words("fields", 0.1, seed), 0.33),
    "logistic": (lambda seed: _Logistic(10.0, seed), 2.4),
    "kernel": (lambda seed: _Kernel((1.0,), 1.0, 1.0), 0.26),
    "kernel fields": (lambda seed: _Kernel(SHARES, 1.0, 1.0), 0.26),
}

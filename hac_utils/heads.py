"""Small heads on frozen embeddings (report, Sec. 3.1–3.2), as scikit-learn estimators.

All take X float (n, d) and BST codes y; ``classes_`` is always all 23 codes, sorted, unless given.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from .errors import HacError
from .fitting import Job, NetworkClassifier, at_least, checked, class_codes, private_torch, targets, weights_of
from .networks import PRECISIONS, Model, Recipe
from .stacked import n_batches
from .stacked import train as train_stack

LOSSES = ("cross_entropy", "hierarchical")
#: Named sets of parameters, e.g. ``MLPHead(**RECIPES["fast"])``. "exact" is the report's training; "fast" ties
#: with it on synthetic embeddings of the real size (benchmarks/heads.py shows it) in a fraction of the time.
RECIPES = {
    "exact": {"epochs": 40, "batch_size": 128, "lr": 1e-3},
    "fast": {"epochs": 8, "batch_size": 512, "lr": 2e-3},
}
RECIPE_PARAMETERS = "epochs batch_size lr weight_decay dropout label_smoothing precision patience device".split()


class _Head(NetworkClassifier, ClassifierMixin, BaseEstimator):
    """Training loop shared by the heads; a subclass builds the network (``_network``).

    Parameters
    ----------
    epochs, batch_size, lr, weight_decay, dropout, label_smoothing, width
        As in the report: AdamW 1e-3, cosine schedule, dropout .3, label smoothing .1, 512 units.
    loss : {"cross_entropy", "hierarchical"}
        "hierarchical" adds the cross-entropy of the family (its classes' probabilities summed), weight 0.5.
    seed : int
        Decides initial weights, data order and dropout.
    threads : int
        Torch threads; results are bitwise equal only for equal `threads`.
    classes : sequence of str, optional
        Default: the 23 BST codes.
    precision : {"float32", "bfloat16"}
        Of the matrix products and activations while training; weights, AdamW and prediction stay float32.
    patience : int
        Stop after so many epochs without a better hF on `val`; 0 never stops.
    device : str
        Where the head is trained, "cpu" or e.g. "cuda". The fitted network is on the CPU.
    audio_dim : int, optional
        Fusion heads: the first so many columns of X are the audio embedding. Default: half of them.

    Attributes
    ----------
    classes_ : array of str, sorted; the columns of ``predict_proba``
    history_ : list of {"epoch", "loss", "val_hF"}; val_hF in the strict reading, so that an epoch which
        predicts two classes only does not win by the official drop of the others
    best_epoch_ : epoch whose weights are kept: best hF on `val`, the last one without `val`
    """

    def __init__(
        self,
        epochs=30,
        batch_size=64,
        lr=1e-3,
        weight_decay=0.01,
        dropout=0.3,
        label_smoothing=0.1,
        width=512,
        loss="cross_entropy",
        seed=0,
        threads=1,
        classes=None,
        precision="float32",
        patience=0,
        device="cpu",
        audio_dim=None,
    ):
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.width = width
        self.loss = loss
        self.seed = seed
        self.threads = threads
        self.classes = classes
        self.precision = precision
        self.patience = patience
        self.device = device
        self.audio_dim = audio_dim

    def _network(self, d: int, n_classes: int) -> Any:
        raise NotImplementedError

    def _parts(self, d: int) -> list[int]:
        """Widths of the embeddings that the network standardises one by one."""
        if self.audio_dim is not None:
            raise HacError(
                f"audio_dim is {self.audio_dim}",
                type(self).__name__,
                "this head takes one embedding; audio_dim is for ConcatHead and GatedFusionHead",
            )
        return [d]

    def _checked_parameters(self) -> None:
        who = type(self).__name__
        for name, known in (("loss", LOSSES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise HacError(f"{name} cannot be {getattr(self, name)!r}", who, "known: " + ", ".join(known))
        at_least(self, 1, ["epochs", "batch_size", "width", "threads"])
        at_least(self, 0, ["lr", "weight_decay", "dropout", "label_smoothing", "seed", "patience"])
        for name in ("dropout", "label_smoothing"):
            if getattr(self, name) >= 1:
                raise HacError(f"{name} is {getattr(self, name)}", who, "give a number from 0 to below 1")

    def _targets(self, y: Any, n: int, name: str) -> np.ndarray:
        who = type(self).__name__
        if n == 0:
            raise HacError(f"no rows: {name} is empty", who, "give at least one clip, or leave val out")
        return targets(y, self.classes_, n, f"{who}, {name}")

    def fit(self, X, y, val=None, sample_weight=None):
        """Train: a stack of one model.

        Parameters
        ----------
        X : array, shape (n, d)
        y : array of str, shape (n,)
        val : (X, y), optional
            Chooses the epoch. It must not be the data that is scored, unless that is what you report.
        sample_weight : array, shape (n,), optional

        Raises
        ------
        HacError
            Bad parameters, embeddings that are NaN, unknown labels, one class only.
        """
        self._checked_parameters()
        self.classes_ = class_codes(self.classes)
        if hasattr(self, "n_features_in_"):
            del self.n_features_in_
        data = checked(self, X, "X")
        target = self._targets(y, len(data), "y")
        self.n_features_in_ = data.shape[1]
        weight = weights_of(self, sample_weight, len(data))
        train, held_out = np.arange(len(data)), None
        if val is not None:
            more = checked(self, val[0], "val X")
            held_out = len(data) + np.arange(len(more))
            target = np.r_[target, self._targets(val[1], len(more), "val y")]
            weight = np.r_[weight, np.ones(len(more), np.float32)]
            data = np.vstack([data, more])
        _train([self], data, [(train, held_out, target, weight)])
        return self

    def stack_key(self, job: Job) -> Hashable | None:
        """Jobs with one key are trained as one stack; None trains alone, which is fastest on a CPU."""
        if self.device == "cpu":
            return None
        recipe = tuple(sorted((k, repr(v)) for k, v in self.get_params().items() if k != "seed"))
        steps = n_batches(len(job.train), self.batch_size)
        return type(self), recipe, id(job.X), steps, job.val is None or len(job.val) == 0

    def cost(self, job: Job) -> float:
        """Size of a training, to start long ones first: multiply-adds, forward and backward, roughly."""
        d = np.shape(job.X)[1]
        layers = 2 * d + self.width if isinstance(self, GatedFusionHead) else d
        return 3.0 * self.epochs * len(job.train) * self.width * layers

    @staticmethod
    def fit_stack(jobs: Sequence[Job]) -> list[_Head]:
        """Fitted heads of the jobs, trained as one stack; the jobs share X and every parameter but the seed."""
        X, heads, parts = np.asarray(jobs[0].X), [], []
        for job in jobs:
            head = clone(job.estimator)
            head._checked_parameters()
            head.classes_ = class_codes(head.classes)
            held_out = None if job.val is None or len(job.val) == 0 else np.asarray(job.val)
            target, weight = np.zeros(len(X), np.int64), np.ones(len(X), np.float32)
            for name, rows in (("y", np.asarray(job.train)), ("val y", held_out)):
                if rows is not None:
                    checked(head, X[rows], "X")
                    target[rows] = head._targets(np.asarray(job.y)[rows], len(rows), name)
            if job.sample_weight is not None:
                weight[job.train] = weights_of(head, np.asarray(job.sample_weight)[job.train], len(job.train))
            head.n_features_in_ = X.shape[1]
            heads.append(head)
            parts.append((np.asarray(job.train), held_out, target, weight))
        _train(heads, X.astype(np.float32, copy=False), parts)
        return heads


class MLPHead(_Head):
    """Audio or text head: LayerNorm → Linear(d, 512) → GELU → Dropout .3 → Linear(512, 23)."""

    def _network(self, d, n_classes):
        from torch import nn

        return nn.Sequential(
            nn.LayerNorm(d),
            nn.Linear(d, self.width),
            nn.GELU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.width, n_classes),
        )


def _split(d: int, audio_dim: int | None, who: str) -> list[int]:
    """Widths of the audio and the text embedding in X of `d` columns."""
    if audio_dim is None and d % 2:
        raise HacError(
            f"X has {d} columns; fusion needs audio and text side by side, equally wide, or audio_dim",
            who,
            "np.hstack([audio, text]), each (n, d), or audio_dim=the number of audio columns",
        )
    audio = d // 2 if audio_dim is None else audio_dim
    if isinstance(audio, bool) or not isinstance(audio, (int, np.integer)) or not 0 < audio < d:
        raise HacError(f"audio_dim is {audio_dim!r}, X has {d} columns", who, f"give a number from 1 to {d - 1}")
    return [int(audio), d - int(audio)]


def _check_split(X: np.ndarray, audio_dim: int | None, who: str) -> None:
    """Refuse to cut in the middle when the row lengths show that the embeddings meet elsewhere."""
    rows = X[:: max(1, len(X) // 256)].astype(np.float64) ** 2
    if audio_dim is not None or not len(rows):
        return
    ends = np.cumsum(rows, axis=1)
    spread = np.abs(ends - 1).max(axis=0)  # 0 where the first columns have length 1 in every row
    unit = np.flatnonzero((spread < 1e-3) & (np.abs(ends[:, -1:] - ends - 1).max(axis=0) < 1e-3))
    half = X.shape[1] // 2
    if len(unit) and not (unit[0] < half <= unit[-1] + 1):
        raise HacError(
            f"X seems to hold embeddings of length 1 in columns 1 to {unit[0] + 1} and behind, not in two equal halves",
            who,
            f"give audio_dim={unit[0] + 1}",
        )


class ConcatHead(MLPHead):
    """MLPHead on the two L2-normalised embeddings side by side; X is ``[audio | text]``, (n, d_audio + d_text)."""

    def _parts(self, d):
        _split(d, self.audio_dim, type(self).__name__)
        return [d]

    def _prepare(self, X):
        who = type(self).__name__
        audio, _ = _split(X.shape[1], self.audio_dim, who)
        _check_split(X, self.audio_dim, who)
        parts = (X[:, :audio], X[:, audio:])
        return np.hstack([p / np.maximum(np.linalg.norm(p, axis=1, keepdims=True), 1e-12) for p in parts])


class GatedFusionHead(_Head):
    """Gated fusion (report, Eq. 1); X is ``[audio | text]``, (n, d_audio + d_text).

    g = sigmoid(MLP([â; t̂])), z = g · W_a â + (1 − g) · W_t t̂ on layer-normalised embeddings, then
    GELU → Dropout → Linear. g has one value per hidden unit; with g constant, z is a linear map of
    [â; t̂]: concatenation is that special case.
    """

    def _parts(self, d):
        return _split(d, self.audio_dim, type(self).__name__)

    def _prepare(self, X):
        _split(X.shape[1], self.audio_dim, type(self).__name__)
        _check_split(X, self.audio_dim, type(self).__name__)
        return X

    def _network(self, d, n_classes):
        import torch
        from torch import nn

        (audio, text), width = self._parts(d), self.width

        class Gated(nn.Module):
            def __init__(self, dropout):
                super().__init__()
                self.norm_a, self.norm_t = nn.LayerNorm(audio), nn.LayerNorm(text)
                self.gate = nn.Sequential(nn.Linear(audio + text, width), nn.GELU(), nn.Linear(width, width))
                self.audio, self.text = nn.Linear(audio, width), nn.Linear(text, width)
                self.out = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(width, n_classes))

            def gates(self, x):
                a, t = self.norm_a(x[:, :audio]), self.norm_t(x[:, audio:])
                return a, t, torch.sigmoid(self.gate(torch.cat([a, t], 1)))

            def forward(self, x):
                a, t, g = self.gates(x)
                return self.out(g * self.audio(a) + (1 - g) * self.text(t))

        return Gated(self.dropout)

    def gate(self, X) -> np.ndarray:
        """Mean gate per clip, shape (n,): 0 leans on text, 1 on audio."""
        import torch

        check_is_fitted(self, "network_")
        with torch.inference_mode():
            _, _, g = self.network_.gates(torch.tensor(self._prepare(checked(self, X, "X"))))
        return g.mean(dim=1).double().numpy()


def _train(heads: Sequence[_Head], X: np.ndarray, parts: Sequence[tuple]) -> None:
    """Fit the heads as one stack; `parts` holds (train rows, val rows or None, targets, weights) of each."""
    first = heads[0]
    features = first._prepare(X)
    d = features.shape[1]
    widths = first._parts(d)
    recipe = Recipe(
        **{name: getattr(first, name) for name in RECIPE_PARAMETERS}, hierarchical=first.loss == "hierarchical"
    )
    models, networks = [], []
    for head, (train, held_out, target, weight) in zip(heads, parts, strict=True):
        present = np.unique(target[train])
        if len(present) < 2:
            only = head.classes_[present[0]]
            raise HacError(f"only one class in y: {only}", type(head).__name__, "give at least two classes")
        with private_torch(head.seed, head.threads):
            networks.append(head._network(d, len(head.classes_)))
        models.append(Model(networks[-1].state_dict(), head.seed, train, held_out, target, weight))
    with private_torch(first.seed, first.threads):
        train_stack(models, features, widths, first.classes_, recipe)
    for head, network, model in zip(heads, networks, models, strict=True):
        network.load_state_dict(model.state)
        head.network_ = network.eval()
        head.n_parameters_ = sum(p.numel() for p in network.parameters())
        head.history_, head.best_epoch_ = model.history, model.best_epoch

"""Small heads on frozen embeddings (report, Sec. 3.1–3.2), as scikit-learn estimators.

All take X float (n, d) and BST codes y; ``classes_`` is always all 23 codes, sorted, unless given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from .errors import HacError, first_few
from .fitting import at_least, class_codes, private_torch, softmax, targets
from .metrics import hierarchical_f1
from .taxonomy import family

LOSSES = ("cross_entropy", "hierarchical")


class _Head(ClassifierMixin, BaseEstimator):
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

    def _network(self, d: int, n_classes: int) -> Any:
        raise NotImplementedError

    def _prepare(self, X: np.ndarray) -> np.ndarray:
        return X

    def _checked(self, X: Any, name: str) -> np.ndarray:
        X = np.asarray(X)
        if X.ndim != 2 or X.dtype.kind not in "fiu":
            raise HacError(
                f"{name} must be numbers of shape (n, d), got shape {X.shape}, dtype {X.dtype}",
                type(self).__name__,
                "one row per clip, one column per dimension",
            )
        bad = ~np.isfinite(X).all(axis=1)
        if bad.any():
            raise HacError(
                f"embeddings that are NaN or infinite in rows {first_few(np.flatnonzero(bad).tolist())}",
                f"{type(self).__name__}, {name}",
                "leave these clips out, or extract them again",
            )
        known = getattr(self, "n_features_in_", None)
        if known is not None and X.shape[1] != known:
            raise HacError(
                f"{name} has {X.shape[1]} columns, the head was fitted on {known}",
                type(self).__name__,
                "use the encoder the head was trained with",
            )
        return self._prepare(X.astype(np.float32, copy=False))

    def fit(self, X, y, val=None, sample_weight=None):
        """Train.

        Parameters
        ----------
        X : array, shape (n, d)
        y : array of str, shape (n,)
        val : (X, y), optional
            Chooses the epoch. It must not be the data that is scored, unless that is what you report.
        sample_weight : array, shape (n,), optional
        """
        import torch
        from torch.nn import functional as F

        if self.loss not in LOSSES:
            raise HacError(f"loss cannot be {self.loss!r}", type(self).__name__, "known: " + ", ".join(LOSSES))
        at_least(self, 1, ["epochs", "batch_size", "width", "threads"])
        at_least(self, 0, ["lr", "weight_decay", "dropout", "label_smoothing", "seed"])
        self.classes_ = class_codes(self.classes)
        if hasattr(self, "n_features_in_"):
            del self.n_features_in_
        features = self._checked(X, "X")
        target = targets(y, self.classes_, len(features), f"{type(self).__name__}, y")
        if len(set(target.tolist())) < 2:
            raise HacError(
                f"only one class in y: {self.classes_[target[0]]}",
                type(self).__name__,
                "give at least two classes",
            )
        self.n_features_in_ = np.asarray(X).shape[1]
        weight = np.ones(len(target), np.float32) if sample_weight is None else np.asarray(sample_weight, np.float32)
        if val is not None:
            val_X, val_y = self._checked(val[0], "val X"), np.asarray(val[1])
            targets(val_y, self.classes_, len(val_X), f"{type(self).__name__}, val y")

        families = [family(str(c)) for c in self.classes_]
        order = sorted(set(families))
        to_family = torch.tensor([[float(f == g) for g in order] for f in families])
        with private_torch(self.seed, self.threads):
            net = self._network(features.shape[1], len(self.classes_))
            self.n_parameters_ = sum(p.numel() for p in net.parameters())
            data, labels, weights = (
                torch.from_numpy(features),
                torch.from_numpy(target),
                torch.from_numpy(weight),
            )
            optimiser = torch.optim.AdamW(net.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=True)
            batches = -(-len(data) // self.batch_size)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.epochs * batches)
            self.history_, best = [], (-1.0, 0, None)
            for epoch in range(1, self.epochs + 1):
                net.train()
                total = 0.0
                for rows in torch.randperm(len(data)).split(self.batch_size):
                    logits, goal = net(data[rows]), labels[rows]
                    loss = F.cross_entropy(logits, goal, label_smoothing=self.label_smoothing, reduction="none")
                    if self.loss == "hierarchical":
                        family_p = logits.softmax(1) @ to_family
                        loss = loss - 0.5 * torch.log((family_p * to_family[goal]).sum(1).clamp_min(1e-12))
                    loss = (loss * weights[rows]).sum() / weights[rows].sum().clamp_min(1e-12)
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()
                    optimiser.step()
                    schedule.step()
                    total += float(loss.detach()) * len(rows)
                entry = {"epoch": epoch, "loss": total / len(data), "val_hF": None}
                if val is not None:
                    entry["val_hF"] = hierarchical_f1(
                        val_y, self.classes_[self._logits(net, val_X).argmax(1)], never_predicted="zero"
                    )
                    if entry["val_hF"] > best[0]:
                        best = (entry["val_hF"], epoch, {k: v.clone() for k, v in net.state_dict().items()})
                self.history_.append(entry)
            if best[2] is not None:
                net.load_state_dict(best[2])
            self.best_epoch_ = best[1] or self.epochs
            self.network_ = net.eval()
        return self

    @staticmethod
    def _logits(net: Any, features: np.ndarray) -> np.ndarray:
        import torch

        net.eval()
        with torch.inference_mode():
            blocks = [net(torch.tensor(features[i : i + 2048])) for i in range(0, len(features), 2048)]
        return torch.cat(blocks).numpy()

    def predict_proba(self, X) -> np.ndarray:
        """Class probabilities, float64 (n, len(classes_)), rows sum to 1, columns as ``classes_``."""
        check_is_fitted(self, "network_")
        features = self._checked(X, "X")
        if not len(features):
            return np.empty((0, len(self.classes_)))
        with private_torch(self.seed, self.threads):
            return softmax(self._logits(self.network_, features))

    def predict(self, X) -> np.ndarray:
        """Most probable code, shape (n,)."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


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


def _halves(X: np.ndarray, who: str) -> tuple[np.ndarray, np.ndarray]:
    if X.shape[1] % 2:
        raise HacError(
            f"X has {X.shape[1]} columns; fusion needs audio and text side by side, equally wide",
            who,
            "np.hstack([audio, text]), each (n, d)",
        )
    half = X.shape[1] // 2
    return X[:, :half], X[:, half:]


class ConcatHead(MLPHead):
    """MLPHead on the two L2-normalised embeddings side by side; X is ``[audio | text]``, (n, 2d)."""

    def _prepare(self, X):
        parts = _halves(X, type(self).__name__)
        return np.hstack([p / np.maximum(np.linalg.norm(p, axis=1, keepdims=True), 1e-12) for p in parts])


class GatedFusionHead(_Head):
    """Gated fusion (report, Eq. 1); X is ``[audio | text]``, (n, 2d).

    g = sigmoid(MLP([â; t̂])), z = g · W_a â + (1 − g) · W_t t̂ on layer-normalised embeddings, then
    GELU → Dropout → Linear. g has one value per hidden unit; with g constant, z is a linear map of
    [â; t̂]: concatenation is that special case.
    """

    def _network(self, d, n_classes):
        import torch
        from torch import nn

        half, width = d // 2, self.width

        class Gated(nn.Module):
            def __init__(self, dropout):
                super().__init__()
                self.norm_a, self.norm_t = nn.LayerNorm(half), nn.LayerNorm(half)
                self.gate = nn.Sequential(nn.Linear(2 * half, width), nn.GELU(), nn.Linear(width, width))
                self.audio, self.text = nn.Linear(half, width), nn.Linear(half, width)
                self.out = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(width, n_classes))

            def gates(self, x):
                a, t = self.norm_a(x[:, :half]), self.norm_t(x[:, half:])
                return a, t, torch.sigmoid(self.gate(torch.cat([a, t], 1)))

            def forward(self, x):
                a, t, g = self.gates(x)
                return self.out(g * self.audio(a) + (1 - g) * self.text(t))

        return Gated(self.dropout)

    def _prepare(self, X):
        _halves(X, type(self).__name__)
        return X

    def gate(self, X) -> np.ndarray:
        """Mean gate per clip, shape (n,): 0 leans on text, 1 on audio."""
        import torch

        check_is_fitted(self, "network_")
        with torch.inference_mode():
            _, _, g = self.network_.gates(torch.tensor(self._checked(X, "X")))
        return g.mean(dim=1).double().numpy()

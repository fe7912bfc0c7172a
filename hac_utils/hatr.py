"""The official baseline of the task (HATR, not hierarchical), re-implemented from its facts.

It runs here in the house's protocol, on the same folds as the heads; the report compares across different folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .errors import HacError
from .fitting import NetworkClassifier, at_least, checked, learnable, private_torch, targets, weights_of
from .metrics import hierarchical_f1

#: StepLR: the learning rate is halved every 20 epochs.
DECAY_EVERY, DECAY = 20, 0.5
INITS = ("xavier", "torch")


def _network(widths: Sequence[int], n_classes: int, dropout: float, init: str) -> Any:
    """The torch module; input: embeddings of these widths side by side, output: logits (n, n_classes).

    Per modality BatchNorm → Linear(d, h) → 3 residual blocks h → 2h → h → Linear(h, h/2) → Linear(h/2, 128) →
    BatchNorm, with h = 512 for d = 512 (in general max(d, 256)); fusion by two attention weights per clip; trunk
    128 → 256 → 128 → 64; 2 residual blocks 64 → 128 → 64; head 64 → 32 → classes.
    """
    import torch
    from torch import nn

    class Drop(nn.Module):
        """Dropout from 16-bit random words (rates to 1.5e-5): a third of the time of torch's bernoulli."""

        def __init__(self, p):
            super().__init__()
            self.p, self.words = p, None

        def forward(self, x):
            if not self.training or self.p == 0:
                return x
            words = self.words.integers(0, 1 << 16, x.shape, dtype=np.uint16)
            mask = (words >= round(self.p * (1 << 16))) * np.float32(1 / (1 - self.p))
            return x * torch.from_numpy(mask)

    class Residual(nn.Module):
        def __init__(self, width, inner, p):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(width, inner), nn.BatchNorm1d(inner), *active(p))
            self.outer = nn.Sequential(nn.Linear(inner, width), nn.BatchNorm1d(width))
            self.activation = nn.LeakyReLU(inplace=True)

        def forward(self, x):
            return self.activation(self.outer(self.inner(x)) + x)

    def active(p):
        return nn.LeakyReLU(inplace=True), Drop(p)

    def encoder(d):
        h = max(d, 256)
        return nn.Sequential(
            *(nn.BatchNorm1d(d), nn.Linear(d, h), *active(dropout)),
            *(Residual(h, 2 * h, dropout) for _ in range(3)),
            *(nn.Linear(h, h // 2), *active(dropout), nn.Linear(h // 2, 128), nn.BatchNorm1d(128)),
        )

    class Hatr(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoders = nn.ModuleList(encoder(d) for d in widths)
            if len(widths) == 2:
                self.attention = nn.Sequential(nn.Linear(256, 128), nn.Tanh(), nn.Linear(128, 2), nn.Softmax(-1))
                self.fused = Drop(dropout)
            self.trunk = nn.Sequential(
                *(nn.Linear(128, 256), *active(dropout), nn.Linear(256, 128), *active(dropout)),
                *(nn.Linear(128, 64), *active(dropout / 2)),
                *(Residual(64, 128, dropout / 2) for _ in range(2)),
                *(nn.Linear(64, 32), *active(dropout / 4), nn.Linear(32, n_classes)),
            )

        def fuse(self, x):
            parts = [encode(part) for encode, part in zip(self.encoders, x.split(list(widths), 1), strict=True)]
            weight = self.attention(torch.cat(parts, 1))
            return weight, self.fused(parts[0] * weight[:, :1] + parts[1] * weight[:, 1:])

        def forward(self, x):
            return self.trunk(self.fuse(x)[1] if len(widths) == 2 else self.encoders[0](x))

    net = Hatr()
    if init == "xavier":
        for module in net.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
    return net


def augmented(
    x: np.ndarray, widths: Sequence[int], noise: float, zeroed: float, rng: np.random.Generator
) -> np.ndarray:
    """Embeddings with noise, and with random components set to zero; x (n, sum(widths)) stays as it is.

    Of every embedding a number of components is drawn evenly from 1 … int(zeroed · width), then which ones, without
    replacement.
    """
    n = len(x)
    out = rng.standard_normal(x.shape, dtype=np.float32)
    out *= np.float32(noise)
    out += x
    for start, d in zip(np.cumsum([0, *widths]), widths, strict=False):
        most = int(zeroed * d)
        if most < 1:
            continue
        column = (1 << (d - 1).bit_length()) - 1  # the lowest bits hold it, so that no two keys are equal
        keys = rng.integers(0, 1 << 32, (n, d), dtype=np.uint32) & np.uint32(~column & 0xFFFFFFFF)
        keys |= np.arange(d, dtype=np.uint32)
        last = np.sort(keys, axis=1)[np.arange(n), rng.integers(0, most, n)]
        out[:, start : start + d] *= keys > last[:, None]
    return out


class HATR(NetworkClassifier, ClassifierMixin, BaseEstimator):
    """The official baseline network and its training; X is ``[audio | text]`` side by side, or one embedding (n, d).

    Parameters
    ----------
    modalities : {2, 1}
        2: multimodal, 7,319,513 parameters at 512 + 512; 1: audio only (or text only), 3,698,647.
    audio_dim : int, optional
        Two modalities: the first so many columns of X are the audio embedding. Default: half of them.
    epochs, batch_size, lr, weight_decay, dropout, label_smoothing
        Cross entropy; Adam (weight decay as L2), the rate halved every 20 epochs; the last partial batch of an epoch
        is left out (unless it is the only one).
    patience : int
        Stop after so many epochs without better validation accuracy.
    noise, zeroed : float
        Augmentation of the training inputs, see :func:`augmented`.
    init : {"xavier", "torch"}
        Weights of the linear layers: Xavier-uniform, as the baseline's code means to, or torch's default, which
        it ends up with (its ``init_weights`` gets the whole model and finds no layer).
    seed : int
        Decides initial weights, data order, augmentation and dropout.
    threads : int
        Torch threads; results are bitwise equal only for equal `threads`.
    classes : sequence of str, optional
        Default: the 23 BST codes.

    Attributes
    ----------
    classes_ : array of str, sorted; the columns of ``predict_proba``
    history_ : list of {"epoch", "loss", "val_hF" (strict reading), "val_accuracy"}
    best_epoch_ : epoch whose weights are kept: best (micro) accuracy on `val`, the last one without `val`

    References
    ----------
    DCASE 2026 Task 1 baseline: models.py, train_test.py, losses.py, dataset_utils.py.
    """

    def __init__(
        self,
        modalities=2,
        audio_dim=None,
        epochs=100,
        batch_size=64,
        lr=1e-3,
        weight_decay=1e-5,
        dropout=0.1,
        label_smoothing=0.01,
        patience=15,
        noise=1e-4,
        zeroed=0.7,
        init="xavier",
        seed=0,
        threads=1,
        classes=None,
    ):
        self.modalities = modalities
        self.audio_dim = audio_dim
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.patience = patience
        self.noise = noise
        self.zeroed = zeroed
        self.init = init
        self.seed = seed
        self.threads = threads
        self.classes = classes

    _eval_rows = 512

    def _widths(self, n_features: int) -> list[int]:
        if self.modalities == 1:
            return [n_features]
        audio = n_features // 2 if self.audio_dim is None else int(self.audio_dim)
        if not 0 < audio < n_features or (self.audio_dim is None and n_features % 2):
            what = f"X has {n_features} columns, audio_dim is {self.audio_dim}"
            raise HacError(what, "HATR", "give [audio | text], equally wide or with audio_dim, or use modalities=1")
        return [audio, n_features - audio]

    def _network(self, n_features: int, n_classes: int) -> Any:
        return _network(self._widths(n_features), n_classes, self.dropout, self.init)

    def _check_parameters(self) -> None:
        at_least(self, 1, ["epochs", "patience", "threads"])
        at_least(self, 2, ["batch_size"])  # BatchNorm needs two
        at_least(self, 0, ["lr", "weight_decay", "dropout", "label_smoothing", "noise", "zeroed", "seed"])
        if self.modalities not in (1, 2):
            raise HacError(f"modalities is {self.modalities!r}", "HATR", "2 ([audio | text]) or 1")
        if self.audio_dim is not None:
            at_least(self, 1, ["audio_dim"])
        if self.init not in INITS:
            raise HacError(f"init cannot be {self.init!r}", "HATR", "known: " + ", ".join(INITS))
        if not (self.dropout < 1 and self.zeroed <= 1):
            what = f"dropout {self.dropout}, zeroed {self.zeroed}"
            raise HacError(what, "HATR", "dropout is below 1, zeroed at most 1")

    def fit(self, X, y, val=None, sample_weight=None):
        """Train.

        Parameters
        ----------
        X : array, shape (n, d), or (n, 2d) for two modalities
        y : array of str, shape (n,)
        val : (X, y), optional
            Chooses the epoch and when to stop. It must not be the data that is scored.
        sample_weight : array, shape (n,), optional
        """
        import torch
        from torch.nn import functional as F

        self._check_parameters()
        features, target = learnable(self, X, y)
        widths = self._widths(features.shape[1])
        weight = weights_of(self, sample_weight, len(target))
        if val is not None:
            val_X, val_y = checked(self, val[0], "val X"), np.asarray(val[1])
            targets(val_y, self.classes_, len(val_X), "HATR, val y")
        rng = np.random.Generator(np.random.SFC64([int(self.seed), 2026]))
        with private_torch(self.seed, self.threads):
            net = self._network(features.shape[1], len(self.classes_))
            self.n_parameters_ = sum(p.numel() for p in net.parameters())
            drops = [module for module in net.modules() if hasattr(module, "words")]
            for drop in drops:
                drop.words = rng
            labels, weights = torch.from_numpy(target), torch.from_numpy(weight)
            optimiser = torch.optim.Adam(net.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=True)
            schedule = torch.optim.lr_scheduler.StepLR(optimiser, DECAY_EVERY, DECAY)
            size = min(int(self.batch_size), len(features))
            batches = len(features) // size
            self.history_, best, kept, self.best_epoch_ = [], -1.0, None, 0
            for epoch in range(1, self.epochs + 1):
                net.train()
                total = 0.0
                for rows in torch.randperm(len(features))[: batches * size].split(size):
                    batch = augmented(features[rows.numpy()], widths, self.noise, self.zeroed, rng)
                    logits, share = net(torch.from_numpy(batch)), weights[rows]
                    loss = F.cross_entropy(logits, labels[rows], label_smoothing=self.label_smoothing, reduction="none")
                    loss = (loss * share).sum() / share.sum().clamp_min(1e-12)
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()
                    optimiser.step()
                    total += float(loss.detach())
                schedule.step()
                entry = {"epoch": epoch, "loss": total / batches, "val_hF": None, "val_accuracy": None}
                if val is not None:
                    predicted = self.classes_[self._logits(net, val_X).argmax(1)]
                    entry["val_hF"] = hierarchical_f1(val_y, predicted, never_predicted="zero")
                    entry["val_accuracy"] = float((predicted == val_y).mean())
                    if entry["val_accuracy"] > best:
                        best, self.best_epoch_ = entry["val_accuracy"], epoch
                        kept = {k: v.clone() for k, v in net.state_dict().items()}
                self.history_.append(entry)
                if val is not None and epoch - self.best_epoch_ >= self.patience:
                    break
            if kept is not None:
                net.load_state_dict(kept)
            self.best_epoch_ = self.best_epoch_ or self.epochs
            for drop in drops:
                drop.words = None
            self.network_ = net.eval()
        return self

    @available_if(lambda self: self.modalities == 2)
    def gate(self, X) -> np.ndarray:
        """Attention on the audio per clip, float64 (n,): 0 leans on text, 1 on audio (two modalities only)."""
        import torch

        check_is_fitted(self, "network_")
        features = checked(self, X)
        with private_torch(self.seed, self.threads), torch.inference_mode():
            return self.network_.fuse(torch.tensor(features))[0][:, 0].double().numpy()

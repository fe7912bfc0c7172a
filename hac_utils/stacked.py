"""Train several heads of one kind at once: one batched network, one optimiser call, a step derived by hand.

Every array carries a leading model axis K. Each model has its own rows, data order, dropout, sample weights
and best epoch; models of one stack share the sizes, the recipe and the number of batches, so that one learning
rate holds for all. On a CPU a stack of one model is fastest (the weights stay in the cache; run two processes
of one thread); on a GPU one stack of all is.

What makes it fast: inputs are standardised once, and the LayerNorm's scale and shift are kept apart, so that
no gradient with respect to the inputs is needed; a dropout mask from 16-bit random words; all parameters in
one buffer; nothing is allocated in a step.

Promises: on a CPU a stack of one gives the same bytes in every process. A stack of many, a GPU or another
number of threads agree with it to float rounding (1e-4 in the weights without dropout), not in bits.

References
----------
Ba et al. 2016 (LayerNorm); Loshchilov & Hutter 2019 (AdamW), as in ``torch.optim.AdamW``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .metrics import class_positions, scores
from .networks import Gated, Mlp, Model, Network, Recipe
from .taxonomy import N_CLASSES, family

_EVAL_ROWS = 512  # rows scored at once: activations stay in the cache


def orders(seed: int, n: int) -> Iterator[np.ndarray]:
    """Orders of `n` rows, one per epoch, int64 (n,)."""
    rng = np.random.default_rng([seed, 0])
    while True:
        yield rng.permutation(n)


def n_batches(n: int, batch_size: int) -> int:
    """Batches of an epoch over `n` rows; the last one may be smaller."""
    return -(-n // batch_size)


def standardise(X: np.ndarray, parts: Sequence[int]) -> Any:
    """LayerNorm without scale and shift over each part of the columns: float32 tensor, shape of `X`."""
    import torch
    from torch.nn import functional as F

    x = torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))
    done = [F.layer_norm(p, p.shape[1:]) for p in x.split(list(parts), dim=1)]
    return done[0] if len(done) == 1 else torch.cat(done, dim=1)


def train(models: Sequence[Model], X: np.ndarray, parts: Sequence[int], classes: np.ndarray, recipe: Recipe) -> None:
    """Train the models of one stack in place.

    Parameters
    ----------
    models : non-empty; equally many batches per epoch, all with `val` or all without
    X : float32, shape (N, d); `train` and `val` of every model are row numbers into it
    parts : widths of the embeddings side by side in X, summing to d: one for the MLP, two for the gated head
    classes : array of str, shape (c,); columns of the output
    """
    import torch

    device = torch.device(recipe.device)
    x = standardise(X, parts).to(device)
    batch = min(recipe.batch_size, max(len(m.train) for m in models))
    net = (Mlp if len(parts) == 1 else Gated)(models, batch, parts, len(classes), recipe, device)
    objective = _Objective(classes, recipe, device)
    score = _Validation(models, x, classes) if models[0].val is not None else None
    steps = n_batches(len(models[0].train), batch)
    best = np.full(len(models), -1.0)
    running = np.ones(len(models), dtype=bool)
    sequences = [orders(m.seed, len(m.train)) for m in models]
    goals = np.stack([m.target for m in models])
    weights = np.stack([m.weight for m in models])
    each = np.arange(len(models))[None, :, None]
    for epoch in range(1, recipe.epochs + 1):
        rows, counts = _batches(models, sequences, steps, batch)
        share = weights[each, rows] * (np.arange(batch) < counts[..., None])
        share /= np.maximum(share.sum(-1, keepdims=True), 1e-12)
        goal = torch.from_numpy(goals[each, rows]).to(device)
        share_t = torch.from_numpy(share.astype(np.float32)).to(device)
        rows_t = torch.from_numpy(rows).to(device)
        losses = torch.zeros(steps, len(models), device=device)
        for s in range(steps):
            done = (epoch - 1) * steps + s
            lr = recipe.lr * (1 + math.cos(math.pi * done / (recipe.epochs * steps))) / 2
            logits = net.forward(x, rows_t[s], training=True)
            net.backward(objective(logits, goal[s], share_t[s], losses[s]))
            net.update(lr)
        total = (losses.cpu().numpy().astype(np.float64) * counts).sum(0) / counts.sum(0)
        val_hF = score(net) if score else [None] * len(models)
        for k in np.flatnonzero(running):
            model = models[k]
            model.history.append({"epoch": epoch, "loss": float(total[k]), "val_hF": val_hF[k]})
            if score is None:
                model.best_epoch = epoch
            elif val_hF[k] > best[k]:
                best[k], model.best_epoch = val_hF[k], epoch
                net.keep(k)
            elif recipe.patience and epoch - model.best_epoch >= recipe.patience:
                running[k] = False
        if not running.any():
            break
    for k, model in enumerate(models):
        if score is None:
            net.keep(k)
        model.state = net.kept(k)


def _batches(
    models: Sequence[Model], sequences: list[Iterator[np.ndarray]], steps: int, batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (steps, K, batch), padded with the first row, and how many of them count (steps, K)."""
    rows = np.empty((len(models), steps * batch), dtype=np.int64)
    for k, (model, sequence) in enumerate(zip(models, sequences, strict=True)):
        rows[k, : len(model.train)] = model.train[next(sequence)]
        rows[k, len(model.train) :] = model.train[0]
    n = np.array([len(m.train) for m in models])
    counts = np.clip(n[None, :] - batch * np.arange(steps)[:, None], 0, batch)
    return np.ascontiguousarray(rows.reshape(len(models), steps, batch).swapaxes(0, 1)), counts


class _Objective:
    """Cross-entropy with label smoothing, plus half the family's cross-entropy where asked: value and gradient."""

    def __init__(self, classes: np.ndarray, recipe: Recipe, device: Any) -> None:
        import torch

        c = len(classes)
        smoothing = recipe.label_smoothing
        self.goal = (torch.eye(c) * (1 - smoothing) + smoothing / c).to(device)
        families = np.array([family(str(code)) for code in classes])
        same = torch.from_numpy((families[:, None] == families[None, :]).astype(np.float32))
        self.same = same.to(device) if recipe.hierarchical else None

    def __call__(self, logits: Any, label: Any, share: Any, loss: Any) -> Any:
        """Gradient with respect to the float32 logits (K, b, c); `loss` (K,) receives the value."""
        import torch

        log_p = torch.log_softmax(logits, -1)
        p = log_p.exp()
        goal = self.goal[label]
        grad = p - goal
        per_row = -(goal * log_p).sum(-1)
        if self.same is not None:
            inside = p * self.same[label]
            mass = inside.sum(-1, keepdim=True)
            certain = (mass > 1e-12).to(p.dtype)
            mass = mass.clamp_min(1e-12)
            per_row -= 0.5 * mass.log().squeeze(-1)
            grad += 0.5 * certain * (p - inside / mass)
        torch.sum(per_row * share, -1, out=loss)
        return grad.mul_(share.unsqueeze(-1))


class _Validation:
    """hF of every model on its own validation rows, strict reading."""

    def __init__(self, models: Sequence[Model], x: Any, classes: np.ndarray) -> None:
        import torch

        longest = max(len(m.val) for m in models)
        rows = np.stack([np.r_[m.val, np.full(longest - len(m.val), m.val[0])] for m in models])
        self.counts = np.arange(longest) < np.array([[len(m.val)] for m in models])
        self.position = class_positions(classes)
        truth = np.stack([m.target[r] for m, r in zip(models, rows, strict=True)])
        self.cell = self.position[truth] * N_CLASSES + np.arange(len(models))[:, None] * N_CLASSES**2
        self.x, self.rows = x, torch.from_numpy(rows).to(x.device)

    def __call__(self, net: Network) -> list[float]:
        import torch

        blocks = [net.forward(self.x, r, training=False).argmax(-1) for r in self.rows.split(_EVAL_ROWS, dim=1)]
        cell = self.cell + self.position[torch.cat(blocks, 1).cpu().numpy()]
        k = len(cell)
        confusion = np.bincount(cell[self.counts], minlength=k * N_CLASSES**2).reshape(k, N_CLASSES, N_CLASSES)
        return [float(v) for v in scores(confusion, "zero")["hF"]]

"""The training loop of the two networks that are trained end to end (finetune_text, finetune_audio).

Training is bitwise reproducible on one machine for the same seed and number of threads. Across
machines, or on a GPU, expect small differences: torch promises no more.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import HacError
from .metrics import hierarchical_f1

log = logging.getLogger(__name__)


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

"""Table 1's trainings: our stacked training against the loop a user would write, side by side.

    python benchmarks/heads.py [--seeds 3] [--epochs 40] [--data-seed 0] [--loop-epochs 1]

Synthetic embeddings of the real size (10,956 clips, 512 audio and 512 text dimensions, the real class counts),
3 heads x 5 folds x `seeds`. Our arms (float32, bfloat16, the recipe "fast") train all of these for real; the
loop (DataLoader, torch's AdamW, one model after another, 2 threads) is sampled before, between and after them,
`--loop-epochs` epochs a head each time, and **its time for all trainings is extrapolated** from the median.
Each fold's best epoch is chosen on the scored fold, as in the report. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hac_utils.fitting import Job, fit_predict_many, private_torch
from hac_utils.heads import RECIPES, ConcatHead, GatedFusionHead, MLPHead
from hac_utils.metrics import hierarchical_f1
from hac_utils.stacked import orders
from hac_utils.stats import paired_bootstrap, verdict
from hac_utils.taxonomy import CLASSES, family

#: Clips per class in BSD10k v1.2, taxonomy order (FACTS, section 1).
_COUNTS = "683 721 323 606 528 566 362 297 806 177 364 1211 201 279 975 166 652 297 208 391 207 719 217"
COUNTS = dict(zip(CLASSES, map(int, _COUNTS.split()), strict=True))
HEADS = {"audio": MLPHead, "concat": ConcatHead, "gated": GatedFusionHead}
DIM = 512
N_FOLDS = 5
THREADS = 2


def embeddings(seed: int) -> dict[str, np.ndarray]:
    """Unit-length audio and text embeddings with labels: about as hard as the real ones (hF 75 to 80).

    Every class has a centre near its family's and several prototypes around it; clips scatter widely around a
    prototype. A share of the clips sits in a wrong class's place, more often of its own family, independently
    in audio and text.
    """
    rng = np.random.default_rng([seed, 77])
    y = rng.permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
    names = np.array(sorted(CLASSES))
    label = np.searchsorted(names, y)
    families = np.unique([family(c) for c in names], return_inverse=True)[1]
    wrong = np.where(families[:, None] == families[None, :], 3.0, 1.0) * rng.uniform(0.2, 1, (23, 23))
    np.fill_diagonal(wrong, 0)
    wrong /= wrong.sum(1, keepdims=True)
    out = {"y": y}
    for name, misplaced, noise in (("audio", 0.12, 8.0), ("text", 0.25, 8.0)):
        heard = np.where(rng.random(len(y)) < misplaced, [rng.choice(23, p=wrong[k]) for k in label], label)
        centres = rng.normal(size=(5, DIM))[families] + rng.normal(size=(23, DIM))
        prototypes = centres[:, None] + 1.5 * rng.normal(size=(23, 8, DIM))
        X = prototypes[heard, rng.integers(8, size=len(y))] + noise * rng.normal(size=(len(y), DIM))
        out[name] = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    return out


def folds(y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(y, y))


def inputs(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    both = np.hstack([data["audio"], data["text"]])
    return {"audio": data["audio"], "concat": both, "gated": both}


def all_jobs(X: dict[str, np.ndarray], y: np.ndarray, seeds: int, **options: Any) -> list[tuple[str, int, Job]]:
    """(head, seed, job) of all trainings; every job predicts its scored fold."""
    return [
        (name, seed, Job(head(seed=seed, **options), X[name], y, train, test, {"scored": test}))
        for name, head in HEADS.items()
        for seed in range(seeds)
        for train, test in folds(y)
    ]


class _Sequence:
    """Sampler with our order of rows, for the comparison of weights."""

    def __init__(self, sequence: Iterator[np.ndarray], n: int) -> None:
        self.sequence, self.n = sequence, n

    def __iter__(self):
        return iter(next(self.sequence).tolist())

    def __len__(self):
        return self.n


def user_loop(head: Any, job: Job, epochs: int, *, own_order: bool = True, threads: int = THREADS) -> Any:
    """What a user would write: DataLoader, AdamW, cosine schedule, best epoch by hF. Returns the network."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    classes = np.array(sorted(CLASSES))
    with private_torch(head.seed, threads):
        features = torch.from_numpy(head._prepare(job.X))
        label = torch.from_numpy(np.searchsorted(classes, job.y))
        data = TensorDataset(features[job.train], label[job.train])
        sampler = None if own_order else _Sequence(orders(head.seed, len(data)), len(data))
        held_out = DataLoader(TensorDataset(features[job.val], label[job.val]), 512)
        net = head._network(features.shape[1], len(classes))
        loader = DataLoader(data, head.batch_size, shuffle=own_order, sampler=sampler)
        loss_function = nn.CrossEntropyLoss(label_smoothing=head.label_smoothing)
        optimiser = torch.optim.AdamW(net.parameters(), lr=head.lr, weight_decay=head.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, head.epochs * len(loader))
        best = (-1.0, None)
        for _ in range(epochs):
            net.train()
            for x, goal in loader:
                optimiser.zero_grad()
                loss = loss_function(net(x), goal)
                loss.backward()
                optimiser.step()
                schedule.step()
            net.eval()
            with torch.no_grad():
                guess = torch.cat([net(x).argmax(1) for x, _ in held_out])
            hF = hierarchical_f1(job.y[job.val], classes[guess.numpy()], never_predicted="zero")
            if hF > best[0]:
                best = (hF, {k: v.clone() for k, v in net.state_dict().items()})
        net.load_state_dict(best[1])
    return net


def loop_seconds(jobs: dict[str, Job], epochs: int) -> dict[str, float]:
    """Seconds of one model-epoch of the user's loop, per head."""
    out = {}
    for name, job in jobs.items():
        start = time.perf_counter()
        user_loop(job.estimator, job, epochs)
        out[name] = (time.perf_counter() - start) / epochs
    return out


def matmul_peak() -> float:
    """GFLOP/s of a float32 product of 4096 x 4096 matrices with 2 threads: the best of three."""
    import torch

    with private_torch(0, THREADS):
        a, b = torch.randn(4096, 4096), torch.randn(4096, 4096)
        best = 0.0
        for _ in range(3):
            start = time.perf_counter()
            a @ b
            best = max(best, 2 * 4096**3 / (time.perf_counter() - start) / 1e9)
    return best


def needed_gflop(name: str, n_train: int, n_val: int) -> float:
    """Of one model-epoch: forward, weight gradients, and the input gradients of all but the first layers."""
    h, c = DIM, len(CLASSES)
    first = {"audio": DIM * h, "concat": 2 * DIM * h, "gated": 4 * DIM * h}[name]
    later = h * c + (h * h if name == "gated" else 0)
    return 2e-9 * (n_train * (2 * first + 3 * later) + n_val * (first + later))


def largest_weight_difference(jobs: dict[str, Job], epochs: int = 2) -> float:
    """Between our float32 weights and the user's loop: dropout off, the same order of rows."""
    worst = 0.0
    for job in jobs.values():
        head = job.estimator.set_params(dropout=0.0, epochs=epochs, threads=THREADS)
        plain = user_loop(head, job, epochs, own_order=False).state_dict()
        val = (job.X[job.val], job.y[job.val])
        ours = head.fit(job.X[job.train], job.y[job.train], val=val).network_.state_dict()
        worst = max(worst, *(float((plain[k] - ours[k]).abs().max()) for k in plain))
    return worst


def peak_rss_mb() -> float:
    """Peak resident memory of this process and its workers, summed: an upper bound of what was held at once."""
    import psutil

    me = psutil.Process()
    total = 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    return total


def pooled(jobs: list[tuple[str, int, Job]], results: list[Any], y: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """Out-of-fold truth, prediction and clip of one head, all seeds one after another."""
    parts = [
        (y[job.val], np.array(r.classes)[r.proba["scored"].argmax(1)], job.val)
        for (head, _, job), r in zip(jobs, results, strict=True)
        if head == name
    ]
    return dict(zip(("y", "predicted", "clip"), map(np.concatenate, zip(*parts, strict=True)), strict=True))


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Run the benchmark and print it; `argv` as on the command line. Returns the numbers of the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=RECIPES["exact"]["epochs"])
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--loop-epochs", type=int, default=1)
    args = parser.parse_args(argv)
    data = embeddings(args.data_seed)
    X, y = inputs(data), data["y"]
    exact = RECIPES["exact"] | {"epochs": args.epochs}
    fast = RECIPES["fast"]
    arms = {
        "float32": exact,
        "bfloat16": exact | {"precision": "bfloat16"},
        "fast": fast,
    }
    first = {name: Job(h(**exact), X[name], y, *folds(y)[0], {}) for name, h in HEADS.items()}
    n_train, n_val = len(first["audio"].train), len(first["audio"].val)
    n_models = args.seeds * N_FOLDS
    print(f"{len(y)} clips, train {n_train}, validate {n_val}; {3 * n_models} trainings, data seed {args.data_seed}")
    loop_seconds(first, 1)  # warm-up of both sides
    fit_predict_many([j for *_, j in all_jobs(X, y, 1, epochs=1)][::4], workers=THREADS)
    sampled, peaks, seconds, found = [loop_seconds(first, args.loop_epochs)], [matmul_peak()], {}, {}
    for arm, options in arms.items():
        jobs = all_jobs(X, y, args.seeds, **options)
        start = time.perf_counter()
        results = fit_predict_many([job for *_, job in jobs], workers=THREADS, desc=arm)
        seconds[arm] = time.perf_counter() - start
        found[arm] = {name: pooled(jobs, results, y, name) for name in HEADS}
        sampled.append(loop_seconds(first, args.loop_epochs))
        peaks.append(matmul_peak())
    per_epoch = {name: float(np.median([s[name] for s in sampled])) for name in HEADS}
    loop = sum(per_epoch.values()) * n_models * args.epochs
    flop = sum(needed_gflop(name, n_train, n_val) for name in HEADS) * n_models * args.epochs
    peak = max(peaks)
    print(
        "loop, seconds a model-epoch (median of",
        len(sampled),
        "samples):",
        {k: round(v, 3) for k, v in per_epoch.items()},
    )
    print("  samples:", [round(sum(s.values()), 2) for s in sampled], "matmul peaks:", [round(p) for p in peaks])
    print(f"loop, all trainings: {loop:.0f} s, extrapolated from {len(sampled) * args.loop_epochs} epochs a head")
    for arm, s in seconds.items():
        print(f"{arm:9} {s:7.1f} s measured, {3 * n_models} trainings, {arms[arm]}: {loop / s:.2f} times the loop")
    equal = {"bfloat16": True, "fast": True}  # tie or better, for every head
    for name in HEADS:
        base = found["float32"][name]
        per_seed = [
            hierarchical_f1(t, p)
            for t, p in zip(*(np.split(base[k], args.seeds) for k in ("y", "predicted")), strict=True)
        ]
        noise = float(np.std(per_seed, ddof=1)) if args.seeds > 1 else None
        told = "not known from one seed" if noise is None else f"{100 * noise:.2f}"
        print(f"{name:7} hF {100 * np.mean(per_seed):.2f} (float32, exact), seed noise {told}")
        for arm in equal:
            other = found[arm][name]["predicted"]
            result = paired_bootstrap(base["y"], other, base["predicted"], cluster=base["clip"].astype(str))
            words = verdict(result, noise)
            equal[arm] &= not words.startswith("worse")
            print(f"  {arm:9} {words}")
    out = {
        "speedup": loop / seconds["float32"],
        "speedup_bf16": loop / seconds["bfloat16"],
        "time_to_tie_speedup": loop / seconds["fast"] if equal["fast"] else 0.0,
        "share_of_peak": flop / seconds["float32"] / peak,
        "peak_rss_mb": peak_rss_mb(),
        "max_weight_diff": largest_weight_difference(first),
        "bf16_equal": equal["bfloat16"],
        "fast_equal": equal["fast"],
        "loop_extrapolated_s": loop,
    }
    out = {k: v if isinstance(v, bool) else float(f"{v:.3g}") for k, v in out.items()}
    print(json.dumps(out))
    return out


if __name__ == "__main__":
    main()

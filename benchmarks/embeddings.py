"""Loading 35,000 CLAP embeddings: single files against one packed file, side by side.

    python benchmarks/embeddings.py [N]

Makes N (default 35,000) vectors of 512 float32 values as single ``.npy`` files in a temporary folder,
packs them with :mod:`hac_utils.features` and as safetensors, and times loading all values into memory,
warm (files in the page cache), the ways interleaved, medians of several rounds. The last line is JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from hac_utils import features

ROUNDS = 7


def make(folder: Path, n: int) -> list[str]:
    """Single files as in features.zip; returns their ids."""
    source = features.source_folder(folder, "audio")
    source.mkdir(parents=True)
    rng = np.random.default_rng([0, n])
    ids = [str(100_000 + i) for i in range(n)]
    for sound_id in ids:
        x = rng.normal(size=features.DIM).astype(np.float32)
        np.save(source / f"{sound_id}.npy", x / np.linalg.norm(x))
    return ids


def single_files(folder: Path, ids: list[str]) -> np.ndarray:
    """The usual loop: one np.load per clip."""
    source = features.source_folder(folder, "audio")
    return np.stack([np.load(source / f"{i}.npy") for i in ids])


def checked_load(folder: Path, ids: list[str]) -> np.ndarray:
    """What the notebooks call: looks whether any of the single files changed, then maps the pack; every value is touched."""
    _, X, failures = features.load(folder, ids, "audio")
    assert len(failures) == 0
    X.sum()
    return X


def mapped(path: Path) -> np.ndarray:
    X = np.load(path, mmap_mode="r", allow_pickle=False)
    X.sum()
    return X


def timed(function: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    X = function()
    return time.perf_counter() - start, X


def main(n: int) -> None:
    with tempfile.TemporaryDirectory(prefix="hac-embeddings-") as name:
        folder = Path(name)
        ids = make(folder, n)
        pack_s, _ = timed(lambda: features.pack(folder, ids, "audio")[1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        npy = folder / "packed" / "clap_audio.npy"
        tensors = folder / "packed" / "clap_audio.safetensors"
        save_file({"X": np.load(npy)}, tensors)
        ways = {
            "single .npy": lambda: single_files(folder, ids),
            "one .npy": lambda: np.load(npy, allow_pickle=False),
            "one .npy, mapped, every value read": lambda: mapped(npy),
            "one safetensors": lambda: load_file(tensors)["X"],
            "features.load (mapped, sources checked)": lambda: checked_load(folder, ids),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        truth = np.load(npy)
        for _ in range(ROUNDS):
            for way, function in ways.items():
                s, X = timed(function)
                assert np.array_equal(X, truth), way
                seconds[way].append(s)
                del X
        base = float(np.median(seconds["single .npy"]))
        print(
            f"{n} embeddings of {features.DIM} float32 values, {truth.nbytes / 1e6:.0f} MB, warm, {ROUNDS} rounds interleaved"
        )
        print(f"{'':42}{'median s':>10}{'min s':>10}{'ratio':>8}")
        for way, values in seconds.items():
            median = float(np.median(values))
            print(f"{way:42}{median:10.4f}{min(values):10.4f}{base / median:8.1f}")
        print(
            f"packing once: {pack_s:.2f} s, peak memory of the process up to then {peak:.0f} MB (vectors {truth.nbytes / 1e6:.0f} MB)"
        )
        print(
            json.dumps(
                {
                    "speedup_npy": round(base / float(np.median(seconds["one .npy"])), 1),
                    "speedup_safetensors": round(base / float(np.median(seconds["one safetensors"])), 1),
                    "pack_s": round(pack_s, 2),
                    "peak_memory_mb": round(peak),
                }
            )
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 35_000)

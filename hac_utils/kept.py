"""Finished trainings on disk, so that a run that was killed goes on with the next one."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .fitting import Fitted, Job
from .io import atomic_path


@cache
def _code() -> str:
    """Of the package's own sources: other code, other trainings."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def key_of(job: Job, known: dict[int, str] | None = None) -> str:
    """Hash of everything that a training depends on: estimator, data, rows, inputs to predict, code.

    `known` remembers by ``id`` the hashes of data that several jobs share; the jobs must live as long as it does.
    """
    import joblib

    known = {} if known is None else known

    def digest(data: Any) -> str:
        if id(data) not in known:
            known[id(data)] = joblib.hash(data, hash_name="sha1")
        return known[id(data)]

    estimator = job.estimator
    data = [digest(d) for d in (job.X, job.y, job.train, job.val, job.sample_weight)]
    wanted = {name: digest(inputs) for name, inputs in job.predict.items()}
    return joblib.hash([type(estimator).__name__, estimator.get_params(), data, wanted, _code()], hash_name="sha1")


def _digest(arrays: dict[str, np.ndarray], facts: dict) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def write(folder: Path, key: str, fitted: Fitted) -> None:
    """One file, ``folder/<key>.safetensors``, whole or not at all."""
    from safetensors.numpy import save

    arrays = {
        f"{kind}/{n}": np.ascontiguousarray(a) for kind in ("proba", "gate") for n, a in getattr(fitted, kind).items()
    }
    facts = {k: v for k, v in vars(fitted).items() if k not in ("proba", "gate")}
    facts["sha256"] = _digest(arrays, facts)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / f"{key}.safetensors") as tmp:
        tmp.write_bytes(save(arrays, metadata={"facts": json.dumps(facts)}))


def read(folder: Path, key: str) -> Fitted | None:
    """The finished training, or None: not there, or damaged."""
    from safetensors import SafetensorError, safe_open

    path = folder / f"{key}.safetensors"
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as f:
            facts = json.loads(f.metadata()["facts"])
            arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  it is no dict
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    if facts.pop("sha256", "") != _digest(arrays, facts):
        return None
    split: dict[str, dict[str, np.ndarray]] = {"proba": {}, "gate": {}}
    for name, array in arrays.items():
        kind, _, rest = name.partition("/")
        split[kind][rest] = array
    return Fitted(**split, **facts)

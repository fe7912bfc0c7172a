"""Extraction on a Ray cluster: the same shards, the same bytes, as on one machine.

Ray Data reads and decodes on CPU workers and encodes in actors that hold the model; the vectors come back to
the process that was started, which alone writes the store. Sound files must be readable under the same path
on every node (a shared file system). A worker that dies is replaced by Ray and its batch done again.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .audio import failures_table
from .batches import Read, decoding_part, finish_batch, is_audio, read_sound
from .errors import HacError
from .extract import Shard, Summary, commit, open_for, plan, store_document
from .io import sha256_text
from .store import Outcome, describe


def extract(
    items: Mapping[str, Path | str], build: Callable[[str], Any], out: Path | str, *, address: str = "", device: str = "cpu",
    actors: int = 1, batch_size: int = 16, shard_size: int = 256, resume: bool = True,
) -> Summary:  # fmt: skip
    """:func:`hac_utils.extract.extract` on Ray; same store, same bytes for the same `batch_size` and `shard_size`.

    Parameters
    ----------
    build : picklable; ``build(device)`` makes the encoder: on "cpu" here for its settings, on `device` in the actors
    address : of a Ray cluster, "auto" for the one this machine belongs to, "" for a private one on this machine
    device : "cpu", or "cuda": then each encoding actor takes one GPU
    actors : encoding actors at most; the other CPUs decode

    Raises
    ------
    HacError
        Ray is not installed, or there is no cluster at `address`.
    """
    ray = _ray(address)
    start = time.perf_counter()
    encoder = build("cpu")
    store = open_for(encoder, out)
    with store.lock():
        describe(store, encoder.name, store_document(encoder))
        store.scan(repair=True)
        if not resume:
            store.clear()
        shards, hashes = plan(items, store, audio=is_audio(encoder), shard_size=shard_size)
        reused, failed, total = len(hashes), [], sum(len(s.ids) for s in shards)
        with tqdm(
            total=len(items),
            initial=reused,
            desc=f"embed ({encoder.name}, ray)",
            unit="clip",
            disable=None,
            mininterval=1.0,
        ) as bar:
            for shard, outcomes in _outcomes(ray, shards, items, encoder, build, device, actors, batch_size, bar):
                commit(store, shard, outcomes)
                hashes |= {o.sound_id: o.sha256 for o in outcomes if o.vector is not None}
                failed += [(o.sound_id, o.stage, o.reason) for o in outcomes if o.vector is None]
        failures = failures_table(failed)
        store.finish(hashes, failures)
    return Summary(encoder.name, store, hashes, total, reused, failures, time.perf_counter() - start)


def _ray(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anyone
    try:
        import ray
        import ray.data
    except ImportError:
        raise HacError(
            "Ray is not installed", "--engine ray", 'pip install "ray[data]>=2.40", or leave --engine out'
        ) from None
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    if not ray.is_initialized():
        try:
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except Exception as e:
            raise HacError(
                f"no Ray cluster: {str(e).splitlines()[0] if str(e) else type(e).__name__}",
                f"--address {address}",
                "start one with: ray start --head, or leave --address out",
            ) from None
    return ray


def _outcomes(
    ray, shards: list[Shard], items, encoder, build, device: str, actors: int, batch_size: int, bar
) -> Iterator[tuple[Shard, list[Outcome]]]:
    """Each shard with its outcomes, when the last of its batches has come back."""
    part = decoding_part(encoder) if is_audio(encoder) else None
    rows = []
    for s, shard in enumerate(shards):
        for k in range(0, len(shard.ids), batch_size):
            ids = shard.ids[k : k + batch_size]
            rows.append(
                {
                    "shard": s,
                    "batch": k // batch_size,
                    "ids": ids,
                    "items": [os.fspath(items[i]) for i in ids],
                }
            )
    if not rows:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    gpus = {"num_gpus": 1} if device.startswith("cuda") else {}
    threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else 0
    table = ray.data.from_items([{"task": _Task(r)} for r in rows], override_num_blocks=len(rows))
    cpus = ray.cluster_resources().get("CPU", 1)
    share = 1 if cpus >= 2 else 0.5  # a cluster of one CPU must still run both stages
    decoders = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, int(cpus) - actors))
    models = ray.data.ActorPoolStrategy(min_size=1, max_size=actors)
    table = table.map(_Decode, fn_constructor_kwargs={"part": part}, compute=decoders, num_cpus=share)
    table = table.map(
        _Encode,
        fn_constructor_kwargs={"build": build, "device": device, "threads": threads},
        compute=models,
        num_cpus=share,
        **gpus,
    )
    parts: dict[int, dict[int, list[Outcome]]] = {}
    for row in table.iter_rows():
        task = row["task"]
        parts.setdefault(task["shard"], {})[task["batch"]] = task["outcomes"]
        bar.update(len(task["outcomes"]))
        shard, there = shards[task["shard"]], parts[task["shard"]]
        if len(there) == -(-len(shard.ids) // batch_size):
            del parts[task["shard"]]
            yield shard, [o for b in sorted(there) for o in there[b]]


class _Task(dict):
    """A row that Ray passes through as one Python object; Arrow would turn waveforms of several lengths into lists."""


class _Decode:
    """A row's items to :class:`Read`; texts need no decoding."""

    def __init__(self, part: Any) -> None:
        self.part = part

    def __call__(self, row: dict) -> dict:
        task = row["task"]
        if self.part is None:
            reads = [Read(sha256_text(text), text) for text in task["items"]]
        else:
            reads = [read_sound((i, path, self.part)) for i, path in zip(task["ids"], task["items"], strict=True)]
        return {"task": _Task(task, reads=reads)}


class _Encode:
    """The model, once in each actor, with as many threads as here: another number gives other last bits."""

    def __init__(self, build: Callable[[str], Any], device: str, threads: int) -> None:
        self.encoder = build(device)
        if threads and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)

    def __call__(self, row: dict) -> dict:
        task = row["task"]
        outcomes = finish_batch(self.encoder, list(zip(task["ids"], task.pop("reads"), strict=True)))
        return {"task": _Task({k: task[k] for k in ("shard", "batch")}, outcomes=outcomes)}

"""Extraction on a Ray cluster gives the bytes of a single machine, also when a worker is killed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import tempfile
import threading
import time

import numpy as np
import psutil
import pytest
import soundfile as sf

from hac_utils import distributed, extract
from hac_utils.errors import HacError


class SlowEncoder:
    """Not light: waveforms travel from the decoding to the encoding workers."""

    name, dim, sample_rate = "slow", 8, 16_000

    def settings(self):
        return {"seed": 0}

    def encode(self, batch, ids):
        time.sleep(0.05 * len(batch))
        rows = [
            np.random.default_rng([len(a), int.from_bytes(hashlib.sha256(a.tobytes() + i.encode()).digest()[:4])])
            for a, i in zip(batch, ids, strict=True)
        ]  # fmt: skip
        return np.stack([r.normal(size=8).astype(np.float32) for r in rows])


def build(device):
    return SlowEncoder()


def files(store):
    return {p.name: p.read_bytes() for p in sorted(store.folder.iterdir()) if p.name != ".lock"}


@pytest.fixture
def clips(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(96):
        wave = np.random.default_rng([i, 5]).normal(0, 0.1, 2000 + 97 * i)
        sf.write(tmp_path / "in" / f"{i}.wav", wave, (8000, 44_100, 16_000)[i % 3])
    (tmp_path / "in" / "7.wav").write_text("no audio")
    return extract.sounds_in(tmp_path / "in")


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray", reason='Ray is not installed (pip install "ray[data]>=2.40")')
    pytest.importorskip("ray.data")
    from ray import cloudpickle
    from ray.cluster_utils import Cluster

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers do not import this file
    folder = tempfile.mkdtemp(prefix="hacray", dir="/tmp")  # socket names must be short
    node = {"num_cpus": 2, "object_store_memory": 150 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={**node, "temp_dir": folder})
    made.add_node(**node, temp_dir=folder)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
    made.shutdown()


def test_without_ray_there_is_one_error_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HacError, match="Ray is not installed") as e:
        distributed.extract({"a": tmp_path / "a.wav"}, build, tmp_path / "out")
    assert "pip install" in e.value.fix


@pytest.mark.slow
def test_two_ray_nodes_and_a_killed_worker_give_the_bytes_of_one_machine(cluster, clips, tmp_path):
    one = extract.extract(clips, SlowEncoder(), tmp_path / "one", workers=2, batch_size=8, shard_size=32)
    killed = []

    def kill_one_worker_of_each_kind():
        while not list((tmp_path / "ray").glob("*/shard-*.parquet")):
            time.sleep(0.05)
        for stage in ("_Encode", "_Decode"):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if stage in " ".join(process.cmdline()):
                        os.kill(process.pid, signal.SIGKILL)
                        killed.append(stage)
                        break

    threading.Thread(target=kill_one_worker_of_each_kind, daemon=True).start()
    two = distributed.extract(clips, build, tmp_path / "ray", batch_size=8, shard_size=32)
    assert "_Encode" in killed, "the run was over before a worker could be killed"
    assert files(two.store) == files(one.store)
    assert two.failures["sound_id"].tolist() == ["7"] and two.computed == 96
    again = distributed.extract(clips, build, tmp_path / "ray", batch_size=8, shard_size=32)
    assert again.computed == 1 and again.reused == 95  # only the clip that failed is tried again

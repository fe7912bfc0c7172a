"""kill -9 at random moments: the store ends as if nothing had happened, and no finished shard is made twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile as sf

#: What is killed: an extraction as a program of its own. The encoder sleeps a little, so that there is time to die.
PROGRAM = """
import sys, time
from hac_utils import extract
from hac_utils.encoders import LogMelEncoder

class Encoder(LogMelEncoder):
    name = "nap"  # not a light one: waveforms come through pipes
    def encode(self, batch, ids=None):
        time.sleep(float(sys.argv[4]) * len(batch))
        return super().encode(batch)

if __name__ == "__main__":
    print("imported", flush=True)
    done = extract.extract(extract.sounds_in(sys.argv[1]), Encoder(), sys.argv[2], workers=int(sys.argv[3]), batch_size=8, shard_size=16)
    print(done.computed, done.reused, len(done.failures))
"""


def make_clips(folder: Path, n: int) -> None:
    folder.mkdir()
    for i in range(n):
        wave = np.random.default_rng([i, 4]).normal(0, 0.1, 800 + 13 * i)
        sf.write(folder / f"{i:04d}.wav", wave, (8000, 16_000, 44_100)[i % 3])
    (folder / "0033.wav").write_text("no audio")
    (folder / "0150.wav").write_bytes(b"")


def start(work: Path, out: str, workers: int, nap: float) -> subprocess.Popen:
    (work / "program.py").write_text(PROGRAM)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(work / "program.py"), str(work / "in"), str(work / out), str(workers), str(nap)],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    )


def shards(folder: Path) -> dict[str, tuple[int, int]]:
    """Finished shards: name -> (inode, time)."""
    found = {}
    for table in sorted(folder.glob("*/shard-*.parquet")):
        for path in (table, table.with_suffix(".npy")):
            if path.exists():
                found[path.name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*/*")) if p.name != ".lock"}


def kill_and_resume(work: Path, *, clips: int, kills: int, nap: float, seed: int) -> dict:
    """Kill an extraction `kills` times at random moments, then let it finish. Raises AssertionError when a finished shard changes."""
    rng = np.random.default_rng([seed, kills])
    make_clips(work / "in", clips)
    undisturbed = start(work, "one", 2, nap)
    undisturbed.stdout.readline()
    began = time.monotonic()
    while not shards(work / "one"):
        time.sleep(0.02)
    first = time.monotonic() - began
    assert undisturbed.communicate(timeout=300)[0].split() == [str(clips), "0", "2"]
    span = time.monotonic() - began - first
    finished: dict[str, tuple[int, int]] = {}
    moments, early = [], 0
    while len(moments) < kills:
        run = start(work, "two", 2, nap)
        run.stdout.readline()
        # a random moment: a finished shard later, and a random part of the time a shard takes; or before any
        goal = len(finished) + 2 * int(rng.integers(0, 2))
        while run.poll() is None and goal > len(finished) and len(shards(work / "two")) < goal:
            time.sleep(0.005)
        try:
            run.wait(float(rng.uniform(0, 2 * 16 * span / clips if goal > len(finished) else first)))
            early += 1  # it was done before: nothing to kill any more
        except subprocess.TimeoutExpired:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
        run.stdout.close()
        moments.append(len(shards(work / "two")))
        now = shards(work / "two")
        assert {k: now.get(k) for k in finished} == finished, "a finished shard was made again"
        finished = now
    last = start(work, "two", 2, nap)
    computed, reused, failed = map(int, last.communicate(timeout=300)[0].split()[1:])
    assert last.returncode == 0 and computed + reused == clips and failed == 2
    now = shards(work / "two")
    assert {k: now.get(k) for k in finished} == finished
    one, two = contents(work / "one"), contents(work / "two")
    assert list(one) == list(two), "other files than the undisturbed run"
    assert [k for k in one if one[k] != two[k]] == []
    return {
        "kills": kills - early,
        "done before the kill": early,
        "shard files after each kill": moments,
        "undisturbed_s": round(first + span, 1),
        "left for the last run": computed,
    }


def test_a_run_that_was_killed_six_times_ends_with_the_bytes_of_an_undisturbed_one(tmp_path):
    report = kill_and_resume(tmp_path, clips=200, kills=6, nap=0.012, seed=0)
    assert report["kills"] >= 4 and report["shard files after each kill"][-1] > 0, report


def test_no_decoding_process_outlives_a_killed_run(tmp_path):
    import psutil

    make_clips(tmp_path / "in", 200)
    run = start(tmp_path, "out", 2, 0.02)
    workers: list[psutil.Process] = []
    while len(workers) < 2 and run.poll() is None:
        time.sleep(0.05)
        workers = [p for p in psutil.Process(run.pid).children(recursive=True) if p.is_running()]
    assert workers and run.poll() is None
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stdout.close()
    assert psutil.wait_procs(workers, timeout=15)[1] == []


if __name__ == "__main__":  # python tests/test_extract_kill.py FOLDER: the long form
    target = Path(sys.argv[1])
    target.mkdir(parents=True)
    print(json.dumps(kill_and_resume(target, clips=500, kills=20, nap=0.012, seed=1)))

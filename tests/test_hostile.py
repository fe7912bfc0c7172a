"""300 hostile files: each is encoded or listed with its reason, nothing stops the run, memory stays small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile
import numpy as np
import pandas as pd
import pytest

#: Measures the main process and its decoding processes every 20 ms: proportional set sizes, so that shared pages count once.
PROGRAM = """
import json, sys, threading, time
import psutil
from hac_utils import extract
from hac_utils.encoders import LogMelEncoder

peak, run = 0, True
def watch():
    global peak
    me = psutil.Process()
    while run:
        total = 0
        for p in [me, *me.children(recursive=True)]:
            try:
                total += p.memory_full_info().pss
            except psutil.Error:
                pass
        peak = max(peak, total)
        time.sleep(0.02)

if __name__ == "__main__":
    thread = threading.Thread(target=watch)
    thread.start()
    items = extract.sounds_in(sys.argv[1])
    done = extract.extract(items, LogMelEncoder(), sys.argv[2], workers=int(sys.argv[3]))
    run = False
    thread.join()
    print(json.dumps({"items": {i: str(p) for i, p in items.items()}, "peak_mb": peak / 2**20, "folder": str(done.store.folder), "seconds": done.seconds}))
"""


def run(work: Path, out: str, workers: int) -> dict:
    (work / "program.py").write_text(PROGRAM)
    env = {**os.environ, "PYTHONIOENCODING": "utf-8:surrogateescape"}
    done = subprocess.run(
        [sys.executable, str(work / "program.py"), str(work / "in"), str(work / out), str(workers)],
        capture_output=True,
        env=env,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "count").write_text(str(hostile.make(folder / "in")))
    return folder


@pytest.fixture(scope="module")
def result(work) -> dict:
    return run(work, "two", 2)


def test_there_are_300_hostile_files_and_each_is_an_item(work, result):
    assert int((work / "count").read_text()) >= 299
    assert len(result["items"]) == int((work / "count").read_text()) == len(set(result["items"].values()))
    assert all("/" not in i and "\n" not in i and i not in (".", "..") and len(i) <= 110 for i in result["items"])


def test_each_is_a_finite_vector_of_norm_1_or_listed_with_its_reason(result):
    from hac_utils import store

    ids, X = store.load(result["folder"])
    failures = pd.read_parquet(Path(result["folder"]) / "failures.parquet")
    assert sorted(ids + failures["sound_id"].tolist()) == sorted(result["items"])
    assert np.isfinite(X).all() and X.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, atol=1e-5)
    assert (failures["reason"].str.len() > 5).all() and not failures["reason"].str.contains("\n").any()
    assert len(ids) > 120 and len(failures) > 80


@pytest.mark.parametrize(
    ("sound_id", "reason"),
    [
        ("directory", "a folder, not a file"), ("loop", "no such file"), ("loop-a", "no such file"), ("nowhere", "no such file"),
        ("up", "a folder"), ("pipe", "not a regular file"), ("device", "not a regular file"), ("nan-50-51", "NaN"), ("inf-None-None", "infinite"),
        ("huge-None-None", "full scale"), ("minus-too-loud-None-None", "full scale"), ("head-89504e47", "not readable"),
    ],
)  # fmt: skip
def test_the_reason_says_what_is_wrong(result, sound_id, reason):
    failures = pd.read_parquet(Path(result["folder"]) / "failures.parquet").set_index("sound_id")["reason"]
    assert reason in failures[sound_id]


@pytest.mark.parametrize(
    "sound_id",
    [
        "silence1h",
        "silence3h",
        "long",
        "n1-384000",
        "n1-1000",
        "rate384000",
        "channels8",
        "channels1024",
        "dc0.0",
        "日本語",
        "line_break",
        "loud-None-None",
    ],
)
def test_odd_but_good_sounds_are_encoded(result, sound_id):
    from hac_utils import store

    assert sound_id in store.load(result["folder"])[0]


def test_memory_stays_below_1500_mib(result):
    assert 50 < result["peak_mb"] < 1500


def test_one_process_gives_the_same_files(work, result):
    one = run(work, "one", 0)
    a, b = ({p.name: p.read_bytes() for p in Path(r["folder"]).iterdir()} for r in (one, result))
    assert a.keys() == b.keys() and [k for k in a if a[k] != b[k]] == []

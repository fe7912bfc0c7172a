"""The store: shards are whole or absent, rows are found by id and content, two writers do not meet."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest

from hac_utils.errors import HacError
from hac_utils.store import Outcome, Store, content_key, describe, load, open_store

DOCUMENT = {"encoder": "e", "settings": {"weights": "abc", "seed": 0}, "decode": {"sample_rate": 48_000}}


def outcomes(ids, seed=0):
    rng = np.random.default_rng([seed, 2])
    return [Outcome(i, f"sha-{i}", rng.normal(size=4).astype(np.float32)) for i in ids]


def written(tmp_path, *groups):
    store = open_store(tmp_path, "e", 4, DOCUMENT)
    with store.lock():
        describe(store, "e", DOCUMENT)
        store.scan()
        for number, group in enumerate(groups):
            store.write(number, group)
    return store


def reopened(store):
    again = Store(store.folder, store.dim)
    again.scan()
    return again


def test_vectors_come_back_in_the_order_wanted_and_memory_mapped_when_they_are_one_shard(tmp_path):
    a, b = outcomes("abc"), outcomes("def", 1)
    store = reopened(written(tmp_path, a, b))
    vectors = {o.sound_id: o.vector for o in a + b}
    X = store.read({i: f"sha-{i}" for i in "fadb"})
    assert np.array_equal(X, np.stack([vectors[i] for i in "fadb"]))
    assert isinstance(store.read({i: f"sha-{i}" for i in "abc"}), np.memmap)
    assert store.read({}).shape == (0, 4)


def test_failures_are_rows_too_and_take_no_vector(tmp_path):
    bad = Outcome("x", "sha-x", None, "decode", "the file is empty")
    store = reopened(written(tmp_path, [outcomes("a")[0], bad, outcomes("b")[0]], [bad]))
    assert set(store.good) == {("a", "sha-a"), ("b", "sha-b")} and store.good["b", "sha-b"] == (0, 1)
    assert store.failed["x"] == {("sha-x", "decode", "the file is empty")} and store.shards == {0, 1}
    assert store.knows("x") and not store.knows("y") and not (store.folder / "shard-00001.npy").exists()


def test_the_same_outcomes_give_the_same_bytes(tmp_path):
    one, two = written(tmp_path / "1", outcomes("abc")), written(tmp_path / "2", outcomes("abc"))
    for name in ("shard-00000.npy", "shard-00000.parquet", "meta.json"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


def test_a_half_written_shard_does_not_exist_and_leftovers_go(tmp_path):
    store = written(tmp_path, outcomes("abc"))
    (store.folder / "shard-00001.npy").write_bytes((store.folder / "shard-00000.npy").read_bytes())
    (store.folder / ".shard-00002-xyz.tmp.npy").write_bytes(b"half")
    assert reopened(store).shards == {0}
    with store.lock():
        assert not list(store.folder.glob(".*.tmp*"))
        store.scan(repair=True)
        assert next(store.free_numbers()) == 1


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [cut, flip, lambda p: p.write_bytes(b""), lambda p: p.unlink()])
@pytest.mark.parametrize("end", ["npy", "parquet"])
def test_a_damaged_shard_does_not_count_and_its_number_is_free_again(harm, end, tmp_path):
    store = written(tmp_path, outcomes("abc"), outcomes("def", 1), outcomes("gh", 2))
    harm(store.folder / f"shard-00001.{end}")
    found = reopened(store)
    assert {i for i, _ in found.good} == set("abcgh") and found.shards == {0, 2}
    with found.lock():
        found.scan(repair=True)
        assert next(found.free_numbers()) == 1
        found.write(1, outcomes("def", 1))
    assert {i for i, _ in reopened(store).good} == set("abcdefgh")


def test_every_setting_changes_the_key_and_so_the_folder():
    keys = {
        content_key(DOCUMENT),
        content_key({**DOCUMENT, "settings": {"weights": "abd", "seed": 0}}),
        content_key({**DOCUMENT, "decode": {}}),
        content_key({**DOCUMENT, "encoder": "f"}),
    }
    assert len(keys) == 4 and content_key(dict(reversed(DOCUMENT.items()))) in keys


def test_the_version_of_the_extraction_is_part_of_the_key(monkeypatch):
    from hac_utils import store

    before = content_key(DOCUMENT)
    monkeypatch.setattr(store, "EXTRACT_VERSION", 2)
    assert content_key(DOCUMENT) != before


def test_a_store_of_another_key_under_the_same_name_is_refused(tmp_path):
    store = written(tmp_path, outcomes("a"))
    with pytest.raises(HacError, match="other settings"):
        describe(store, "e", {**DOCUMENT, "encoder": "other"})


def test_load_gives_the_latest_extraction_and_names_what_is_missing(tmp_path):
    store = written(tmp_path, outcomes("abc"))
    with pytest.raises(HacError, match="no such file"):
        load(store.folder)
    store.finish(
        {"c": "sha-c", "a": "sha-a"},
        pd.DataFrame({"sound_id": ["z"], "stage": ["decode"], "reason": ["empty"]}),
    )
    ids, X = load(store.folder)
    assert ids == ["a", "c"] and X.shape == (2, 4)
    assert load(store.folder, ["c"])[0] == ["c"]
    with pytest.raises(HacError, match="2 of 3 clips have no embedding: 2 .b, z."):
        load(store.folder, ["a", "b", "z"])
    flip(store.folder / "shard-00000.npy")
    with pytest.raises(HacError, match="damaged"):
        load(store.folder)


def test_a_second_writer_waits_for_the_first(tmp_path):
    store, order = written(tmp_path), []

    def second():
        with Store(store.folder, 4).lock():
            order.append("second")

    with store.lock():
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


TWO = """
import sys
from pathlib import Path
from hac_utils import extract
from hac_utils.encoders import LogMelEncoder
done = extract.extract(extract.sounds_in(sys.argv[1]), LogMelEncoder(), sys.argv[2], workers=0, shard_size=8)
print(done.computed)
"""


def test_two_processes_on_one_store_do_the_work_once(tmp_path):
    import soundfile as sf

    (tmp_path / "in").mkdir()
    for i in range(60):
        sf.write(tmp_path / "in" / f"{i}.wav", np.random.default_rng(i).normal(0, 0.1, 4000), 8000)
    command = [sys.executable, "-c", TWO, str(tmp_path / "in"), str(tmp_path / "out")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    counts = sorted(int(run.communicate(timeout=60)[0]) for run in runs)
    assert counts == [0, 60]
    (folder,) = (tmp_path / "out").iterdir()
    assert len(list(folder.glob("shard-*.npy"))) == 8 and len(load(folder)[0]) == 60


def test_a_folder_that_cannot_be_written_to_is_one_error(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(HacError, match="cannot write"), open_store(tmp_path / "out", "e", 4, DOCUMENT).lock():
        pass

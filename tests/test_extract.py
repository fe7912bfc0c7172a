"""The extraction engine: only what is missing is computed, bad items are listed, and neither order nor workers matter."""

from __future__ import annotations

import hashlib
import os
import signal

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from hac_utils import extract as engine
from hac_utils.encoders import LogMelEncoder, TfidfEncoder
from hac_utils.errors import HacError
from hac_utils.extract import embed_audio, extract, sounds_in
from hac_utils.store import load


class Sensitive:
    """An encoder whose vectors depend on the id, the waveform and the whole batch, as a seeded network's last bits do."""

    name, dim, sample_rate = "sensitive", 16, 16_000

    def __init__(self, seed=0):
        self.seed, self.batches = seed, []

    def settings(self):
        return {"seed": self.seed}

    def encode(self, batch, ids):
        self.batches.append(list(ids))
        together = hashlib.sha256("".join(ids).encode()).digest()
        rows = [
            np.frombuffer(hashlib.sha256(a.tobytes() + i.encode() + together).digest()[:16], np.uint8)
            for a, i in zip(batch, ids, strict=True)
        ]
        return np.stack(rows).astype(np.float32)


class Text:
    name, dim = "text", 2

    def settings(self):
        return {}

    def encode(self, batch):
        return np.array([[len(t), t.count("a")] for t in batch], np.float32)


class Picky(Sensitive):
    """Fails on batches that hold the clip 3, and gives NaN for the clip 5."""

    name = "picky"

    def encode(self, batch, ids):
        if "3" in ids:
            raise ValueError("three is\ntoo much")
        x = super().encode(batch, ids)
        x[[i == "5" for i in ids]] = np.nan
        return x


def deadly_read(task):
    if task[0] == "9":
        os.kill(os.getpid(), signal.SIGKILL)
    return engine.read_sound(task)


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(40):
        sf.write(
            folder / f"{i}.wav",
            np.random.default_rng(i).normal(0, 0.1, 500 + 31 * i),
            (8000, 16_000, 44_100)[i % 3],
        )
    return sounds_in(folder)


def files(done):
    return {p.name: p.read_bytes() for p in done.store.folder.iterdir()}


@pytest.mark.parametrize("make", [Sensitive, LogMelEncoder])
def test_neither_order_nor_workers_change_a_byte(clips, tmp_path, make):
    settings = {"batch_size": 3, "shard_size": 16}
    one = extract(clips, make(), tmp_path / "1", workers=0, **settings)
    assert one.computed == 40 and one.reused == 0 and one.failures.empty
    backwards = extract(dict(reversed(clips.items())), make(), tmp_path / "2", workers=1, **settings)
    shuffled = {i: clips[i] for i in np.random.default_rng(0).permutation(list(clips))}
    two = extract(shuffled, make(), tmp_path / "3", workers=2, **settings)
    assert files(one) == files(backwards) == files(two)


def test_batches_never_cross_shards_and_clips_that_fail_leave_gaps_in_theirs(clips, tmp_path):
    clips["11"].write_text("no audio")
    encoder = Sensitive()
    extract(clips, encoder, tmp_path / "out", workers=0, batch_size=4, shard_size=10)
    ids = sorted(clips)
    expected = [[i for i in ids[s + k : s + min(k + 4, 10)] if i != "11"] for s in range(0, 40, 10) for k in (0, 4, 8)]
    assert encoder.batches == expected


def test_a_second_run_computes_nothing_and_leaves_every_file_as_it_is(clips, tmp_path):
    first = extract(clips, Sensitive(), tmp_path / "out", workers=0, shard_size=16)
    before, encoder = files(first), Sensitive()
    again = extract(clips, encoder, tmp_path / "out", workers=0, shard_size=16)
    assert (again.computed, again.reused, encoder.batches) == (0, 40, []) and files(again) == before
    np.testing.assert_array_equal(first.read(["7", "3"])[1], again.read(["7", "3"])[1])


def test_a_changed_file_is_noticed_whatever_its_name_size_and_time_say(clips, tmp_path):
    extract(clips, Sensitive(), tmp_path / "out", workers=0)
    stat, data = clips["8"].stat(), bytearray(clips["8"].read_bytes())
    data[-1] ^= 1
    clips["8"].write_bytes(data)
    os.utime(clips["8"], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    encoder = Sensitive()
    done = extract(clips, encoder, tmp_path / "out", workers=0)
    assert encoder.batches == [["8"]] and (done.computed, done.reused) == (1, 39)
    data[-1] ^= 1
    clips["8"].write_bytes(data)
    assert extract(clips, Sensitive(), tmp_path / "out", workers=0).computed == 0  # the old vector is still there
    ids, X = load(done.store.folder, ["8"])
    assert np.array_equal(X, extract(clips, Sensitive(), tmp_path / "new", workers=0).read(["8"])[1])
    assert len(ids) == 1


def test_other_settings_of_the_encoder_have_a_store_of_their_own(clips, tmp_path):
    a, b = (extract(clips, Sensitive(seed), tmp_path / "out", workers=0) for seed in (0, 1))
    assert a.store.folder != b.store.folder and b.computed == 40


def test_added_clips_are_computed_alone(clips, tmp_path):
    some = dict(list(clips.items())[:30])
    extract(some, Sensitive(), tmp_path / "out", workers=0, shard_size=16)
    done = extract(clips, Sensitive(), tmp_path / "out", workers=0, shard_size=16)
    assert (done.computed, done.reused) == (10, 30) and done.read(list(clips))[0] == list(clips)


def test_failures_are_listed_tried_again_and_not_written_twice(clips, tmp_path):
    whole = clips["4"].read_bytes()
    clips["4"].write_bytes(b"")
    clips["gone"] = tmp_path / "gone.wav"
    first = extract(clips, Sensitive(), tmp_path / "out", workers=0)
    assert first.failures.to_numpy().tolist() == [
        ["4", "decode", "the file is empty"],
        ["gone", "decode", "no such file"],
    ]
    before = files(first)
    again = extract(clips, Sensitive(), tmp_path / "out", workers=0)
    assert again.computed == 2 and files(again) == before
    clips["4"].write_bytes(whole)
    mended = extract(clips, Sensitive(), tmp_path / "out", workers=0)
    assert mended.failures["sound_id"].tolist() == ["gone"] and "4" in load(mended.store.folder)[0]
    assert mended.failures.equals(pd.read_parquet(mended.store.folder / "failures.parquet"))


def test_an_encoder_that_fails_on_one_clip_costs_only_that_clip(clips, tmp_path):
    done = extract(clips, Picky(), tmp_path / "out", workers=0, batch_size=8)
    reasons = done.failures.set_index("sound_id")["reason"].to_dict()
    assert set(reasons) == {"3", "5"} and set(done.failures["stage"]) == {"encode"}
    assert reasons["3"] == "the picky encoder failed: ValueError: three is" and "not finite" in reasons["5"]
    assert len(done.read(list(clips))[0]) == 38


def test_an_encoder_that_fails_on_everything_is_one_error_and_no_list(clips, tmp_path):
    class Broken(Sensitive):
        def encode(self, batch, ids):
            raise RuntimeError("no such device")

    with pytest.raises(HacError, match="RuntimeError: no such device .on each of the first 8 clips"):
        extract(clips, Broken(), tmp_path / "out", workers=0, batch_size=8)


def test_a_clip_that_kills_the_decoding_process_is_listed(clips, tmp_path, monkeypatch):
    normal = extract({i: p for i, p in clips.items()}, Sensitive(), tmp_path / "1", workers=2, batch_size=1)
    ordered = engine.ordered
    monkeypatch.setattr(engine, "ordered", lambda function, tasks, **k: ordered(deadly_read, tasks, **k))
    done = extract(clips, Sensitive(), tmp_path / "2", workers=2, batch_size=1)
    assert done.failures["sound_id"].tolist() == ["9"] and "died" in done.failures["reason"][0]
    others = [i for i in clips if i != "9"]
    np.testing.assert_array_equal(done.read(others)[1], normal.read(others)[1])


def test_ctrl_c_keeps_the_finished_shards(clips, tmp_path):
    class Interrupted(Sensitive):
        def encode(self, batch, ids):
            if len(self.batches) == 5:
                raise KeyboardInterrupt
            return super().encode(batch, ids)

    with pytest.raises(KeyboardInterrupt):
        extract(clips, Interrupted(), tmp_path / "out", workers=2, batch_size=4, shard_size=8)
    done = extract(clips, Sensitive(), tmp_path / "out", workers=0, batch_size=4, shard_size=8)
    assert (done.reused, done.computed) == (16, 24)
    assert files(done) == files(extract(clips, Sensitive(), tmp_path / "one", workers=0, batch_size=4, shard_size=8))


def test_a_fresh_start_can_be_asked_for(clips, tmp_path):
    extract(clips, Sensitive(), tmp_path / "out", workers=0)
    assert extract(clips, Sensitive(), tmp_path / "out", workers=0, resume=False).computed == 40


def test_texts_are_embedded_and_a_changed_text_is_noticed(tmp_path):
    texts = {str(i): "a" * i for i in range(5)}
    done = extract(texts, Text(), tmp_path, batch_size=2)
    assert done.read(["3", "0", "x"])[0] == ["3", "0"]
    assert done.read(["3", "0"])[1].tolist() == [[3, 3], [0, 0]]
    texts["2"] = "b"
    again = extract(texts, Text(), tmp_path)
    assert again.computed == 1 and again.read(["2"])[1].tolist() == [[1, 0]]


def test_an_encoder_that_is_fitted_per_fold_is_refused(tmp_path):
    with pytest.raises(HacError, match="fitted on the training texts"):
        extract({"a": "rain"}, TfidfEncoder(), tmp_path)


def test_no_items_at_all_give_an_empty_index(tmp_path):
    done = extract({}, Sensitive(), tmp_path)
    assert done.read([])[1].shape == (0, 16) and load(done.store.folder)[0] == []


def test_the_summary_is_one_row_for_people(clips, tmp_path):
    clips["4"].write_bytes(b"")
    table = extract(clips, Sensitive(), tmp_path / "out", workers=0).table()
    assert table.loc[0, ["encoder", "embedded", "computed now", "kept", "failed"]].tolist() == [
        "sensitive",
        39,
        40,
        0,
        1,
    ]


def test_embeddings_kept_in_a_store_are_not_computed_again(clips, tmp_path, monkeypatch):
    ids, X, _ = embed_audio(clips, "logmel", 0, store=tmp_path / "store")
    monkeypatch.setattr(LogMelEncoder, "encode", None)
    again, Y, _ = embed_audio(clips, "logmel", 0, store=tmp_path / "store")
    assert ids == again == list(clips) and X.tobytes() == Y.tobytes()


# what is to be embedded --------------------------------------------------------------------------


def test_a_folder_of_sounds_gives_safe_ids_from_the_paths(tmp_path):
    for name in (
        "a.wav",
        "sub/b.FLAC",
        "sub/deep/c d.m4a",
        "weird\n$(x).wav",
        "notes.txt",
        ".hidden.wav",
        ".git/x.wav",
        "日本.ogg",
        "y.wav/z.mp3",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = sounds_in(tmp_path)
    assert set(found) == {"a", "sub__b", "sub__deep__c_d", "weird_x_", "日本", "y", "y.wav__z"}
    assert found["sub__b"] == tmp_path / "sub" / "b.FLAC"


def test_two_files_that_would_share_an_id_both_get_their_own(tmp_path):
    for name in ("a b.wav", "a_b.wav", "a.wav", "a.mp3", "c.wav"):
        (tmp_path / name).touch()
    found = sounds_in(tmp_path)
    assert len(found) == 5 and "c" in found and not {"a", "a_b"} & set(found)
    assert sounds_in(tmp_path) == found


def test_a_dataset_folder_gives_its_own_ids(tmp_path):
    (tmp_path / "audio").mkdir()
    for name in ("1.wav", "2.wav", "not-in-the-table.wav"):
        (tmp_path / "audio" / name).touch()
    (tmp_path / "metadata.csv").write_text(
        "sound_id,class,title,tags,description\n1,fx-o,t,,\n2,fx-o,t,,\n3,fx-o,t,,\n"
    )
    assert list(sounds_in(tmp_path)) == ["1", "2"]


def test_one_file_is_a_corpus_of_one(tmp_path):
    (tmp_path / "a.wav").touch()
    assert sounds_in(tmp_path / "a.wav") == {"a": tmp_path / "a.wav"}


def test_nothing_to_embed_is_one_error(tmp_path):
    with pytest.raises(HacError, match="no sounds in the folder"):
        sounds_in(tmp_path)
    with pytest.raises(HacError, match="no such folder"):
        sounds_in(tmp_path / "absent")

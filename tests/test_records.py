"""What the records hold: the registry, the API's answer, pinned checksums."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time

import pytest

from hac_utils import records
from hac_utils.errors import HacError
from hac_utils.records import RECORDS, FileFacts

A, B = FileFacts(10, "a" * 32), FileFacts(10, "b" * 32)
BSD10K = RECORDS["bsd10k"]


def answer(*files: tuple[str, int, str]) -> dict:
    return {"files": [{"key": k, "size": s, "checksum": c, "links": {}} for k, s, c in files]}


def test_the_registry_holds_the_published_numbers_and_checksums():
    assert {r.name: (r.number, r.folder) for r in RECORDS.values()} == {
        "bsd10k": ("19868804", "BSD10k"),
        "bsd35k": ("19187100", "BSD35k-CS"),
        "eval": ("20442928", "eval"),
    }
    assert RECORDS["bsd35k"].files == {
        "metadata.zip": FileFacts(4374871, "9876254ce2ed845691a9a76efe13fe5a"),
        "audio.zip": FileFacts(35091942026, "d47968c99ad4e93a081f380b2d273acd"),
    }
    assert RECORDS["eval"].parts == ("metadata", "audio")


def test_an_unknown_data_set_gets_the_nearest_name():
    with pytest.raises(HacError, match="did you mean 'bsd35k'"):
        records.find_record("bsd35")


def test_addresses_are_built_from_the_base_so_that_a_mirror_works():
    assert records.api_url("http://m/z", BSD10K) == "http://m/z/api/records/19868804"
    expected = "http://m/z/records/19868804/files/a%20b.zip?download=1"
    assert records.file_url("http://m/z", BSD10K, "a b.zip") == expected


def test_the_base_address_comes_from_the_environment_and_must_be_one(monkeypatch):
    monkeypatch.delenv("HAC_DATA_URL", raising=False)
    assert records.base_url() == "https://zenodo.org"
    monkeypatch.setenv("HAC_DATA_URL", "http://127.0.0.1:8000/mirror/")
    assert records.base_url() == "http://127.0.0.1:8000/mirror"
    for wrong in ("zenodo.org", "ftp://x", "http://", "http://a b"):
        monkeypatch.setenv("HAC_DATA_URL", wrong)
        with pytest.raises(HacError, match="is not a web address"):
            records.base_url()


def test_the_cache_folder_comes_from_the_environment_else_from_the_system(monkeypatch, tmp_path):
    monkeypatch.setenv("HAC_CACHE", str(tmp_path / "c"))
    assert records.cache_folder() == tmp_path / "c"
    monkeypatch.delenv("HAC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert records.cache_folder() == tmp_path / "xdg" / "hac"


def test_the_listing_is_read_and_files_with_odd_names_are_left_out():
    md5 = "0123456789ABCDEF" * 2
    good = ("audio.zip", 7, f"md5:{md5}")
    for bad in ("../x.zip", "a/b", "a\\b", "C:x", ".hidden", "", "a\nb"):
        found = records.parse_listing(answer(good, (bad, 1, f"md5:{md5}")), "here")
        assert found == {"audio.zip": FileFacts(7, md5.lower())}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "text",
        {},
        {"files": None},
        {"files": []},
        {"files": [{"key": "a.zip"}]},
        {"files": [1]},
        answer(("a.zip", 1, "sha256:00")),
        answer(("a.zip", 1, "md5:short")),
        answer(("a.zip", "many", "md5:" + "0" * 32)),
    ],
    ids=repr,
)
def test_an_answer_that_is_no_record_is_one_clear_error(wrong):
    with pytest.raises(HacError, match="does not describe a record") as caught:
        records.parse_listing(wrong, "http://x/api")
    assert caught.value.where == "http://x/api"


def test_a_part_is_its_zip_or_the_only_zip_that_names_it():
    record = RECORDS["eval"]
    assert records.part_file(record, "audio", ["x_audio.zip", "audio.zip"], "w") == "audio.zip"
    names = ["eval_Audio.zip", "eval_metadata.zip", "metadata.md"]
    assert records.part_file(record, "audio", names, "w") == "eval_Audio.zip"
    assert records.part_file(record, "metadata", names, "w") == "eval_metadata.zip"
    for names in (["a_audio.zip", "b_audio.zip"], ["README.md"], []):
        with pytest.raises(HacError, match="no audio.zip in the record of eval") as caught:
            records.part_file(record, "audio", names, "w")
        assert all(name in caught.value.fix for name in names)


def test_a_pin_is_remembered_with_the_file_it_was_checked_on(tmp_path):
    path = tmp_path / "metadata.zip"
    path.write_bytes(b"0123456789")
    assert records.known_facts(tmp_path, BSD10K, "metadata.zip") is None
    assert not records.is_verified(tmp_path, BSD10K, "metadata.zip", path)
    records.pin(tmp_path, BSD10K, "metadata.zip", A, path)
    assert records.known_facts(tmp_path, BSD10K, "metadata.zip") == A
    assert records.pinned_names(tmp_path, BSD10K) == ["metadata.zip"]
    assert records.pinned_names(tmp_path, RECORDS["bsd35k"]) == ["audio.zip", "metadata.zip"]
    assert records.is_verified(tmp_path, BSD10K, "metadata.zip", path)
    os.utime(path, ns=(0, 12345))
    assert not records.is_verified(tmp_path, BSD10K, "metadata.zip", path)
    path.unlink()
    assert not records.is_verified(tmp_path, BSD10K, "metadata.zip", path)


def test_the_registry_stands_above_a_pin(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    records.pin(tmp_path, RECORDS["bsd35k"], "metadata.zip", A, path)
    assert records.known_facts(tmp_path, RECORDS["bsd35k"], "metadata.zip").size == 4374871
    assert not records.is_verified(tmp_path, RECORDS["bsd35k"], "metadata.zip", path)


def test_a_changed_checksum_is_an_error_that_says_so_and_how_to_go_on(tmp_path):
    records.check_against_known(tmp_path, BSD10K, "metadata.zip", A, None, "w")
    records.check_against_known(tmp_path, BSD10K, "metadata.zip", A, A, "w")
    with pytest.raises(HacError, match="pinned at the first download") as caught:
        records.check_against_known(tmp_path, BSD10K, "metadata.zip", B, A, "w")
    assert "a" * 32 in caught.value.what and "b" * 32 in caught.value.what
    assert "pins.json" in caught.value.fix and "19868804/metadata.zip" in caught.value.fix
    known = RECORDS["bsd35k"].files["metadata.zip"]
    with pytest.raises(HacError, match="published: md5 9876254c") as caught:
        records.check_against_known(tmp_path, RECORDS["bsd35k"], "metadata.zip", B, known, "w")
    assert "https://zenodo.org" in caught.value.fix


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"1/a": {"md5": "x", "size": "1"}}', "\0"])
def test_a_damaged_pins_file_is_one_clear_error(tmp_path, content):
    (tmp_path / "pins.json").write_text(content)
    with pytest.raises(HacError) as caught:
        records.known_facts(tmp_path, BSD10K, "metadata.zip")
    assert "pins.json" in caught.value.where and "delete it" in caught.value.fix


def _pin_many(cache, start, barrier):
    barrier.wait(60)
    for i in range(start, start + 15):
        path = cache / f"f{i}"
        path.write_bytes(b"x")
        records.pin(cache, BSD10K, path.name, FileFacts(1, f"{i:032x}"), path)


def test_processes_that_pin_at_once_lose_no_pin(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_pin_many, args=(tmp_path, start, barrier)) for start in (0, 100)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert [w.exitcode for w in workers] == [0, 0]
    assert len(json.loads((tmp_path / "pins.json").read_text())) == 30


def test_a_lock_makes_the_second_one_wait(tmp_path, caplog):
    order, path = [], tmp_path / "new" / "file"

    def second():
        with records.locked(path):
            order.append("second")

    with records.locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"] and "waiting for it" in caplog.text


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HacError, match="cannot write"), records.locked(tmp_path / "file" / "x"):
        pass

"""Files come whole and verified under their final name, or not at all, whatever the server does."""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from record_server import RecordServer, Seen, make_record, write_zip

from hac_utils import fetch as module
from hac_utils import records, synth
from hac_utils.errors import HacError
from hac_utils.fetch import fetch, get

NAME = "metadata.zip"
DATA = random.Random(0).randbytes(1_000_003)

#: The command of a person, in a process of its own.
COMMAND = """
import sys
from hac_utils import fetch
from hac_utils.errors import HacError
fetch.BACKOFF = 0.01
try:
    print(fetch.fetch("bsd10k", "metadata.zip"))
except HacError as e:
    print(e, file=sys.stderr)
    sys.exit(2)
"""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "BACKOFF", 0.001)


@pytest.fixture
def server(tmp_path, monkeypatch):
    folder = tmp_path / "root" / "19868804"
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(DATA)
    with RecordServer(tmp_path / "root") as running:
        monkeypatch.setenv("HAC_DATA_URL", running.url)
        yield running


@pytest.fixture
def final(tmp_path) -> Path:
    return tmp_path / "cache" / "records" / "19868804" / NAME


def part_of(final: Path) -> Path:
    return final.parent / f".{NAME}.part"


def start() -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_file_comes_whole_and_is_pinned_and_the_second_call_asks_nobody(server, final, tmp_path):
    assert fetch("bsd10k", NAME) == final
    assert final.read_bytes() == DATA
    assert server.log == [Seen("api", "", 200), Seen(NAME, "", 200)]
    pins = json.loads((tmp_path / "cache" / "pins.json").read_text())
    assert pins[f"19868804/{NAME}"]["md5"] == hashlib.md5(DATA).hexdigest()
    assert pins[f"19868804/{NAME}"]["size"] == len(DATA)
    assert fetch("bsd10k", NAME) == fetch("bsd10k", NAME, offline=True) == final
    assert len(server.log) == 2
    assert sorted(p.name for p in final.parent.iterdir()) == [f".{NAME}.lock", NAME]


def test_cache_and_base_can_be_given(server, tmp_path, monkeypatch):
    monkeypatch.delenv("HAC_DATA_URL")
    path = fetch("bsd10k", NAME, cache=tmp_path / "other", base=server.url + "/")
    assert path.is_relative_to(tmp_path / "other") and path.read_bytes() == DATA


def test_a_dropped_connection_resumes_where_it_broke(server, final):
    server.drop(NAME, at=0.4)
    assert fetch("bsd10k", NAME).read_bytes() == DATA
    first, second = server.requests(NAME)
    assert (first.range, first.status, second.status) == ("", 200, 206)
    assert 300_000 < int(second.range.removeprefix("bytes=").removesuffix("-")) <= 400_001
    assert not part_of(final).exists()


def test_many_drops_that_each_bring_something_are_no_reason_to_give_up(server):
    server.drop(NAME, at=0.2, times=9)
    assert fetch("bsd10k", NAME).read_bytes() == DATA
    assert len(server.requests(NAME)) == 10


def test_a_server_without_range_sends_everything_again(server, caplog):
    server.no_range = True
    server.drop(NAME, at=0.4)
    assert fetch("bsd10k", NAME).read_bytes() == DATA
    assert [s.status for s in server.requests(NAME)] == [200, 200]
    assert server.requests(NAME)[1].range != "" and "does not resume" in caplog.text


def test_a_server_without_range_that_always_drops_ends_in_an_error(server, final):
    server.no_range = True
    server.drop(NAME, at=0.4, times=100)
    with pytest.raises(HacError, match="gave up after 6 attempts") as caught:
        fetch("bsd10k", NAME)
    assert "HAC_DATA_URL" in caught.value.fix and not final.exists()
    assert len(server.requests(NAME)) == 6


def test_one_wrong_checksum_is_mended_from_zero(server, caplog):
    server.garble(NAME)
    assert fetch("bsd10k", NAME).read_bytes() == DATA
    assert server.requests(NAME) == [Seen(NAME, "", 200)] * 2 and "wrong checksum" in caplog.text


def test_two_wrong_checksums_are_an_error_and_leave_no_file(server, final, tmp_path):
    server.garble(NAME, times=2)
    with pytest.raises(HacError, match="wrong checksum, twice") as caught:
        fetch("bsd10k", NAME)
    assert hashlib.md5(DATA).hexdigest() in caught.value.what and caught.value.where.startswith(server.url)
    assert not final.exists() and not part_of(final).exists()
    assert not (tmp_path / "cache" / "pins.json").exists()
    assert fetch("bsd10k", NAME).read_bytes() == DATA


def test_an_old_part_of_another_file_is_found_out_and_fetched_from_zero(server, final):
    final.parent.mkdir(parents=True)
    part_of(final).write_bytes(b"x" * 5000)
    assert fetch("bsd10k", NAME).read_bytes() == DATA
    assert [s.range for s in server.requests(NAME)] == ["bytes=5000-", ""]


@pytest.mark.parametrize("extra", [0, 1, 10**6])
def test_a_complete_part_needs_no_request_and_a_longer_one_is_dropped(server, final, extra):
    final.parent.mkdir(parents=True)
    part_of(final).write_bytes(DATA + bytes(extra))
    assert fetch("bsd10k", NAME).read_bytes() == DATA
    assert server.requests(NAME) == ([Seen(NAME, "", 200)] if extra else [])


def test_a_range_that_the_server_refuses_starts_over(server, final):
    final.parent.mkdir(parents=True)
    part_of(final).write_bytes(DATA[:5000])
    server.answer(NAME, 416)
    assert fetch("bsd10k", NAME).read_bytes() == DATA
    assert [s.range for s in server.requests(NAME)] == ["bytes=5000-", ""]


def test_a_part_of_something_else_starts_over(server, final):
    final.parent.mkdir(parents=True)
    part_of(final).write_bytes(DATA[:5000])
    server.answer(NAME, 206, headers={"Content-Range": "bytes 0-7/8"})
    assert fetch("bsd10k", NAME).read_bytes() == DATA
    assert [s.range for s in server.requests(NAME)] == ["bytes=5000-", ""]


def test_too_many_requests_then_success_waits_as_asked(server, monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    server.answer("api", 429, headers={"Retry-After": "7"})
    server.answer(NAME, 429, headers={"Retry-After": "100000"})
    server.answer(NAME, 503)
    assert fetch("bsd10k", NAME).read_bytes() == DATA
    assert waits == [7.0, 120.0, 0.002]
    assert [s.status for s in server.log] == [429, 200, 429, 503, 200]


def test_retry_after_may_be_a_date():
    soon = module._retry_after(email.utils.format_datetime(email.utils.localtime()))
    assert soon == pytest.approx(0, abs=2)
    later = email.utils.formatdate(time.time() + 50, usegmt=True)
    assert module._retry_after(later) == pytest.approx(50, abs=2)
    assert [module._retry_after(v) for v in ("", "soon", "-5", "12")] == [None, None, None, 12.0]


def test_waits_double_and_end_in_one_error(server, final, monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    monkeypatch.setattr(module, "BACKOFF", 1.0)
    server.answer(NAME, 500, times=100)
    with pytest.raises(HacError, match="gave up after 6 attempts: the server says 500"):
        fetch("bsd10k", NAME)
    assert waits == [1, 2, 4, 8, 16] and not final.exists()


def test_no_server_at_all_is_one_clear_error(final, monkeypatch):
    monkeypatch.setenv("HAC_DATA_URL", "http://127.0.0.1:9")
    with pytest.raises(HacError, match="gave up after 6 attempts: .*refused") as caught:
        fetch("bsd10k", NAME)
    assert "check the network" in caught.value.fix and not final.exists()


def test_a_server_that_falls_silent_is_tried_again(server, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", (5.0, 0.5))
    server.delay = 1.2
    sleep = time.sleep

    def wake_up(seconds):
        server.delay = 0.0
        sleep(seconds)

    monkeypatch.setattr(module.time, "sleep", wake_up)
    server.drop(NAME, at=0.05)  # the slow first answer need not be sent to its end
    assert fetch("bsd10k", NAME).read_bytes() == DATA
    assert len(server.requests(NAME)) >= 2 and server.delay == 0.0


@pytest.mark.parametrize("name", ["api", NAME])
@pytest.mark.parametrize("status", [404, 403])
def test_a_refusal_is_one_clear_error_at_once(server, final, name, status):
    server.answer(name, status, times=100)
    with pytest.raises(HacError, match=f"the server says {status}") as caught:
        fetch("bsd10k", NAME)
    assert caught.value.where.startswith(server.url) and caught.value.fix
    assert len(server.requests(name)) == 1 and not final.exists() and not part_of(final).exists()


def test_a_file_that_the_record_lacks_is_named_with_those_it_holds(server):
    with pytest.raises(HacError, match="no video.zip in the record of bsd10k") as caught:
        fetch("bsd10k", "video.zip")
    assert caught.value.fix == f"the record holds: {NAME}"


def test_a_page_instead_of_a_record_is_one_clear_error(server, final):
    server.answer("api", 200, times=2)
    with pytest.raises(HacError, match="does not describe a record"):
        fetch("bsd10k", NAME)
    assert not final.exists()


def test_a_page_instead_of_the_file_is_one_clear_error_and_keeps_the_part(server, final):
    final.parent.mkdir(parents=True)
    part_of(final).write_bytes(DATA[:5000])
    server.answer(NAME, 200)
    with pytest.raises(HacError, match="the server offers 8 bytes, expected 1,000,003"):
        fetch("bsd10k", NAME)
    assert part_of(final).read_bytes() == DATA[:5000] and not final.exists()


def test_a_changed_checksum_at_the_record_is_an_error_before_any_download(server, final, tmp_path):
    fetch("bsd10k", NAME)
    final.unlink()
    (tmp_path / "root" / "19868804" / NAME).write_bytes(DATA[::-1])
    with pytest.raises(HacError, match="pinned at the first download"):
        fetch("bsd10k", NAME)
    assert len(server.requests(NAME)) == 1 and not final.exists()


def test_a_mirror_with_another_file_than_the_published_one_is_refused_before_any_download(
    server, tmp_path, monkeypatch
):
    """A test server on this machine may serve small stand-ins; a mirror elsewhere may not."""
    folder = tmp_path / "root" / "19187100"
    write_zip(folder.mkdir() or folder / NAME, {"a": b"b"})
    monkeypatch.setattr(records, "is_local", lambda: False)
    with pytest.raises(HacError, match="published: md5 9876254ce2ed845691a9a76efe13fe5a"):
        fetch("bsd35k", NAME)
    assert server.requests(NAME) == []


def test_a_mirror_without_the_api_does_where_the_checksum_is_known(server, final):
    fetch("bsd10k", NAME)
    final.unlink()
    server.answer("api", 404)
    assert fetch("bsd10k", NAME).read_bytes() == DATA


def test_offline_and_absent_is_an_error_that_names_the_command(server, final):
    for name in (NAME, "audio.zip"):
        with pytest.raises(HacError, match="--offline allows no download") as caught:
            fetch("bsd10k", name, offline=True)
        assert caught.value.fix.startswith("hac data get bsd10k" + (" --audio " if name != NAME else " "))
    assert server.log == [] and not final.exists()


def test_a_file_put_there_by_hand_is_checked_and_then_used(server, final):
    final.parent.mkdir(parents=True)
    final.write_bytes(DATA)
    with pytest.raises(HacError, match="cannot be verified"):
        fetch("bsd10k", NAME, offline=True)
    assert fetch("bsd10k", NAME) == final
    assert server.log == [Seen("api", "", 200)]
    os.utime(final, ns=(1, 1))  # a copy of the cache has other times; it is hashed, not fetched
    assert fetch("bsd10k", NAME, offline=True) == final and len(server.log) == 1


def test_a_file_that_was_changed_is_fetched_again(server, final, caplog):
    fetch("bsd10k", NAME)
    final.write_bytes(DATA[:-1] + b"!")
    os.utime(final, ns=(1, 1))
    with pytest.raises(HacError, match="cannot be verified"):
        fetch("bsd10k", NAME, offline=True)
    assert fetch("bsd10k", NAME).read_bytes() == DATA and "not the published file" in caplog.text


def test_two_processes_at_once_download_once(server, final):
    server.delay = 0.25  # until the second one is seen to wait
    first = start()
    wait_for_part(final, first, size=1)
    second = start()
    assert "another process is at work" in second.stderr.readline()
    server.delay = 0.0
    ends = [(p.communicate(timeout=60)[0].strip(), p.returncode) for p in (first, second)]
    assert ends == [(str(final), 0)] * 2
    assert final.read_bytes() == DATA and server.requests(NAME) == [Seen(NAME, "", 200)]


def wait_for_part(final: Path, process: subprocess.Popen, size: int) -> None:
    deadline = time.time() + 60
    while not (part_of(final).exists() and part_of(final).stat().st_size >= size):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.01)


def test_a_killed_download_goes_on_with_the_same_command(server, final):
    server.delay = 0.03  # 2 seconds for the file
    first = start()
    wait_for_part(final, first, size=300_000)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=10)
    assert first.returncode == -signal.SIGKILL and not final.exists()
    had = part_of(final).stat().st_size
    server.delay = 0.0
    second = start()
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert final.read_bytes() == DATA and not part_of(final).exists()
    assert server.requests(NAME)[-1] == Seen(NAME, f"bytes={had}-", 206)


def test_no_space_is_said_before_the_download(server, final, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=999))
    with pytest.raises(HacError, match="GB to fetch"):
        fetch("bsd10k", NAME)
    assert server.requests(NAME) == [] and not final.exists()


def test_a_write_that_fails_is_one_clear_error_and_the_part_is_used_later(server, final):
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))\n"
    done = subprocess.run(
        [sys.executable, "-c", limit + COMMAND], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"error: cannot write {NAME}: File too large") and "fix:" in done.stderr
    assert not final.exists() and part_of(final).stat().st_size <= 400_000
    assert fetch("bsd10k", NAME).read_bytes() == DATA
    assert server.requests(NAME)[-1].status == 206


def test_a_disk_that_fills_is_one_clear_error(server, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=10**9))
        with pytest.raises(HacError, match=f"cannot write {NAME}: No space left on device") as caught:
            fetch("bsd10k", NAME, cache=disk)
        assert "free some space" in caught.value.fix
        assert not (disk / "records" / "19868804" / NAME).exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_where_nothing_can_be_written_is_one_clear_error(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HacError, match="cannot write"):
        fetch("bsd10k", NAME, cache=tmp_path / "file")


# data sets ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    synth.generate(folder, clips=23, noisy=12, evaluation=5, workers=1)
    return folder


@pytest.fixture
def zenodo(demo, tmp_path, monkeypatch):
    root = tmp_path / "zenodo"
    make_record(root / "19868804", demo / "BSD10k")
    make_record(root / "20442928", demo / "eval", features=False, wrap=False)
    with RecordServer(root) as running:
        monkeypatch.setenv("HAC_DATA_URL", running.url)
        yield running


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if not p.name.startswith(".")}


def test_a_data_set_arrives_in_the_official_layout_without_audio(zenodo, demo, tmp_path):
    assert get(["bsd10k"]) == {"bsd10k": tmp_path / "cache" / "data" / "BSD10k"}
    folder = tmp_path / "cache" / "data" / "BSD10k"
    assert sorted(files_and_folders(folder)) == ["features", "metadata"]
    assert files(folder / "metadata") == files(demo / "BSD10k" / "metadata")
    ids = {p.stem for p in (demo / "BSD10k" / "audio").iterdir()}
    for modality in ("audio", "text"):
        vectors = folder / "features" / f"clap_{modality}_embeddings"
        assert {p.stem for p in vectors.iterdir()} == ids
        for path in vectors.iterdir():
            vector = np.load(path, allow_pickle=False)
            assert vector.shape == (512,) and vector.dtype == np.float32
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert zenodo.requests("audio.zip") == []


def files_and_folders(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if not p.name.startswith(".")]


def test_audio_comes_later_and_only_once_and_then_nobody_is_asked(zenodo, demo, tmp_path):
    get(["bsd10k"])
    before = len(zenodo.log)
    folder = get(["bsd10k"], audio=True)["bsd10k"]
    assert files(folder / "audio") == files(demo / "BSD10k" / "audio")
    assert {s.name for s in zenodo.log[before:]} == {"api", "audio.zip"}
    before = len(zenodo.log)
    shutil.rmtree(tmp_path / "cache" / "records")  # the zips are not needed any more
    assert get(["bsd10k"], audio=True, offline=True) == {"bsd10k": folder}
    assert len(zenodo.log) == before


def test_the_evaluation_set_has_no_features_and_its_zips_may_have_other_names(zenodo, demo, tmp_path):
    record = tmp_path / "zenodo" / "20442928"
    for part in ("metadata", "audio"):
        (record / f"{part}.zip").rename(record / f"BSD_eval_{part}.zip")
    folder = get(["eval", "eval"], audio=True, data_root=tmp_path / "here")["eval"]
    assert folder == tmp_path / "here" / "eval"
    assert sorted(files_and_folders(folder)) == ["audio", "metadata"]
    assert files(folder / "audio") == files(demo / "eval" / "audio")
    shutil.rmtree(folder)
    before = len(zenodo.log)
    get(["eval"], audio=True, offline=True, data_root=tmp_path / "here")
    assert files(folder / "metadata") == files(demo / "eval" / "metadata") and len(zenodo.log) == before


def test_several_data_sets_come_with_one_call(zenodo, demo, tmp_path):
    make_record(tmp_path / "zenodo" / "19187100", demo / "BSD35k-CS", audio=False)
    folders = get(["bsd10k", "bsd35k"])
    assert [f.name for f in folders.values()] == ["BSD10k", "BSD35k-CS"]
    assert files(folders["bsd35k"] / "metadata") == files(demo / "BSD35k-CS" / "metadata")


def test_offline_with_nothing_here_and_unknown_names_are_clear_errors(zenodo):
    with pytest.raises(HacError, match="metadata.zip of bsd10k is not here"):
        get(["bsd10k"], offline=True)
    with pytest.raises(HacError, match="did you mean 'bsd10k'"):
        get(["eval", "bsd10"])
    assert zenodo.log == []


def test_a_dangerous_zip_in_a_record_leaves_no_folder(zenodo, tmp_path):
    write_zip(tmp_path / "zenodo" / "19868804" / "metadata.zip", {"../../evil.csv": b"x", "a.csv": b"y"})
    with pytest.raises(HacError, match="would leave the folder"):
        get(["bsd10k"])
    assert files_and_folders(tmp_path / "cache" / "data" / "BSD10k") == []
    assert not list(tmp_path.rglob("evil.csv"))


def test_the_same_record_has_the_same_bytes_when_made_again(demo, tmp_path):
    one, two = (make_record(tmp_path / n, demo / "BSD10k") for n in "12")
    assert files(one) == files(two) and set(files(one)) == {
        "README.md",
        "metadata.zip",
        "features.zip",
        "audio.zip",
    }

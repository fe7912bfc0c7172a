"""Files are written whole or not at all; broken files give one clear error."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from io import FileIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hac_utils import io
from hac_utils.errors import HacError
from hac_utils.paths import RunPaths
from hac_utils.results import hash_files, load_results, package_versions, save_results

RNG = np.random.default_rng([0, 1])
BIG_FRAME = pd.DataFrame(RNG.random((20_000, 4)), columns=list("abcd"))
BIG_ARRAY = RNG.random(100_000)
WRITERS = {
    "x.bin": lambda p: io.write_bytes(p, bytes(500_000)),
    "x.json": lambda p: io.write_json(p, BIG_ARRAY),
    "x.csv": lambda p: io.write_csv(p, BIG_FRAME),
    "x.parquet": lambda p: io.write_parquet(p, BIG_FRAME),
    "x.npy": lambda p: io.write_npy(p, BIG_ARRAY),
}


@pytest.fixture(scope="module")
def tiny_disk(tmp_path_factory):
    """A real file system of 64 KiB."""
    folder = tmp_path_factory.mktemp("tiny")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as e:
        pytest.skip(f"no mount command: {e}")
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def hidden_files(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".tmp") or p.name.startswith(".")]


# a full disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_a_really_full_disk_gives_one_error_and_leaves_no_file(name, tiny_disk):
    with pytest.raises(HacError) as e:
        WRITERS[name](tiny_disk / name)
    assert "cannot write" in e.value.what and e.value.where.endswith(name) and e.value.fix
    assert list(tiny_disk.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_really_full_disk_leaves_the_old_file_as_it_was(name, tiny_disk):
    target = tiny_disk / name
    target.write_bytes(b"old")
    with pytest.raises(HacError):
        WRITERS[name](target)
    assert target.read_bytes() == b"old" and [p.name for p in tiny_disk.iterdir()] == [name]
    target.unlink()


def test_the_file_size_limit_of_a_process_gives_one_error_and_leaves_no_file(tmp_path):
    code = """
        import resource, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_io import WRITERS
        from hac_utils.errors import HacError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        for name, write in WRITERS.items():
            try:
                write(Path(sys.argv[1]) / name)
                print(name, "written")
            except HacError as e:
                print(name, e.what)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == len(WRITERS), done.stderr
    assert all("cannot write" in line for line in lines), lines
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("name", WRITERS)
def test_a_failing_flush_to_disk_keeps_the_old_file(name, code, tmp_path, monkeypatch):
    def full(_):
        raise OSError(code, os.strerror(code))

    target = tmp_path / name
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HacError, match=os.strerror(code)):
        WRITERS[name](target)
    monkeypatch.undo()
    assert target.read_bytes() == b"old" and hidden_files(tmp_path) == []


@pytest.mark.parametrize("name", ["x.bin", "x.json", "x.csv"])
def test_a_file_object_that_writes_half_and_then_fails_keeps_the_old_file(name, tmp_path, monkeypatch):
    class HalfFile(FileIO):
        def write(self, data):
            super().write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / name).write_bytes(b"old")
    monkeypatch.setattr(io, "open", HalfFile, raising=False)
    with pytest.raises(HacError, match="cannot write: No space left"):
        WRITERS[name](tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"old" and hidden_files(tmp_path) == []


def test_a_write_that_stops_half_way_leaves_neither_a_final_nor_a_temporary_file(tmp_path):
    with pytest.raises(HacError, match="No space left"), io.atomic_path(tmp_path / "a.txt") as tmp:
        tmp.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), FileNotFoundError(errno.ENOENT, "gone")])
def test_other_errors_of_the_block_pass_through_and_leave_nothing(error, tmp_path):
    with pytest.raises(type(error)), io.atomic_path(tmp_path / "a.txt") as tmp:
        tmp.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file/x.json", "folder", "x" * 300 + ".json"])
def test_a_place_that_cannot_be_written_is_one_error(place, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(HacError, match="cannot write"):
        io.write_json(tmp_path / place, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


# what is written ---------------------------------------------------------------------------------


def test_written_files_appear_under_their_name_with_the_usual_permissions(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    io.write_text(target, "é\n")
    plain = tmp_path / "plain"
    plain.touch()
    assert target.read_bytes() == "é\n".encode() and list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("name", WRITERS)
def test_writing_twice_gives_the_same_bytes(name, tmp_path):
    for folder in ("a", "b"):
        WRITERS[name](tmp_path / folder / name)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_json_has_sorted_keys_full_precision_and_plain_values(tmp_path):
    value = {
        "b": np.float64(0.1) + 0.2,
        "a": np.arange(2),
        "p": Path("x/y"),
        "n": np.int64(3),
        "t": (True, None),
    }
    io.write_json(tmp_path / "x.json", value)
    back = io.read_json(tmp_path / "x.json")
    assert back == {"a": [0, 1], "b": 0.1 + 0.2, "n": 3, "p": "x/y", "t": [True, None]} and list(back) == sorted(back)
    with pytest.raises(ValueError):
        io.write_json(tmp_path / "nan.json", {"x": float("nan")})
    assert not (tmp_path / "nan.json").exists()


def test_tables_and_arrays_come_back_equal(tmp_path):
    frame = pd.DataFrame({"id": ["1", "2"], "x": [0.1, np.nan], "n": [1, 2]})
    io.write_parquet(tmp_path / "t.parquet", frame)
    pd.testing.assert_frame_equal(io.read_table(tmp_path / "t.parquet"), frame)
    io.write_npy(tmp_path / "a.npy", BIG_ARRAY.reshape(-1, 10).T)
    assert np.array_equal(io.read_npy(tmp_path / "a.npy"), BIG_ARRAY.reshape(-1, 10).T)


# what is read ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.CSV", "t.tsv"])
def test_csv_cells_are_text_and_empty_cells_are_empty_strings(name, tmp_path):
    sep = "\t" if name.endswith("tsv") else ","
    rows = [["sound_id", "title", "tags"], ["007", "NA", ""], ["1e5", "nan", "null"], ["9"]]
    (tmp_path / name).write_text("\n".join(sep.join(r) for r in rows) + "\n", encoding="utf-8-sig")
    frame = io.read_table(tmp_path / name)
    assert frame.columns.tolist() == rows[0]
    assert frame.to_numpy().tolist() == [["007", "NA", ""], ["1e5", "nan", "null"], ["9", "", ""]]


def test_rows_with_more_fields_than_the_header_are_refused_not_shifted(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2,3\n4,5,6\n")
    with pytest.raises(HacError, match="more fields"):
        io.read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("absent.csv", None),
        ("empty.csv", b""),
        ("latin.csv", "a,b\nü,1\n".encode("latin-1")),
        ("quote.csv", b'a,b\n"1,2\n'),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n"),
        ("t.xlsx", b"PK"),
        ("t", b"a,b"),
        ("text.parquet", b"a,b\n1,2\n"),
        ("empty.parquet", b""),
    ],
)
def test_a_table_that_cannot_be_read_is_one_error_naming_the_file(name, data, tmp_path):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(HacError) as e:
        io.read_table(tmp_path / name)
    assert e.value.where == str(tmp_path / name) and "\n" not in e.value.what


def test_a_folder_in_the_place_of_a_file_is_one_error(tmp_path):
    for name, read in (
        ("d.csv", io.read_table),
        ("d.parquet", io.read_table),
        ("d.json", io.read_json),
        ("d.npy", io.read_npy),
    ):
        (tmp_path / name).mkdir()
        with pytest.raises(HacError):
            read(tmp_path / name)


def test_a_parquet_file_cut_anywhere_is_one_error(tmp_path):
    io.write_parquet(tmp_path / "t.parquet", BIG_FRAME.head(50))
    data = (tmp_path / "t.parquet").read_bytes()
    for cut in np.linspace(0, len(data) - 1, 15).astype(int):
        (tmp_path / "cut.parquet").write_bytes(data[:cut])
        with pytest.raises(HacError):
            io.read_table(tmp_path / "cut.parquet")


def test_an_array_cut_anywhere_or_with_a_broken_header_is_one_error_or_an_array(tmp_path):
    io.write_npy(tmp_path / "a.npy", BIG_ARRAY[:50])
    data = (tmp_path / "a.npy").read_bytes()
    for cut in range(0, len(data), 7):
        (tmp_path / "cut.npy").write_bytes(data[:cut])
        with pytest.raises(HacError):
            io.read_npy(tmp_path / "cut.npy")
    for i in range(128):
        for flip in (1, 0x80):
            (tmp_path / "b.npy").write_bytes(data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :])
            try:
                assert isinstance(io.read_npy(tmp_path / "b.npy"), np.ndarray)
            except HacError:
                pass


def test_pickled_arrays_and_archives_are_refused(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "z.npz", a=np.arange(3))
    (tmp_path / "z.npz").rename(tmp_path / "z.npy")
    for name in ("o.npy", "z.npy", "absent.npy"):
        with pytest.raises(HacError):
            io.read_npy(tmp_path / name)


@pytest.mark.parametrize("data", [None, b"", b"{", b"\xff\xfe", b"{'a': 1}"])
def test_json_that_cannot_be_read_is_one_error(data, tmp_path):
    if data is not None:
        (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(HacError) as e:
        io.read_json(tmp_path / "x.json")
    assert e.value.where.endswith("x.json")


def test_hashes_are_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert io.sha256_file(tmp_path / "a") == io.sha256_text("abc") == known


# results -----------------------------------------------------------------------------------------


def test_results_are_returned_as_read_back_and_missing_ones_name_the_notebook(tmp_path):
    paths = RunPaths("r", tmp_path)
    assert save_results(paths, "02_heads", {"x": (np.float64(0.5),)}) == {"x": [0.5]}
    assert load_results(paths, "02_heads") == {"x": [0.5]}
    with pytest.raises(HacError) as e:
        load_results(paths, "01_extraction")
    assert "01_extraction" in e.value.what and e.value.where == "runs/r/results/01_extraction.json"
    listed = hash_files(paths, [paths.results / "02_heads.json"])
    assert list(listed) == ["runs/r/results/02_heads.json"]
    assert package_versions()["numpy"] == np.__version__

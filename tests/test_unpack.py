"""Zips are checked before anything is written, and unpacked whole or not at all."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from record_server import write_zip

from hac_utils import unpack as module
from hac_utils.errors import HacError
from hac_utils.records import PARTS, Limits
from hac_utils.unpack import STAMP, is_unpacked, unpack

FILES = {"BSD10k_metadata.csv": b"sound_id,class\n1,fx-o\n", "BST_description.csv": b"x\n"}
LIMITS = Limits(total=10_000_000, tiny=100_000, keep=("clap_audio_embeddings",))


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != STAMP and not p.name.endswith(".lock")
    }


def zip_of(path: Path, *members: tuple[str, bytes] | tuple[str, bytes, int]) -> Path:
    """A zip with members as given, however odd; the third value is the Unix mode."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data, *mode in members:
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (mode[0] if mode else 0o100644) << 16
            opened.writestr(info, data)
    return path


def go(archive: Path, target: Path, limits: Limits = LIMITS) -> list[Path]:
    return unpack(archive, target, limits=limits, source="1")


def refused(archive: Path, target: Path, words: str, limits: Limits = LIMITS) -> HacError:
    """Unpacking fails with one clear error and leaves nothing, in the folder or beside it."""
    with pytest.raises(HacError, match=words) as caught:
        go(archive, target, limits)
    assert not target.exists()
    assert {p.name for p in target.parent.iterdir()} <= {archive.name, f".{target.name}.lock"}
    assert caught.value.where and caught.value.fix
    return caught.value


@pytest.mark.parametrize("wrap", ["", "metadata", "BSD10k/metadata", "other"])
def test_a_folder_around_all_members_makes_no_difference(tmp_path, wrap):
    archive = write_zip(tmp_path / "m.zip", FILES, wrap=wrap)
    target = tmp_path / "d" / "metadata"
    assert go(archive, target) == sorted(target / name for name in FILES)
    assert tree(target) == FILES and is_unpacked(target, "1") and not is_unpacked(target, "2")


@pytest.mark.parametrize("wrap", ["", "features", "BSD10k/features"])
@pytest.mark.parametrize("both", [True, False])
def test_folders_of_the_layout_stay(tmp_path, wrap, both):
    files = {"clap_audio_embeddings/1.npy": b"a"} | ({"clap_text_embeddings/1.npy": b"t"} if both else {})
    archive = write_zip(tmp_path / "f.zip", files, wrap=wrap)
    unpack(archive, tmp_path / "features", limits=PARTS["features"], source="1")
    assert tree(tmp_path / "features") == files


def test_what_macos_adds_is_skipped(tmp_path):
    litter = {"__MACOSX/._a.csv": b"", "metadata/.DS_Store": b"", "metadata/._BSD10k_metadata.csv": b""}
    archive = write_zip(tmp_path / "m.zip", {f"metadata/{n}": d for n, d in FILES.items()} | litter)
    go(archive, tmp_path / "metadata")
    assert tree(tmp_path / "metadata") == FILES


def test_folder_members_and_sub_folders_are_fine(tmp_path):
    archive = zip_of(tmp_path / "m.zip", ("m/", b"", 0o040755), ("m/a", b"1"), ("m/s/", b""), ("m/s/b", b"2"))
    go(archive, tmp_path / "metadata")
    assert tree(tmp_path / "metadata") == {"a": b"1", "s/b": b"2"}


def test_a_second_run_touches_nothing(tmp_path):
    archive = write_zip(tmp_path / "m.zip", FILES)
    target = tmp_path / "metadata"
    first = go(archive, target)
    before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in target.iterdir()}
    assert go(archive, target) == first
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in target.iterdir()} == before


@pytest.mark.parametrize("harm", ["lost", "cut", "added", "stamp"])
def test_a_folder_that_was_harmed_is_unpacked_again(tmp_path, harm):
    archive = write_zip(tmp_path / "m.zip", FILES)
    target = tmp_path / "metadata"
    go(archive, target)
    victim = target / "BSD10k_metadata.csv"
    if harm == "lost":
        victim.unlink()
    elif harm == "cut":
        victim.write_bytes(b"")
    elif harm == "added":
        (target / "x").write_bytes(b"x")
    else:
        (target / STAMP).write_text('{"source": "1"}')
    assert not is_unpacked(target, "1")
    go(archive, target)
    assert tree(target) == FILES and is_unpacked(target, "1")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".metadata.lock", "m.zip", "metadata"]


def test_another_zip_takes_the_old_one_s_place(tmp_path):
    target = tmp_path / "metadata"
    go(write_zip(tmp_path / "a.zip", FILES), target)
    go(write_zip(tmp_path / "b.zip", {"new.csv": b"n"}), target)
    assert tree(target) == {"new.csv": b"n"}


def test_a_folder_of_the_user_is_left_alone(tmp_path):
    target = tmp_path / "metadata"
    target.mkdir()
    (target / "mine.csv").write_bytes(b"mine")
    with pytest.raises(HacError, match="not unpacked by this program"):
        go(write_zip(tmp_path / "m.zip", FILES), target)
    assert tree(target) == {"mine.csv": b"mine"}


@pytest.mark.parametrize(
    "name",
    [
        "/etc/x",
        "../x",
        "a/../../x",
        "a/..",
        "C:/x",
        "c:x",
        "a\\..\\x",
        "\\\\host\\x",
        "a//b",
        "./a",
        "a\x01b",
        "..",
        "//x",
    ],
    ids=ascii,
)
def test_a_member_that_would_leave_the_folder_is_refused_and_named(tmp_path, name):
    archive = zip_of(tmp_path / "m.zip", ("a.csv", b"ok"), (name, b"bad"))
    error = refused(archive, tmp_path / "metadata", "would leave the folder")
    assert ascii(name) in error.what
    assert not (tmp_path / "x").exists() and not Path("/etc/x").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK, stat.S_IFDIR])
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = zip_of(tmp_path / "m.zip", ("a.csv", b"ok"), ("link", b"/etc/passwd", kind | 0o777))
    assert "'link'" in refused(archive, tmp_path / "metadata", "links or devices").what


@pytest.mark.parametrize("names", [("a", "a"), ("a.csv", "A.csv"), ("\u00e9", "e\u0301")], ids=ascii)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_double_names_are_refused_also_where_only_some_file_systems_see_them(tmp_path, names):
    archive = zip_of(tmp_path / "m.zip", *((n, b"x") for n in names))
    refused(archive, tmp_path / "metadata", "appear twice")


def test_a_name_that_is_a_file_and_a_folder_is_refused(tmp_path):
    refused(zip_of(tmp_path / "m.zip", ("a", b"x"), ("a/b", b"y")), tmp_path / "metadata", "a file and a folder")


def test_a_bomb_is_refused_by_its_ratio_by_its_size_and_by_its_count(tmp_path):
    target, archive = tmp_path / "metadata", tmp_path / "m.zip"
    zip_of(archive, ("a", b"ok"), ("bomb", bytes(1_000_000)))
    assert "'bomb'" in refused(archive, target, "more tightly than 200 to 1").what
    refused(archive, target, "1,000,002 bytes when unpacked, more than 999,999", Limits(total=999_999))
    refused(archive, target, "2 members, more than 1", Limits(total=10_000_000, members=1))
    go(archive, target, Limits(total=1_000_002, tiny=1_000_000, members=2))
    assert len(tree(target)["bomb"]) == 1_000_000


def test_a_silent_clip_is_no_bomb(tmp_path):
    archive = write_zip(tmp_path / "audio.zip", {"1.wav": bytes(2_646_044), "2.wav": b"x"})
    unpack(archive, tmp_path / "audio", limits=PARTS["audio"], source="1")
    assert len(tree(tmp_path / "audio")["1.wav"]) == 2_646_044


def test_a_size_that_is_a_lie_gives_an_error_and_no_more_bytes_than_announced(tmp_path):
    archive = zip_of(tmp_path / "m.zip", ("a", bytes(range(256)) * 100))
    data = archive.read_bytes()
    true = (25_600).to_bytes(4, "little")
    assert data.count(true) == 2
    for lie in (100, 50_000):
        archive.write_bytes(data.replace(true, lie.to_bytes(4, "little")))
        refused(archive, tmp_path / "metadata", "damaged")


def test_a_password_an_empty_zip_and_an_unknown_method_are_refused(tmp_path):
    target, archive = tmp_path / "metadata", zip_of(tmp_path / "m.zip", ("a", b"x" * 50))
    plain = archive.read_bytes()
    central = plain.index(b"PK\1\2")
    secret = bytearray(plain)
    secret[6] |= 1
    secret[central + 8] |= 1
    archive.write_bytes(secret)
    refused(archive, target, "password")
    method = bytearray(plain)
    method[8] = method[central + 10] = 9  # Deflate64
    archive.write_bytes(method)
    refused(archive, target, "Python cannot read")
    refused(zip_of(archive, ("a/", b"")), target, "no files in the zip")
    archive.write_bytes(b"")
    refused(archive, target, "damaged or cut-off")
    archive.unlink()
    with pytest.raises(HacError, match="no such file"):
        go(archive, target)


def test_a_cut_or_flipped_zip_is_one_clear_error_or_right(tmp_path):
    rng = random.Random(0)
    files = {f"{i}.csv": rng.randbytes(300) * 3 for i in range(8)}
    archive, target = write_zip(tmp_path / "m.zip", files), tmp_path / "metadata"
    whole = archive.read_bytes()
    for cut in [*range(1, 60), *range(60, len(whole), 97)]:
        archive.write_bytes(whole[:-cut])
        refused(archive, target, "damaged or cut-off")
    outcomes = set()
    for _ in range(150):
        harmed = bytearray(whole)
        harmed[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        archive.write_bytes(harmed)
        try:
            go(archive, target)
        except HacError:
            assert not target.exists()
            outcomes.add("error")
        else:  # a flipped date, attribute or name; never other content
            assert sorted(tree(target).values()) == sorted(files.values())
            outcomes.add("right")
            shutil.rmtree(target)
    assert outcomes == {"error", "right"}


def test_a_crc_error_in_the_last_member_leaves_nothing(tmp_path):
    archive = zip_of(tmp_path / "m.zip", ("a", b"good" * 100), ("b", b"first half, second half"))
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\1\2") + 16 + 46 + 1] ^= 1  # CRC of b in the directory
    archive.write_bytes(data)
    refused(archive, tmp_path / "metadata", "CRC|damaged")


def test_no_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    archive = write_zip(tmp_path / "m.zip", FILES)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=10))
    refused(archive, tmp_path / "metadata", "GB to unpack")


def test_a_disk_that_fills_while_unpacking_leaves_what_was_there(tmp_path):
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from hac_utils.errors import HacError\n"
        "from hac_utils.records import Limits\n"
        "from hac_utils.unpack import unpack\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: unpack(Path(sys.argv[1]), Path(sys.argv[2]), limits=Limits(total=10**9), source='1')\n"
        "except HacError as e: print(e, file=sys.stderr); sys.exit(2)\n"
    )
    target = tmp_path / "d" / "metadata"
    go(write_zip(tmp_path / "a.zip", FILES), target)
    archive = write_zip(tmp_path / "b.zip", {"small": b"s", "big": os.urandom(100_000)})
    command = [sys.executable, "-c", code, str(archive), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: cannot unpack b.zip"), done.stderr
    assert tree(target) == FILES
    assert sorted(p.name for p in target.parent.iterdir()) == [".metadata.lock", "metadata"]


def test_leftovers_of_a_killed_run_do_not_matter(tmp_path):
    for name in (".metadata.unpacking", ".metadata.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half.csv").write_bytes(b"half")
    go(write_zip(tmp_path / "m.zip", FILES), tmp_path / "metadata")
    assert tree(tmp_path / "metadata") == FILES
    assert sorted(p.name for p in tmp_path.iterdir()) == [".metadata.lock", "m.zip", "metadata"]

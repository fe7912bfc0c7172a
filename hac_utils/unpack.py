"""Zip files of the records: every member checked first, then unpacked whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import lzma
import os
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from .errors import HacError, first_few
from .io import read_json, write_json
from .records import Limits, locked

#: Written into the unpacked folder before it gets its final name.
STAMP = ".unpacked.json"

#: What a damaged zip makes of the zipfile module.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, ValueError)

_AGAIN = "delete the zip file and fetch it again; if that does not help, the published file is damaged"


def unpack(archive: Path, target: Path, *, limits: Limits, source: str) -> list[Path]:
    """Unpack `archive` into the folder `target`; a second call with the same zip does nothing.

    A folder around all members (``metadata/`` in ``metadata.zip``) is left out unless it is in
    ``limits.keep``, so both kinds of zip end at ``<target>/<file>``. What macOS adds (``__MACOSX/``,
    ``._*``, ``.DS_Store``) is skipped.

    Parameters
    ----------
    source : str
        Where the zip comes from, a record number; kept in the stamp.

    Returns
    -------
    The files, sorted.

    Raises
    ------
    HacError
        A member with an absolute path, ``..``, a drive letter or a backslash, a link, a double name,
        more bytes than the limits allow, a damaged or cut-off zip, no space, or a `target` that
        something else wrote. In every case `target` is as it was before.
    """
    archive, target = Path(archive), Path(target)
    if not archive.is_file():
        raise HacError("no such file", str(archive), "fetch it first")
    with locked(target):
        try:
            with zipfile.ZipFile(archive) as opened:
                members = _checked_members(opened, archive, limits)
                stamp = _stamp_of(members, source)
                if not _is_whole(target, stamp):
                    _refuse_foreign(target)
                    _extract(opened, members, target, stamp)
        except NotImplementedError as e:
            fix = "unpack it with another program and use PROFILE=folder DATA=…"
            raise HacError(f"a zip that Python cannot read: {e}", str(archive), fix) from None
        except _DAMAGED as e:
            raise HacError(f"a damaged or cut-off zip: {e}", str(archive), _AGAIN) from None
        except OSError as e:
            if e.errno in (None, errno.EINVAL):  # what seeking in a damaged zip gives
                raise HacError(f"a damaged or cut-off zip: {e}", str(archive), _AGAIN) from None
            fix = "free some space or choose another folder: HAC_CACHE=…"
            raise HacError(f"cannot unpack {archive.name}: {e.strerror or e}", str(target), fix) from None
    return sorted(target / name for name in members)


def is_unpacked(target: Path, source: str) -> bool:
    """True if `target` was unpacked from `source` and still holds as many files and bytes as then."""
    stamp = _read_stamp(Path(target))
    return stamp is not None and stamp.get("source") == source and _is_whole(Path(target), stamp)


def _checked_members(opened: zipfile.ZipFile, archive: Path, limits: Limits) -> dict[str, zipfile.ZipInfo]:
    """Path below the target -> member, for the files worth keeping."""

    def refuse(problem: str, names: list[str]) -> None:
        shown = first_few([ascii(n) for n in names])
        raise HacError(f"{problem}: {shown}", str(archive), "nothing was unpacked; is it the published file?")

    infos = opened.infolist()
    if _announced_members(archive) not in (len(infos) % 0x10000, 0xFFFF):  # 0xFFFF: a Zip64 archive
        raise zipfile.BadZipFile("the list of members is not complete")
    if len(infos) > limits.members:
        raise HacError(f"{len(infos):,} members, more than {limits.members:,}", str(archive), _AGAIN)
    if unsafe := [i.orig_filename for i in infos if not _is_safe(i)]:
        refuse("members that would leave the folder", unsafe)
    if odd := [i.filename for i in infos if not _is_plain_file(i)]:
        refuse("members that are links or devices", odd)
    if secret := [i.filename for i in infos if i.flag_bits & 1]:
        refuse("members with a password", secret)
    total = sum(i.file_size for i in infos)
    if total > limits.total:
        raise HacError(
            f"{total:,} bytes when unpacked, more than {limits.total:,}",
            str(archive),
            "nothing was unpacked; is this the published file?",
        )
    dense = [
        i.filename for i in infos if i.file_size > limits.tiny and i.file_size > limits.ratio * max(i.compress_size, 1)
    ]
    if dense:
        refuse(f"members packed more tightly than {limits.ratio} to 1", dense)

    files = {PurePosixPath(i.filename): i for i in infos if not i.is_dir() and not _is_litter(i.filename)}
    if not files:
        raise HacError("no files in the zip", str(archive), _AGAIN)
    kept = [i.filename for i in infos if not i.is_dir() and not _is_litter(i.filename)]
    folded = [unicodedata.normalize("NFC", n).casefold() for n in kept]  # as some file systems do
    times = Counter(folded)
    if double := sorted({n for n, f in zip(kept, folded, strict=True) if times[f] > 1}):
        refuse("names that appear twice", double)
    folders = {parent for path in files for parent in path.parents}
    if both := sorted(str(p) for p in files if p in folders):
        refuse("names that are a file and a folder", both)
    depth = _wrapper_depth(list(files), limits.keep)
    return {"/".join(path.parts[depth:]): info for path, info in files.items()}


def _announced_members(archive: Path) -> int:
    """The count in the end record, 16 bits; zipfile does not compare it with what it lists."""
    with open(archive, "rb") as f:
        f.seek(max(0, archive.stat().st_size - 22 - 0xFFFF))
        tail = f.read()
    at = tail.rfind(b"PK\5\6")
    return int.from_bytes(tail[at + 10 : at + 12], "little")


def _is_safe(info: zipfile.ZipInfo) -> bool:
    name = info.orig_filename
    parts = name.removesuffix("/").split("/")
    drive = len(name) > 1 and name[1] == ":"
    return not (drive or "\\" in name or any(ord(c) < 32 for c in name) or any(p in ("", ".", "..") for p in parts))


def _is_plain_file(info: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(info.external_attr >> 16)
    return kind in (0, stat.S_IFREG) or (kind == stat.S_IFDIR and info.is_dir())


def _is_litter(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parts[0] == "__MACOSX" or path.name == ".DS_Store" or path.name.startswith("._")


def _wrapper_depth(paths: list[PurePosixPath], keep: tuple[str, ...]) -> int:
    """How many leading folders all paths share, up to the first one that is kept."""
    depth = 0
    while all(len(p.parts) > depth + 1 for p in paths):
        names = {p.parts[depth] for p in paths}
        if len(names) > 1 or names & set(keep):
            break
        depth += 1
    return depth


def _stamp_of(members: dict[str, zipfile.ZipInfo], source: str) -> dict:
    digest = hashlib.sha256()
    for name in sorted(members):
        digest.update(f"{name}\0{members[name].CRC}\0{members[name].file_size}\n".encode())
    size = sum(i.file_size for i in members.values())
    return {"source": source, "files": len(members), "bytes": size, "members_sha256": digest.hexdigest()}


def _read_stamp(target: Path) -> dict | None:
    try:
        stamp = read_json(target / STAMP)
    except HacError:
        return None
    return stamp if isinstance(stamp, dict) else None


def _is_whole(target: Path, stamp: dict) -> bool:
    if _read_stamp(target) != stamp:
        return False
    sizes = list(_file_sizes(target))
    return (len(sizes), sum(sizes)) == (stamp.get("files"), stamp.get("bytes"))


def _file_sizes(folder: Path | str, top: bool = True) -> Iterator[int]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _file_sizes(entry.path, top=False)
            elif not (top and entry.name == STAMP):
                yield entry.stat(follow_symlinks=False).st_size


def _refuse_foreign(target: Path) -> None:
    if target.exists() and _read_stamp(target) is None and (not target.is_dir() or any(target.iterdir())):
        fix = "move it away, or use it as it is: PROFILE=folder DATA=…"
        raise HacError("in the way, and not unpacked by this program", str(target), fix)


def _extract(opened: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], target: Path, stamp: dict) -> None:
    """Into a folder beside the target, which then takes its place. Leftovers of a killed run go first."""
    fresh, old = target.parent / f".{target.name}.unpacking", target.parent / f".{target.name}.old"
    for leftover in (fresh, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    free = shutil.disk_usage(target.parent).free
    if stamp["bytes"] > free:
        raise HacError(
            f"{stamp['bytes'] / 1e9:.1f} GB to unpack, {free / 1e9:.1f} GB free",
            str(target.parent),
            "free some space or choose another folder: HAC_CACHE=…",
        )
    try:
        fresh.mkdir()
        for folder in sorted({(fresh / name).parent for name in members}):
            folder.mkdir(parents=True, exist_ok=True)
        for name, info in tqdm(members.items(), desc=f"unpack {target.name}", unit="file", disable=None):
            with opened.open(info) as inside, open(fresh / name, "xb") as outside:
                shutil.copyfileobj(inside, outside, 1 << 20)
                if outside.tell() != info.file_size:
                    raise zipfile.BadZipFile(f"{info.filename} is shorter than the zip says")
        write_json(fresh / STAMP, stamp)
        if target.exists():
            os.rename(target, old)
        os.rename(fresh, target)
    finally:
        if old.exists() and not target.exists():
            os.rename(old, target)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)

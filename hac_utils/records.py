"""What the Zenodo records hold: numbers, files, sizes and checksums, given or remembered.

The registry states what is published (FACTS.md, section 2). Where it has no checksum, the record API's
is used, and after the first good download it is pinned in ``<cache>/pins.json``.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .errors import HacError, did_you_mean
from .io import read_json, write_json

log = logging.getLogger(__name__)

ZENODO = "https://zenodo.org"


@dataclass(frozen=True)
class FileFacts:
    """Size in bytes and md5 (hex, lower case) of a published file."""

    size: int
    md5: str


@dataclass(frozen=True)
class Limits:
    """What a zip may grow to.

    Attributes
    ----------
    total : bytes of all members together
    tiny : a member above this many bytes may not be packed more tightly than `ratio` to 1
    keep : folders that belong to the layout; any other folder around all members is a wrapper
    """

    total: int
    tiny: int = 1_000_000
    ratio: int = 200
    members: int = 300_000
    keep: tuple[str, ...] = ()


#: Part of a data set -> bounds of its zip. A silent 30-s clip is 2.6 MB and deflates 1000 to 1.
PARTS: dict[str, Limits] = {
    "metadata": Limits(total=2 * 10**9),
    "features": Limits(total=2 * 10**9, keep=("clap_audio_embeddings", "clap_text_embeddings")),
    "audio": Limits(total=200 * 10**9, tiny=32_000_000),
}


@dataclass(frozen=True)
class Record:
    """One published data set.

    Attributes
    ----------
    number : of the Zenodo record (of this version, not the concept)
    folder : name of the data set's folder
    parts : keys of `PARTS` that are published; each is a zip file
    files : what is known of its files beforehand
    """

    name: str
    number: str
    folder: str
    parts: tuple[str, ...]
    files: dict[str, FileFacts] = field(default_factory=dict)


RECORDS: dict[str, Record] = {
    "bsd10k": Record("bsd10k", "19868804", "BSD10k", ("metadata", "features", "audio")),  # v1.2
    "bsd35k": Record(
        "bsd35k",
        "19187100",
        "BSD35k-CS",
        ("metadata", "features", "audio"),
        {
            "metadata.zip": FileFacts(4_374_871, "9876254ce2ed845691a9a76efe13fe5a"),
            "audio.zip": FileFacts(35_091_942_026, "d47968c99ad4e93a081f380b2d273acd"),
        },
    ),
    "eval": Record("eval", "20442928", "eval", ("metadata", "audio")),
}


def find_record(name: str) -> Record:
    """The record of a data set name; an unknown name is a :class:`HacError` with the nearest known one."""
    if name not in RECORDS:
        raise HacError(f"no published data set is called {name!r}", "NAME", did_you_mean(name, RECORDS))
    return RECORDS[name]


def base_url() -> str:
    """Where records are fetched from: ``$HAC_DATA_URL``, else Zenodo. No slash at the end."""
    base = (os.environ.get("HAC_DATA_URL") or ZENODO).strip().rstrip("/")
    if not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", base):
        raise HacError(f"{base!r} is not a web address", "HAC_DATA_URL", f"for example HAC_DATA_URL={ZENODO}")
    return base


def is_local() -> bool:
    """True where :func:`base_url` is this machine: a test server, whose small files are not the published ones."""
    return (urlsplit(base_url()).hostname or "") in ("127.0.0.1", "::1", "localhost")


def published(record: Record) -> dict[str, FileFacts]:
    """The published checksums that a file must match; none on a test server, which is said in the data's notes."""
    return {} if is_local() else dict(record.files)


def cache_folder() -> Path:
    """Where fetched files are kept: ``$HAC_CACHE``, else the system's cache folder for ``hac``."""
    given = os.environ.get("HAC_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    import pooch

    return Path(pooch.os_cache("hac"))


def api_url(base: str, record: Record) -> str:
    """Address of the record's JSON description."""
    return f"{base}/api/records/{record.number}"


def file_url(base: str, record: Record, name: str) -> str:
    """Address of a file; built from the base so that a mirror works."""
    return f"{base}/records/{record.number}/files/{quote(name)}?download=1"


def parse_listing(answer: Any, where: str) -> dict[str, FileFacts]:
    """File name -> size and md5, from the record API's answer.

    Raises
    ------
    HacError
        Not a record with ``files: [{key, size, checksum: "md5:…"}]``, or no file with an md5 in it.
    """
    found = {}
    try:
        for entry in answer["files"]:
            kind, _, md5 = str(entry["checksum"]).partition(":")
            name = str(entry["key"])
            if kind == "md5" and re.fullmatch(r"[0-9a-fA-F]{32}", md5) and _is_plain(name):
                found[name] = FileFacts(int(entry["size"]), md5.lower())
    except (KeyError, TypeError, ValueError):
        found = {}
    if not found:
        fix = f"is this a Zenodo address or a mirror of one? HAC_DATA_URL={ZENODO} is the original"
        raise HacError("the answer does not describe a record with files and md5 checksums", where, fix)
    return found


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"[^/\\:\x00-\x1f]{1,200}", name) is not None and not name.startswith(".")


def part_file(record: Record, part: str, names: Iterable[str], where: str) -> str:
    """Which file holds a part: ``<part>.zip``, else the record's only zip with the part in its name."""
    names = sorted(names)
    if f"{part}.zip" in names:
        return f"{part}.zip"
    near = [n for n in names if n.lower().endswith(".zip") and part in n.lower()]
    if len(near) != 1:
        fix = f"the record holds: {', '.join(names) or 'nothing'}"
        raise HacError(f"no {part}.zip in the record of {record.name}", where, fix)
    return near[0]


# what was seen before ----------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``.<name>.lock`` beside `path`; a second process waits here until the first one is done.

    The kernel frees the lock when a process dies. The empty lock file stays: removing it would race.
    """
    lock = path.parent / f".{path.name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as e:
        fix = "choose a folder you can write to: HAC_CACHE=…"
        raise HacError(f"cannot write: {e.strerror}", str(lock), fix) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another process is at work on %s; waiting for it", path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _pins_file(cache: Path) -> Path:
    return cache / "pins.json"


def _read_pins(cache: Path) -> dict[str, dict]:
    path = _pins_file(cache)
    pins = read_json(path) if path.exists() else {}
    kinds = {"md5": str, "size": int, "mtime_ns": int}
    if not isinstance(pins, dict) or not all(
        isinstance(p, dict) and all(isinstance(p.get(k), kind) for k, kind in kinds.items()) for p in pins.values()
    ):
        raise HacError("not a list of pinned checksums", str(path), "delete it; it is written again")
    return pins


def pinned_names(cache: Path, record: Record) -> list[str]:
    """Files of the record whose checksum is known without asking: from the registry or pinned earlier."""
    pinned = [key.split("/", 1)[1] for key in _read_pins(cache) if key.startswith(record.number + "/")]
    return sorted({*pinned, *published(record)})


def known_facts(cache: Path, record: Record, name: str) -> FileFacts | None:
    """Size and md5 of a file from the registry, else as pinned in this cache, else None."""
    pin = _read_pins(cache).get(f"{record.number}/{name}")
    return published(record).get(name) or (FileFacts(pin["size"], pin["md5"]) if pin else None)


def is_verified(cache: Path, record: Record, name: str, path: Path) -> bool:
    """True if `path` is the file that was verified when it was pinned: same size and time of change."""
    pin, facts = _read_pins(cache).get(f"{record.number}/{name}"), known_facts(cache, record, name)
    if pin is None or not path.is_file():
        return False
    seen = path.stat()
    return (pin["size"], pin["md5"], pin["size"], pin["mtime_ns"]) == (
        facts.size,
        facts.md5,
        seen.st_size,
        seen.st_mtime_ns,
    )


def pin(cache: Path, record: Record, name: str, facts: FileFacts, path: Path) -> None:
    """Remember that `path` was verified against `facts`."""
    with locked(_pins_file(cache)):
        pins = _read_pins(cache)
        pins[f"{record.number}/{name}"] = asdict(facts) | {"mtime_ns": path.stat().st_mtime_ns}
        write_json(_pins_file(cache), pins)


def check_against_known(
    cache: Path, record: Record, name: str, said: FileFacts, known: FileFacts | None, where: str
) -> None:
    """The API's facts must equal those known before.

    Raises
    ------
    HacError
        They differ: another file is offered under the same record and name.
    """
    if known is None or said == known:
        return
    if name in published(record):
        source = "published"
        fix = f"fetch from the original: HAC_DATA_URL={ZENODO}"
    else:
        source = "pinned at the first download"
        fix = f"if the record was changed on purpose, delete {record.number}/{name} from {_pins_file(cache)}"
    what = f"{name} of {record.name} is offered with md5 {said.md5} ({said.size:,} bytes)"
    raise HacError(f"{what}; {source}: md5 {known.md5} ({known.size:,} bytes)", where, fix)

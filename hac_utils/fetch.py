"""Bring the published data here: each file whole and verified under its final name, or not at all.

A partial file is ``.<name>.part`` beside the final name. The next attempt, in this process or a later
one, asks for the rest of it (HTTP Range). Only a file with the right size and md5 gets its name.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import requests
from tqdm import tqdm

from . import __version__, records
from .errors import HacError
from .records import PARTS, FileFacts, Record
from .unpack import is_unpacked, unpack

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Attempts in a row that bring nothing before we give up, after the first one.
RETRIES = 5
#: Seconds before the first retry; each further one waits twice as long.
BACKOFF = 1.0
#: Longest wait in seconds, also when the server asks for more (Retry-After).
LONGEST_WAIT = 120.0
#: Seconds to connect, and between two pieces of an answer.
TIMEOUT = (10.0, 30.0)
#: Bytes read at a time.
CHUNK = 1 << 16


class _Again(Exception):
    """An attempt failed in a way that may pass; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.wait = reason, wait


class _NotThere(HacError):
    """The server answers, and has nothing at this address (404)."""


def get(
    names: Iterable[str], *, audio: bool = False, offline: bool = False, data_root: Path | None = None
) -> dict[str, Path]:
    """Fetch and unpack data sets; what is here already is neither fetched nor unpacked again.

    Parameters
    ----------
    names : keys of :data:`records.RECORDS`: "bsd10k", "bsd35k", "eval"
    audio : also the sounds (11 GB, 35 GB); otherwise metadata and, where published, features
    data_root : Path
        Gets one folder per data set; by default ``<cache>/data``.

    Returns
    -------
    dict name -> folder in the official layout: ``metadata/``, ``features/clap_audio_embeddings/``,
    ``features/clap_text_embeddings/``, and ``audio/`` if asked for now or earlier.

    Raises
    ------
    HacError
        An unknown name, anything :func:`fetch` or :func:`unpack.unpack` raises.
    """
    cache = records.cache_folder()
    root = Path(data_root) if data_root is not None else cache / "data"
    wanted = [records.find_record(name) for name in dict.fromkeys(names)]
    out = {}
    for record in wanted:
        out[record.name] = root / record.folder
        for part in record.parts:
            if part != "audio" or audio:
                _get_part(record, part, root / record.folder / part, cache=cache, offline=offline)
    return out


def _get_part(record: Record, part: str, target: Path, *, cache: Path, offline: bool) -> None:
    known = records.pinned_names(cache, record)
    if is_unpacked(target, record.number):
        return
    if f"{part}.zip" in known:
        name = f"{part}.zip"
    elif offline:
        name = next((n for n in known if part in n.lower()), f"{part}.zip")
    else:
        base = records.base_url()
        name = records.part_file(record, part, _listing(record, base), records.api_url(base, record))
    archive = fetch(record.name, name, cache=cache, offline=offline)
    unpack(archive, target, limits=PARTS[part], source=record.number)


def fetch(name: str, file: str, *, cache: Path | None = None, offline: bool = False, base: str | None = None) -> Path:
    """One file of a record, verified; from the cache when it is there, else from the record.

    Parameters
    ----------
    name : data set name, a key of :data:`records.RECORDS`
    file : file name in the record, ``"metadata.zip"``
    cache, base : by default ``$HAC_CACHE`` and ``$HAC_DATA_URL``

    Returns
    -------
    Path ``<cache>/records/<number>/<file>``

    Raises
    ------
    HacError
        Not in the record, wrong size or checksum, no connection after the retries, no space, or not
        here and `offline`. Nothing is then under the final name.
    """
    record = records.find_record(name)
    cache = Path(cache) if cache is not None else records.cache_folder()
    path = cache / "records" / record.number / file
    if _is_here(cache, record, file, path):
        return path
    with records.locked(path):
        if _is_here(cache, record, file, path):  # the process we waited for has brought it
            return path
        if offline:
            state = "cannot be verified" if path.is_file() else "is not here"
            command = f"hac data get {record.name}{' --audio' if 'audio' in file else ''}"
            raise HacError(
                f"{file} of {record.name} {state}, and --offline allows no download",
                str(path),
                f"{command}   (without --offline; or copy the cache folder, with pins.json, from elsewhere)",
            )
        base = base.rstrip("/") if base is not None else records.base_url()
        known = records.known_facts(cache, record, file)
        facts = _expected(record, file, known, cache=cache, base=base)
        if not (path.is_file() and _matches(path, facts)):
            if path.exists():
                log.warning("%s is not the published file; it is fetched again", path)
                path.unlink()
            _download(records.file_url(base, record, file), path, facts)
        records.pin(cache, record, file, facts, path)
    return path


def _is_here(cache: Path, record: Record, file: str, path: Path) -> bool:
    """True if `path` is the right file: unchanged since it was pinned, else by its md5."""
    if records.is_verified(cache, record, file, path):
        return True
    known = records.known_facts(cache, record, file)
    if known is None or not path.is_file() or not _matches(path, known):
        return False
    with contextlib.suppress(HacError):  # a cache that is read-only is hashed each time
        records.pin(cache, record, file, known, path)
    return True


def _matches(path: Path, facts: FileFacts) -> bool:
    import pooch

    return path.stat().st_size == facts.size and pooch.file_hash(str(path), alg="md5") == facts.md5


# the record --------------------------------------------------------------------------------------


def _listing(record: Record, base: str) -> dict[str, FileFacts]:
    """The record's files, from its API."""
    url = records.api_url(base, record)

    def attempt() -> object:
        with open_url(url, {"Accept": "application/json"}) as response:
            try:
                return response.json()
            except requests.exceptions.JSONDecodeError:
                return None
            except requests.RequestException as e:
                raise _Again(_reason(e)) from None

    return records.parse_listing(patiently(attempt, url), url)


def _expected(record: Record, file: str, known: FileFacts | None, *, cache: Path, base: str) -> FileFacts:
    """Size and md5 of a file; a mirror without the record API does where they are known already."""
    url = records.api_url(base, record)
    try:
        listing = _listing(record, base)
    except _NotThere:
        if known is None:
            raise
        log.warning("no record description at %s; going by the known checksum of %s", url, file)
        return known
    if file not in listing:
        fix = f"the record holds: {', '.join(sorted(listing))}"
        raise HacError(f"no {file} in the record of {record.name}", url, fix)
    records.check_against_known(cache, record, file, listing[file], known, url)
    return listing[file]


# one download ------------------------------------------------------------------------------------


def _download(url: str, path: Path, facts: FileFacts) -> None:
    """Bring `url` to `path`: resume, retry, verify, rename. A wrong checksum is tried once more from zero."""
    part = path.parent / f".{path.name}.part"
    for last in (False, True):
        try:
            bring(url, part, facts)
            if _matches(part, facts):
                os.replace(part, path)
                flush_folder(path.parent)
                return
            size = part.stat().st_size
            import pooch

            found = f"md5 {pooch.file_hash(str(part), alg='md5')} ({size:,} bytes)"
            part.unlink()
        except OSError as e:
            fix = "free some space or choose another folder: HAC_CACHE=…; the same command goes on from here"
            raise HacError(f"cannot write {path.name}: {e.strerror or e}", str(path.parent), fix) from None
        if last:
            raise HacError(
                f"wrong checksum, twice: {found}, expected md5 {facts.md5} ({facts.size:,} bytes)",
                url,
                "the download was removed; try again later, or another mirror: HAC_DATA_URL=…",
            )
        log.warning("wrong checksum of %s; fetching it once more from the start", url)


def bring(url: str, part: Path, facts: FileFacts) -> None:
    """Complete `part` to ``facts.size`` bytes."""

    def have() -> int:
        return part.stat().st_size if part.exists() else 0

    if have() > facts.size:
        part.unlink()
    free = shutil.disk_usage(part.parent).free
    if (missing := facts.size - have()) > free:
        raise HacError(
            f"{missing / 1e9:.2f} GB to fetch, {free / 1e9:.2f} GB free",
            str(part.parent),
            "free some space or choose another folder: HAC_CACHE=…",
        )
    bar = tqdm(total=facts.size, desc=part.name[1:-5], unit="B", unit_scale=True, unit_divisor=1000, disable=None)
    with bar:
        patiently(lambda: _bring_rest(url, part, have(), facts, bar), url, have)


def _bring_rest(url: str, part: Path, offset: int, facts: FileFacts, bar: tqdm) -> None:
    """One request for what is missing after `offset`; a server without Range sends everything again."""
    if offset == facts.size:
        return
    with open_url(url, {"Range": f"bytes={offset}-"} if offset else {}) as response:
        if response.status_code != 200:
            sent = response.headers.get("Content-Range", "").strip()
            if sent != f"bytes {offset}-{facts.size - 1}/{facts.size}":
                part.unlink(missing_ok=True)
                raise _Again(f"an unfitting part of the file ({sent or 'not named'})")
        elif offset:
            log.warning("%s does not resume; starting from the beginning", url)
            offset = 0
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and offset + int(length) != facts.size:
            raise HacError(
                f"the server offers {offset + int(length):,} bytes, expected {facts.size:,}",
                url,
                "is this the record, or a page of a proxy or a mirror with other files? see HAC_DATA_URL",
            )
        bar.n = bar.initial = offset
        bar.refresh()
        with open(part, "ab" if offset else "wb") as f:
            try:
                for chunk in response.iter_content(CHUNK):
                    f.write(chunk)
                    bar.update(len(chunk))
                    if f.tell() > facts.size:
                        break
            except requests.RequestException as e:
                raise _Again(_reason(e)) from None
            finally:
                f.flush()
                os.fsync(f.fileno())
    if part.stat().st_size < facts.size:
        raise _Again("the answer ended early")


def flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# requests ----------------------------------------------------------------------------------------


def open_url(url: str, headers: dict[str, str]) -> requests.Response:
    """One GET, body not yet read.

    Raises
    ------
    _Again
        No connection, a timeout, 408, 425, 429 or 5xx.
    HacError
        Any other status but 200, 206 and, where a range was asked for, 416.
    """
    agent = {"User-Agent": f"hac-utils/{__version__}", "Accept-Encoding": "identity"}
    try:
        response = requests.get(url, headers=agent | headers, stream=True, timeout=TIMEOUT)
    except requests.exceptions.SSLError as e:
        raise HacError(f"no secure connection: {_reason(e)}", url, "check the clock and the proxy") from None
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as e:
        raise _Again(_reason(e)) from None
    except requests.RequestException as e:
        raise HacError(f"cannot be fetched: {_reason(e)}", url, "check HAC_DATA_URL") from None
    status = response.status_code
    if status in (200, 206) or (status == 416 and "Range" in headers):
        return response
    response.close()
    said = f"the server says {status} {response.reason or ''}".rstrip()
    if status in (408, 425, 429) or status >= 500:
        raise _Again(said, _retry_after(response.headers.get("Retry-After", "")))
    kind = _NotThere if status == 404 else HacError
    raise kind(said, url, f"check HAC_DATA_URL; the original is {records.ZENODO}")


def _retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header, given as a number or a date; None where there is none."""
    if re.fullmatch(r"\s*\d{1,9}\s*", value):
        return float(value)
    try:
        then = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    now = datetime.datetime.now(then.tzinfo)
    return max(0.0, (then - now).total_seconds())


def patiently(attempt: Callable[[], T], url: str, have: Callable[[], int] = lambda: 0) -> T:
    """Repeat `attempt` while it raises `_Again`; more bytes here than ever before count as a fresh start."""
    failures, best = 0, have()
    while True:
        try:
            return attempt()
        except _Again as e:
            if have() > best:
                failures, best = 0, have()
            failures += 1
            if failures > RETRIES:
                raise HacError(
                    f"gave up after {failures} attempts: {e.reason}",
                    url,
                    "check the network, or set HAC_DATA_URL to a mirror; the same command goes on from here",
                ) from None
            wait = BACKOFF * 2 ** (failures - 1) if e.wait is None else e.wait
            wait = min(wait, LONGEST_WAIT)
            log.warning("%s: %s; again in %.3g s", url, e.reason, wait)
            time.sleep(wait)


def _reason(error: Exception) -> str:
    """The innermost cause of a requests error, in a few words."""
    while True:
        causes = [error.__cause__, getattr(error, "reason", None), *error.args]
        inner = next((c for c in causes if isinstance(c, Exception)), None)
        if inner is None:
            break
        error = inner
    text = re.sub(r"^.*?(HTTPS?Connection[^:]*|object at 0x\w+>): ", "", str(error))
    return text.strip() or type(error).__name__

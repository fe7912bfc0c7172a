"""Published model weights: where they come from, and whether what lies here is what was published.

They are kept in ``<cache>/weights/<name>/`` and fetched as the data sets are (:mod:`fetch`): resumed,
retried, verified, and under their final name only when whole. A checksum comes from the registry below,
else from the model hub's answer; where neither names one, that of the first download is pinned in
``<cache>/weights/pins.json``, and a later, different file is refused.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd

from . import fetch
from .errors import HacError, did_you_mean
from .io import read_json, sha256_file, write_json
from .records import ZENODO, FileFacts, cache_folder, locked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightFile:
    """Where a file is published; size in bytes and SHA-256 where known (0 and "" where not)."""

    url: str
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Weights:
    """One published model: its files by name, and their licence."""

    licence: str
    files: dict[str, WeightFile]


_HUB = "https://huggingface.co"
_ROBERTA = f"{_HUB}/FacebookAI/roberta-base/resolve/main"
_TOKENIZER = {
    name: WeightFile(f"{_ROBERTA}/{name}")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
}
#: The name in laion-clap 1.1.7 and hear21passt 0.0.26, and the address they fetch it from. The checksum of
#: PaSST is the one that several public repositories state for their own download.
WEIGHTS: dict[str, Weights] = {
    "clap": Weights(
        "CC0-1.0 (LAION-CLAP), MIT (RoBERTa tokenizer)",
        {
            "630k-audioset-fusion-best.pt": WeightFile(
                f"{_HUB}/lukewys/laion_clap/resolve/main/630k-audioset-fusion-best.pt"
            )
        }
        | _TOKENIZER,
    ),
    "passt": Weights(
        "Apache-2.0",
        {
            "passt-s-f128-p16-s10-ap.476-swa.pt": WeightFile(
                "https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt",
                344_665_734,
                "302903fa8c4aee817b11dc982da0b29aaf8d11a3e722420476d0a12c9db70c2c",
            )
        },
    ),
    "roberta": Weights("MIT", {"model.safetensors": WeightFile(f"{_ROBERTA}/model.safetensors")} | _TOKENIZER),
}


def find(name: str) -> Weights:
    """The registry's entry; an unknown name is a :class:`HacError` with the nearest known one."""
    if name not in WEIGHTS:
        raise HacError(f"no weights are called {name!r}", "NAME", did_you_mean(name, WEIGHTS))
    return WEIGHTS[name]


def folder(name: str) -> Path:
    """Where the weights of a name are kept."""
    find(name)
    return cache_folder() / "weights" / name


def get(name: str, *, base: str | None = None, offline: bool = False) -> Path:
    """Fetch the weights of a name; what is here already is only checked.

    Parameters
    ----------
    name : "clap", "passt" or "roberta"
    base : address of a mirror, which has the originals' paths; default ``$HAC_WEIGHTS_URL``, or none

    Returns
    -------
    Path of the folder, complete and verified. As a Hugging Face folder it serves for "roberta" (model and
    tokenizer) and, tokenizer only, for "clap".

    Raises
    ------
    HacError
        Not here and `offline` (with the command that fetches it); no connection; not the published file.
    """
    weights, target = find(name), folder(name)
    command = f"hac weights get {name}"
    for file in weights.files:
        path = target / file
        if offline and not path.is_file():
            raise HacError(f"the {name} weights are not here ({file})", str(target), command)
        with locked(path):
            if not _is_here(name, file, path):
                if offline:
                    raise HacError(f"{file} is not the published file", str(path), command)
                _fetch(name, file, path, _base_url(base))
    return target


def show() -> pd.DataFrame:
    """Known and here: name, file, present, size (bytes, 0 unknown), sha256, licence, where."""
    pins, rows = _read_pins(), []
    for name, weights in WEIGHTS.items():
        for file, known in weights.files.items():
            path, pin = folder(name) / file, pins.get(f"{name}/{file}", {})
            size = path.stat().st_size if path.is_file() else known.size or pin.get("size", 0)
            sha256 = known.sha256 or pin.get("sha256", "")
            rows.append((name, file, path.is_file(), size, sha256, weights.licence, str(path)))
    return pd.DataFrame(rows, columns=["name", "file", "present", "size", "sha256", "licence", "where"])


def checked_sha256(path: Path) -> str:
    """SHA-256 of a weights file, hex, for those who are about to load it.

    Raises
    ------
    HacError
        It bears the name of a published file, or lies in the cache, and is not that file.
    """
    sha256, pins = sha256_file(path), _read_pins()
    for name, weights in WEIGHTS.items():
        known = weights.files.get(path.name)
        if known is None:
            continue
        in_cache = path.absolute() == (folder(name) / path.name).absolute()
        expected = known.sha256 or (pins.get(f"{name}/{path.name}", {}).get("sha256", "") if in_cache else "")
        if expected and sha256 != expected:
            what = f"{path.name} is not the published file: sha256 {sha256}, expected {expected}"
            raise HacError(what, str(path), f"delete it, then: hac weights get {name}")
    return sha256


# what was seen before ----------------------------------------------------------------------------


def _pins_file() -> Path:
    return cache_folder() / "weights" / "pins.json"


def _read_pins() -> dict[str, dict]:
    path = _pins_file()
    pins = read_json(path) if path.exists() else {}
    kinds = {"sha256": str, "size": int, "mtime_ns": int}
    if not isinstance(pins, dict) or not all(
        isinstance(p, dict) and all(isinstance(p.get(k), kind) for k, kind in kinds.items()) for p in pins.values()
    ):
        raise HacError("not a list of pinned checksums", str(path), "delete it; it is written again")
    return pins


def _pin(name: str, file: str, path: Path, sha256: str) -> None:
    seen = path.stat()
    with locked(_pins_file()):
        pins = _read_pins()
        pins[f"{name}/{file}"] = {"sha256": sha256, "size": seen.st_size, "mtime_ns": seen.st_mtime_ns}
        write_json(_pins_file(), pins)


def _expected(name: str, file: str) -> str:
    """SHA-256 from the registry, else as pinned, else ""."""
    return WEIGHTS[name].files[file].sha256 or _read_pins().get(f"{name}/{file}", {}).get("sha256", "")


def _is_here(name: str, file: str, path: Path) -> bool:
    """True if `path` is the right file: unchanged since it was pinned, else by its checksum."""
    if not path.is_file():
        return False
    expected, pin, seen = _expected(name, file), _read_pins().get(f"{name}/{file}"), path.stat()
    stamp = (expected, seen.st_size, seen.st_mtime_ns)
    if pin is not None and (pin["sha256"], pin["size"], pin["mtime_ns"]) == stamp:
        return True
    sha256 = sha256_file(path)
    if expected and sha256 != expected:
        return False
    if not expected:
        log.warning("no checksum is known for %s; pinned as found: sha256 %s", path, sha256)
    _pin(name, file, path, sha256)
    return True


# one download ------------------------------------------------------------------------------------


def _base_url(base: str | None) -> str:
    base = (base or os.environ.get("HAC_WEIGHTS_URL") or "").strip().rstrip("/")
    if base and not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", base):
        fix = f"for example HAC_WEIGHTS_URL={_HUB}, or nothing for the originals"
        raise HacError(f"{base!r} is not a web address", "HAC_WEIGHTS_URL", fix)
    return base


def _fetch(name: str, file: str, path: Path, base: str) -> None:
    original = WEIGHTS[name].files[file]
    url = base + urlsplit(original.url).path if base else original.url
    try:
        _download(name, file, url, path)
    except HacError as e:  # fetch speaks of the data sets' address
        fix = e.fix.replace("HAC_DATA_URL", "HAC_WEIGHTS_URL").replace(ZENODO, original.url)
        raise HacError(e.what, e.where, fix) from None
    except OSError as e:
        fix = "free some space or choose another folder: HAC_CACHE=…; the same command goes on from here"
        raise HacError(f"cannot write {path.name}: {e.strerror or e}", str(path.parent), fix) from None


def _download(name: str, file: str, url: str, path: Path) -> None:
    """Bring `url` to `path`: resume, retry, verify, rename. A wrong checksum is tried once more from zero."""
    size, said = _ask(url)
    known = WEIGHTS[name].files[file]
    if known.size and size != known.size:
        what = f"{file} is offered with {size:,} bytes; published: {known.size:,}"
        raise HacError(what, url, "is this a mirror of the original? see HAC_WEIGHTS_URL")
    expected = _expected(name, file) or said
    part = path.parent / f".{path.name}.part"
    if path.exists():
        log.warning("%s is not the published file; it is fetched again", path)
    for last in (False, True):
        fetch.bring(url, part, FileFacts(size, ""))
        sha256 = sha256_file(part)
        if not expected or sha256 == expected:
            break
        part.unlink()
        if last:
            what = f"wrong checksum, twice: sha256 {sha256}, expected {expected}"
            fix = f"try again later or another mirror; if it was changed on purpose, delete {_pins_file()}"
            raise HacError(what, url, fix)
        log.warning("wrong checksum of %s; fetching it once more from the start", url)
    if not expected:
        log.warning("no checksum is published for %s; pinned at this download: sha256 %s", url, sha256)
    os.replace(part, path)
    fetch.flush_folder(path.parent)
    _pin(name, file, path, sha256)


def _ask(url: str) -> tuple[int, str]:
    """Size in bytes, and SHA-256 where the server is a model hub that names it, else ""."""

    def attempt() -> tuple[int, str]:
        with fetch.open_url(url, {}) as response:
            size, sha256 = response.headers.get("Content-Length", ""), ""
            for answer in (*response.history, response):  # a hub names them where it redirects to its store
                size = answer.headers.get("X-Linked-Size", size)
                found = re.fullmatch(r'(?:W/)?"?([0-9a-f]{64})"?', answer.headers.get("X-Linked-Etag", ""))
                sha256 = found[1] if found else sha256
            return int(size) if size.isdecimal() else -1, sha256

    size, sha256 = fetch.patiently(attempt, url)
    if size < 0:
        raise HacError("the server does not name the file's size", url, "another mirror? see HAC_WEIGHTS_URL")
    return size, sha256

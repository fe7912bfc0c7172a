"""Files are written whole or not at all, and read with one clear error."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io as _io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .errors import HacError

#: What a write can meet that is the user's to mend; None is numpy's short write to a full disk.
_WRITE_ERRORS = {
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EIO EROFS EACCES EPERM ENOTDIR EISDIR EEXIST ENAMETOOLONG".split()
} | {None}


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`; renamed onto it (flushed to disk) when the block ends well, else removed.

    For writers that want a file name. A failing write (disk full, read-only folder) is a
    :class:`HacError`, and nothing is left under the final name.
    """
    path = Path(path)
    tmp = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=".tmp" + path.suffix, dir=path.parent)
        os.close(fd)
        tmp = Path(name)
        yield tmp
        with open(tmp, "rb+") as f:
            os.fsync(f.fileno())
        os.chmod(tmp, 0o666 & ~_umask())
        os.replace(tmp, path)
    except OSError as e:
        if e.errno in _WRITE_ERRORS:
            raise HacError(
                f"cannot write: {e.strerror or e}",
                str(path),
                "free some space or choose a folder you can write to",
            ) from e
        raise
    finally:
        if tmp is not None:
            with contextlib.suppress(OSError):
                tmp.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, atomically."""
    with atomic_path(path) as tmp, open(tmp, "wb") as f:
        f.write(data)
        f.flush()


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends, atomically."""
    write_bytes(path, text.encode("utf-8"))


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays as plain Python, for JSON."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return value.as_posix()
    return value


def dump_json(value: Any) -> str:
    """Canonical JSON: sorted keys, full precision, no NaN."""
    return json.dumps(_plain(value), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path: Path | str, value: Any) -> None:
    """Write canonical JSON, atomically."""
    write_text(path, dump_json(value))


def read_json(path: Path | str) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HacError("no such file", str(path)) from None
    except (ValueError, OSError) as e:
        raise HacError(
            f"not readable as JSON: {e}", str(path), "delete it and run the step that writes it again"
        ) from None


def write_parquet(path: Path | str, frame: pd.DataFrame) -> None:
    """Write a table as parquet, atomically, with the same bytes for the same table."""
    with atomic_path(path) as tmp:
        frame.to_parquet(tmp, index=False, compression="zstd")


def write_csv(path: Path | str, frame: pd.DataFrame, float_format: str | None = None) -> None:
    """Write a table as CSV with ``\\n`` line ends, atomically."""
    buffer = _io.StringIO()
    frame.to_csv(buffer, index=False, lineterminator="\n", float_format=float_format)
    write_text(path, buffer.getvalue())


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a ``.csv``, ``.tsv`` or ``.parquet`` table; CSV cells come as strings, empty ones as ``""``."""
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.exists():
        raise HacError("no such file", str(path), "check the path")
    if path.is_dir():
        raise HacError("a folder, not a file", str(path), "give a .csv, .tsv or .parquet file")
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        if suffix not in (".csv", ".tsv", ".txt"):
            raise HacError(
                f"cannot read tables of type {path.suffix or 'without an ending'!r}",
                str(path),
                "give a .csv, .tsv or .parquet file",
            )
        frame = pd.read_csv(
            path,
            sep="\t" if suffix == ".tsv" else ",",
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
        )
        if not isinstance(frame.index, pd.RangeIndex):  # pandas would take the first fields as row names
            raise HacError(
                "the rows have more fields than the header",
                str(path),
                "name every column, and quote cells that hold a comma",
            )
        return frame
    except HacError:
        raise
    except pd.errors.EmptyDataError:
        raise HacError("the file is empty", str(path), "give a table with a header row") from None
    except Exception as e:  # pandas and pyarrow raise a dozen unrelated types for broken files
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise HacError(
            f"not readable as a table: {reason}",
            str(path),
            "is it complete, UTF-8, and of the type its name says?",
        ) from None


def write_npy(path: Path | str, array: np.ndarray) -> None:
    """Write one array as ``.npy``, atomically."""
    with atomic_path(path) as tmp, open(tmp, "wb") as f:
        np.save(f, np.ascontiguousarray(array), allow_pickle=False)


def read_npy(path: Path | str) -> np.ndarray:
    """Read one ``.npy`` array; pickles are refused."""
    try:
        with open(path, "rb") as f:
            return np.lib.format.read_array(f, allow_pickle=False)
    except FileNotFoundError:
        raise HacError("no such file", str(path)) from None
    except Exception as e:  # a damaged header is parsed as Python: its errors are many
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise HacError(
            f"not readable as an array: {reason}",
            str(path),
            "delete it and run the step that writes it again",
        ) from None


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, hex."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, hex."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()

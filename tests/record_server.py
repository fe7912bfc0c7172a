"""A small Zenodo on 127.0.0.1 for tests: serves records from a folder, and can misbehave.

By hand: ``python tests/record_server.py ROOT [PORT]`` serves ``ROOT/<record number>/<file>`` and prints
each request; then ``HAC_DATA_URL=http://127.0.0.1:PORT hac data get bsd10k``.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
import zipfile
import zlib
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd

PIECE = 1 << 14


@dataclass(frozen=True)
class Seen:
    """One request: the file (or "api"), its Range header ("" if none) and our status."""

    name: str
    range: str
    status: int


@dataclass
class Fault:
    kind: str  # "drop", "garble", "status"
    times: int
    at: float = 0.4
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()


class RecordServer:
    """Context manager. ``server.url`` is the base address, ``server.log`` what was asked for.

    Faults are set per file name ("api" is the record's description) and wear off after `times` requests.
    """

    def __init__(self, root: Path, port: int = 0, echo: bool = False) -> None:
        self.root, self.echo = Path(root), echo
        self.log: list[Seen] = []
        self.faults: dict[str, list[Fault]] = {}
        self.no_range = False
        self.delay = 0.0  # seconds between pieces of 16 KiB
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> RecordServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def drop(self, name: str, at: float = 0.4, times: int = 1) -> None:
        """Close the connection after this share of the answer."""
        self._add(name, Fault("drop", times, at=at))

    def garble(self, name: str, times: int = 1) -> None:
        """Send right-sized answers with one wrong byte."""
        self._add(name, Fault("garble", times))

    def answer(self, name: str, status: int, times: int = 1, headers: dict[str, str] | None = None) -> None:
        """Answer with an error status."""
        self._add(name, Fault("status", times, status=status, headers=tuple((headers or {}).items())))

    def _add(self, name: str, fault: Fault) -> None:
        self.faults.setdefault(name, []).append(fault)

    def take_fault(self, name: str) -> Fault | None:
        with self._lock:
            for fault in self.faults.get(name, []):
                if fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def note(self, seen: Seen) -> None:
        with self._lock:
            self.log.append(seen)
        if self.echo:
            print(seen.status, seen.name, seen.range, file=sys.stderr, flush=True)

    def requests(self, name: str) -> list[Seen]:
        """What was asked for under this file name."""
        return [seen for seen in self.log if seen.name == name]


class _Handler(BaseHTTPRequestHandler):
    owner: RecordServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = self.headers.get("Range", "")
        api = re.fullmatch(r"/api/records/(\d+)", path)
        file = re.fullmatch(r"/records/(\d+)/files/([^/]+)", path)
        number, name = (api[1], "api") if api else (file[1], file[2]) if file else ("", path)
        fault = self.owner.take_fault(name)
        if fault is not None and fault.kind == "status":
            self._send(Seen(name, asked, fault.status), b"trouble\n", dict(fault.headers))
            return
        folder = self.owner.root / number
        if api and folder.is_dir():
            self._send(Seen(name, asked, 200), listing(folder, self.owner.url), {"Content-Type": "application/json"})
        elif file and (folder / name).is_file():
            self._send_file(name, (folder / name).read_bytes(), asked, fault)
        else:
            self._send(Seen(name, asked, 404), b"not here\n", {})

    def _send_file(self, name: str, data: bytes, asked: str, fault: Fault | None) -> None:
        total, start = len(data), 0
        if fault is not None and fault.kind == "garble":
            data = data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"attachment; filename={name}",
        }
        match = re.fullmatch(r"bytes=(\d+)-", asked)
        status = 200
        if match and not self.owner.no_range:
            start = int(match[1])
            if start >= total:
                self._send(Seen(name, asked, 416), b"", {"Content-Range": f"bytes */{total}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        if not self.owner.no_range:
            headers["Accept-Ranges"] = "bytes"
        body = data[start:]
        stop = int(len(body) * fault.at) if fault is not None and fault.kind == "drop" else len(body)
        self._send(Seen(name, asked, status), body, headers, stop)

    def _send(self, seen: Seen, body: bytes, headers: dict[str, str], stop: int | None = None) -> None:
        self.owner.note(seen)
        self.send_response(seen.status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        try:
            for at in range(0, len(body) if stop is None else stop, PIECE):
                self.wfile.write(body[at : min(at + PIECE, len(body) if stop is None else stop)])
                if self.owner.delay:
                    time.sleep(self.owner.delay)
        except (BrokenPipeError, ConnectionResetError):  # the client was killed
            pass
        self.close_connection = True


def listing(folder: Path, url: str) -> bytes:
    """The record API's answer, as Zenodo writes it (the fields that matter)."""
    number, files = folder.name, []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        link = f"{url}/api/records/{number}/files/{path.name}/content"
        md5 = hashlib.md5(data).hexdigest()
        files.append({"key": path.name, "size": len(data), "checksum": f"md5:{md5}", "links": {"self": link}})
    return json.dumps({"id": int(number), "files": files}).encode()


# a small record ----------------------------------------------------------------------------------


def make_record(folder: Path, dataset: Path, *, features: bool = True, audio: bool = True, wrap: bool = True) -> Path:
    """Write README.md, metadata.zip, features.zip and audio.zip of a dataset folder into ``folder``.

    Parameters
    ----------
    folder : ``ROOT/<record number>`` of a :class:`RecordServer`
    dataset : folder in the official layout, such as the demo generator's ``BSD10k``
    wrap : members lie in a folder named like the zip (``metadata/…``), else at the top
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_bytes((dataset / "README.md").read_bytes())
    for part in ("metadata", "audio")[: 1 + audio]:
        files = {p.name: p.read_bytes() for p in sorted((dataset / part).iterdir()) if p.is_file()}
        write_zip(folder / f"{part}.zip", files, wrap=part if wrap else "")
    if features:
        (table,) = (dataset / "metadata").glob("*_metadata.csv")
        frame = pd.read_csv(table, dtype=str, keep_default_na=False)
        files = {}
        for stream, modality in enumerate(("audio", "text")):
            for sound_id, vector in zip(frame["sound_id"], embeddings(frame, stream), strict=True):
                files[f"clap_{modality}_embeddings/{sound_id}.npy"] = npy_bytes(vector)
        write_zip(folder / "features.zip", files, wrap="features" if wrap else "")
    return folder


def embeddings(frame: pd.DataFrame, stream: int, spread: float = 1.5) -> np.ndarray:
    """Made-up embeddings, float32 (n, 512), rows of norm 1, clips of a class and of a family near each other.

    `stream` is 0 for audio and 1 for text. Each row depends on its sound_id and class only.
    """
    rows = np.empty((len(frame), 512))
    for i, (sound_id, code) in enumerate(zip(frame["sound_id"], frame["class"], strict=True)):
        centre = _unit(stream, code.split("-")[0]) + _unit(stream, code)
        rows[i] = centre + spread * _unit(stream, "clip", sound_id)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _unit(stream: int, *words: str) -> np.ndarray:
    draw = np.random.default_rng([stream, *(zlib.crc32(w.encode()) for w in words)]).standard_normal(512)
    return draw / np.linalg.norm(draw)


def npy_bytes(array: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def write_zip(path: Path, files: dict[str, bytes], *, wrap: str = "") -> Path:
    """A deflated zip with the same bytes for the same files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        for name, data in files.items():
            info = zipfile.ZipInfo(f"{wrap}/{name}" if wrap else name, (2026, 1, 1, 0, 0, 0))
            info.external_attr = 0o100644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(info, data)
    return path


if __name__ == "__main__":
    with RecordServer(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, echo=True) as running:
        print(f"HAC_DATA_URL={running.url}", flush=True)
        threading.Event().wait()

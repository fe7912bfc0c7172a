"""Worker processes that may die: results in order, a bounded number ahead, a dead worker's task tried once more.

``concurrent.futures`` breaks the whole pool when one worker is killed, and its workers stay behind
when the main process is: here each worker has a pipe of its own, whose end tells either side.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from .errors import HacError

log = logging.getLogger(__name__)

#: Tasks given to a worker at a time: the second one keeps it busy while the first result travels.
_IN_FLIGHT = 2

#: So many deaths in a row are not the files' fault.
_MAX_DEATHS = 20


@dataclass(frozen=True)
class Died:
    """In place of a result: the worker process died twice on this task, or took too long."""

    reason: str


@dataclass(frozen=True)
class _Raised:
    text: str


def _send(pipe: Connection, result: Any) -> None:
    """Arrays go through the pipe as they are; ``pipe.send`` would copy them three times more."""
    parts: list[pickle.PickleBuffer] = []
    data = pickle.dumps(result, protocol=5, buffer_callback=parts.append)
    views = [part.raw() for part in parts]
    pipe.send((data, [view.nbytes for view in views]))
    for view in views:
        at = 0
        while at < view.nbytes:
            at += os.write(pipe.fileno(), view[at:])


def _receive(pipe: Connection) -> Any:
    data, sizes = pipe.recv()
    buffers = [np.empty(size, np.uint8) for size in sizes]
    for buffer in buffers:
        view, at = memoryview(buffer), 0
        while at < buffer.nbytes:
            got = os.readv(pipe.fileno(), [view[at:]])
            if got == 0:
                raise EOFError
            at += got
    return pickle.loads(data, buffers=buffers)


def _keep_memory() -> None:
    """Let glibc keep what is freed (blocks up to 32 MiB, 256 MiB in all) for the next use.

    Else every layer of a network asks the kernel for its output anew, and the pages are zeroed each time: a fifth of
    the time of CLAP. Other C libraries are left alone.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 256 << 20)  # M_TRIM_THRESHOLD


def _work(pipe: Connection, function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's business
    _keep_memory()
    try:
        while True:
            task = pipe.recv()
            try:
                result = function(task)
            except Exception:
                result = _Raised(traceback.format_exc())
            _send(pipe, result)
    except (EOFError, OSError):  # the main process is gone
        return


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    tasks: deque[int]
    since: float = 0.0


def ordered(
    function: Callable[[Any], Any], tasks: Sequence[Any], *, workers: int, ahead: int, seconds: float = 600.0
) -> Iterator[Any]:
    """``function(task)`` for each task, in order, computed in `workers` processes while the caller does other things.

    Parameters
    ----------
    function : a module-level function; an exception in it is raised here as RuntimeError
    ahead : results that may wait for the caller (as many again may wait for an earlier one)
    seconds : a task that takes longer is given up, and its worker killed

    Yields
    ------
    The results; :class:`Died` for a task that a worker process did not survive, twice.
    """
    results: queue.Queue = queue.Queue(ahead)
    stop = threading.Event()
    thread = threading.Thread(target=_feed, args=(function, tasks, workers, ahead, seconds, results, stop), daemon=True)
    thread.start()
    try:
        for _ in tasks:
            result = results.get()
            if isinstance(result, HacError):
                raise result
            if isinstance(result, _Raised):
                raise RuntimeError(f"in a worker process:\n{result.text}")
            yield result
    finally:
        stop.set()
        thread.join()


def _feed(
    function,
    tasks: Sequence[Any],
    count: int,
    ahead: int,
    seconds: float,
    results: queue.Queue,
    stop: threading.Event,
) -> None:
    """The thread behind :func:`ordered`: hands out tasks, collects results, replaces the dead."""
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__])  # imported once, not by every worker
    crew: list[_Worker] = []
    waiting = deque(range(len(tasks)))
    lost: dict[int, int] = {}
    done: dict[int, Any] = {}
    given = deaths = 0

    def hire() -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, function), daemon=True)
        process.start()
        theirs.close()
        crew.append(_Worker(process, ours, deque()))

    def dismiss(worker: _Worker, reason: str, tries: int) -> None:
        """Forget a dead worker; its first task was the one it died on."""
        nonlocal deaths
        crew.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        deaths += 1
        if worker.tasks:
            first = worker.tasks.popleft()
            lost[first] = lost.get(first, 0) + 1
            log.warning("a worker process died on task %d (%s)", first, reason)
            if lost[first] >= tries:
                done[first] = Died(reason)
            else:
                waiting.appendleft(first)
        waiting.extendleft(k for k in reversed(worker.tasks))

    try:
        while given < len(tasks) and not stop.is_set():
            if deaths >= _MAX_DEATHS:
                results.put(
                    HacError(
                        f"{deaths} worker processes died one after another",
                        f"{count} workers",
                        "is there enough memory? try fewer workers",
                    )
                )
                return
            while len(crew) < min(count, len(waiting) + sum(len(w.tasks) for w in crew)):
                hire()
            for worker in sorted(crew, key=lambda w: len(w.tasks)):
                while waiting and len(worker.tasks) < _IN_FLIGHT and min(waiting) < given + ahead:
                    k = waiting.popleft()
                    try:
                        worker.pipe.send(tasks[k])
                    except OSError:  # dead; found out below
                        waiting.appendleft(k)
                        break
                    worker.since = worker.since if worker.tasks else time.monotonic()
                    worker.tasks.append(k)
            for pipe in wait([w.pipe for w in crew], timeout=0.2):
                worker = next(w for w in crew if w.pipe is pipe)
                try:
                    result = _receive(pipe)
                except (EOFError, OSError):
                    dismiss(worker, "the worker process died on this file, twice", 2)
                    continue
                done[worker.tasks.popleft()] = result
                worker.since, deaths = time.monotonic(), 0
            for worker in [w for w in crew if w.tasks and time.monotonic() - w.since > seconds]:
                dismiss(worker, f"it took more than {seconds:.0f} s", 1)
            while given in done and not stop.is_set():
                try:
                    results.put(done[given], timeout=0.2)
                except queue.Full:
                    continue
                del done[given]
                given += 1
    except BaseException:
        results.put(_Raised(traceback.format_exc()))
    finally:
        for worker in crew:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()

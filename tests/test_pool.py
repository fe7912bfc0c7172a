"""Worker processes: results in order, a bounded number ahead; the dead are replaced, and nothing hangs."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from hac_utils.errors import HacError
from hac_utils.pool import Died, ordered


def square(k):
    time.sleep(0.002 * (k % 3))
    return k * k


def die_on_5(k):
    if k == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return k


def die_once(task):
    k, folder = task
    if k == 5 and not os.path.exists(f"{folder}/died"):
        open(f"{folder}/died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return k


def sleep_on_3(k):
    time.sleep(60 if k == 3 else 0)
    return k


def touch(task):
    k, folder = task
    open(f"{folder}/{k}", "w").close()
    return k


def refuse(k):
    raise KeyError("our own mistake")


def vanish(k):
    os._exit(1)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(workers):
    assert list(ordered(square, range(50), workers=workers, ahead=4)) == [k * k for k in range(50)]


def test_no_task_gives_no_result_and_starts_no_process():
    assert list(ordered(square, [], workers=2, ahead=4)) == []


def test_a_task_that_kills_its_worker_twice_is_named_and_the_others_are_done():
    out = list(ordered(die_on_5, range(20), workers=2, ahead=4))
    assert out[:5] + out[6:] == [k for k in range(20) if k != 5]
    assert isinstance(out[5], Died) and "died" in out[5].reason


def test_a_worker_killed_once_costs_nothing(tmp_path):
    assert list(ordered(die_once, [(k, str(tmp_path)) for k in range(20)], workers=2, ahead=4)) == list(range(20))
    assert (tmp_path / "died").exists()


def test_a_task_that_takes_too_long_is_given_up():
    began = time.monotonic()
    out = list(ordered(sleep_on_3, range(8), workers=2, ahead=4, seconds=3))
    assert isinstance(out[3], Died) and "more than 3 s" in out[3].reason
    assert out[:3] + out[4:] == [0, 1, 2, 4, 5, 6, 7] and time.monotonic() - began < 30


def test_workers_stop_when_enough_results_wait(tmp_path):
    results = ordered(touch, [(k, str(tmp_path)) for k in range(200)], workers=2, ahead=5)
    assert next(results) == 0
    time.sleep(1.0)
    assert len(list(tmp_path.iterdir())) <= 1 + 2 * 5 + 2 * 2 + 2
    assert list(results) == list(range(1, 200))


def test_a_caller_that_stops_early_leaves_no_process_behind():
    before = set(psutil.Process().children(recursive=True))
    results = ordered(square, range(10_000), workers=2, ahead=4)
    next(results)
    mine = [
        p
        for p in psutil.Process().children(recursive=True)
        if p not in before and "resource_tracker" not in " ".join(p.cmdline())
    ]
    results.close()
    gone, alive = psutil.wait_procs(mine, timeout=5)
    assert len(alive) <= 1  # the forkserver itself stays for the next pool


def test_an_exception_in_the_function_is_raised_here_with_its_traceback():
    with pytest.raises(RuntimeError, match="our own mistake"):
        list(ordered(refuse, range(3), workers=1, ahead=2))


def test_workers_that_keep_dying_are_one_error():
    with pytest.raises(HacError, match="died one after another"):
        list(ordered(vanish, range(100), workers=2, ahead=20))

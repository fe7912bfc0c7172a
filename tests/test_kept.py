"""Finished trainings are kept: a killed run goes on, a damaged or stale file is never used."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")

from hac_utils import kept, protocol, splits
from hac_utils.fitting import Fitted, Job
from hac_utils.heads import MLPHead
from hac_utils.taxonomy import CLASSES

RNG = np.random.default_rng(0)
X = RNG.normal(size=(92, 6)).astype(np.float32)
FRAME = pd.DataFrame({"sound_id": [str(i) for i in range(92)], "class": np.repeat(CLASSES, 4), "uploader": ""})
FOLDS = list(splits.folds_of(splits.official5(FRAME, folds=2)[0], FRAME))
HEAD = MLPHead(epochs=2, width=8)


def fit(keep, seeds=(0, 1)):
    return protocol.cross_fit({"h": HEAD}, lambda s, f: {"dev": X}, FRAME, FOLDS, seeds, workers=1, keep=keep)


def test_what_is_kept_is_taken_and_changes_nothing(tmp_path, monkeypatch):
    plain, first = fit(None), fit(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    monkeypatch.setattr(MLPHead, "fit", lambda *a, **k: pytest.fail("trained again"))
    again = fit(tmp_path)
    for name in ("scored", "history"):
        pd.testing.assert_frame_equal(getattr(plain, name), getattr(first, name))
        pd.testing.assert_frame_equal(getattr(plain, name), getattr(again, name))
    assert again.facts == plain.facts


def test_any_other_data_row_or_parameter_is_another_training():
    base = Job(HEAD, X, FRAME["class"].to_numpy(), FOLDS[0].train, FOLDS[0].val, {"scored": FOLDS[0].scored})
    other = X.copy()
    other[3, 2] += 1e-6
    changes = [
        {"estimator": MLPHead(epochs=3, width=8)},
        {"X": other},
        {"y": base.y[::-1]},
        {"train": base.train[1:]},
        {"val": None},
        {"predict": {"scored": FOLDS[1].scored}},
        {"sample_weight": np.ones(92)},
    ]
    keys = [kept.key_of(base)] + [kept.key_of(dataclasses.replace(base, **c)) for c in changes]
    assert len(set(keys)) == len(keys) and kept.key_of(dataclasses.replace(base, X=X.copy())) == keys[0]


def test_a_damaged_file_is_not_used(tmp_path):
    done = Fitted({"scored": np.eye(3)}, ["a", "b", "c"], [{"epoch": 1}], 5, "here", {"scored": np.arange(3.0)})
    kept.write(tmp_path, "k", done)
    path = tmp_path / "k.safetensors"
    back, whole = kept.read(tmp_path, "k"), path.read_bytes()
    assert np.array_equal(back.proba["scored"], np.eye(3)) and back.history == done.history
    assert np.array_equal(back.gate["scored"], np.arange(3.0)) and back.source == "here"
    for at in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[at] ^= 0xFF
        path.write_bytes(flipped)
        other = kept.read(tmp_path, "k")
        if other is not None:  # a bit that changes nothing, in padding
            assert other.history == done.history and np.array_equal(other.proba["scored"], np.eye(3))
    path.write_bytes(whole[:-1])
    assert kept.read(tmp_path, "k") is None and kept.read(tmp_path, "absent") is None


def test_killed_after_two_trainings_the_rest_is_made_and_the_result_is_the_same(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        sys.path.insert(0, os.path.dirname(sys.argv[1]))
        from pathlib import Path
        import test_kept as t
        from hac_utils import kept
        write, n = kept.write, []
        def counted(*args):
            write(*args)
            n.append(1)
            if len(n) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        kept.write = counted
        t.fit(Path(sys.argv[2]))
    """)
    done = subprocess.run([sys.executable, "-c", script, __file__, str(tmp_path)], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL and len(list(tmp_path.glob("*.safetensors"))) == 2
    pd.testing.assert_frame_equal(fit(tmp_path).scored, fit(None).scored)

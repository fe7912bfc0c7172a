"""compat: packages that fail beside a CPU torch import after ensure(), and nothing waits for a hub."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
import types

import pytest

from hac_utils import compat

no_torch = importlib.util.find_spec("torch") is None
needs_torch = pytest.mark.skipif(no_torch, reason="the train extra is not installed")
HOWS = {"native", "python-only", "absent"}


def run_python(code: str, **env: str) -> subprocess.CompletedProcess:
    """Run code in a fresh process without the hub settings of this one."""
    dropped = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HAC_ONLINE")
    clean = {k: v for k, v in os.environ.items() if k not in dropped} | env
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=clean, capture_output=True, text=True, timeout=120
    )


def need(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@needs_torch
def test_the_three_troublesome_packages_import_after_ensure():
    need("transformers", "hear21passt", "laion_clap")
    done = run_python("""
        from hac_utils.compat import ensure
        first = ensure()
        from transformers import RobertaForSequenceClassification
        import hear21passt.base
        import laion_clap
        import torchvision.transforms, torchaudio
        assert ensure() == first
        torchaudio.transforms.FrequencyMasking(4)
        print("HOW", first["torchvision"], first["torchaudio"])
    """)
    assert done.returncode == 0, done.stderr[-2000:]
    hows = next(line for line in done.stdout.splitlines() if line.startswith("HOW")).split()[1:]
    assert set(hows) <= HOWS - {"absent"}


@needs_torch
def test_a_model_hub_is_refused_at_once_instead_of_waited_for():
    need("transformers")
    done = run_python("""
        import time
        from hac_utils.compat import ensure
        ensure()
        from transformers import AutoTokenizer
        start = time.monotonic()
        try:
            AutoTokenizer.from_pretrained("roberta-base", cache_dir="/nonexistent-cache")
        except OSError:
            print("REFUSED", time.monotonic() - start < 5)
    """)
    assert "REFUSED True" in done.stdout, done.stdout + done.stderr[-2000:]


def test_the_hub_is_offline_by_default_and_a_choice_of_the_user_wins(monkeypatch):
    names = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
    for chosen, expected in [
        ({}, ["1", "1"]),
        ({"HAC_ONLINE": "1"}, [None, None]),
        ({"HF_HUB_OFFLINE": "0"}, ["0", None]),
    ]:
        environ = dict(chosen)
        monkeypatch.setattr(os, "environ", environ)
        compat._quiet_hub()
        assert [environ.get(name) for name in names] == expected


def test_importing_the_package_imports_no_torch_and_sets_no_environment():
    done = run_python("""
        import sys, os
        import hac_utils.compat
        assert "torch" not in sys.modules and "HF_HUB_OFFLINE" not in os.environ
    """)
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_absent(monkeypatch):
    monkeypatch.setattr(compat.importlib.util, "find_spec", lambda name: None)
    assert compat._torchvision() == "absent"
    assert compat._torchaudio() == "absent"


@needs_torch
def test_a_working_torchvision_and_torchaudio_are_left_alone(monkeypatch):
    monkeypatch.setattr(compat.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(compat.importlib, "import_module", lambda name: types.ModuleType(name))
    kept = list(compat._KEPT)
    assert (compat._torchvision(), compat._torchaudio()) == ("native", "native")
    assert compat._KEPT == kept


@needs_torch
def test_another_failure_of_torchvision_is_not_hidden(monkeypatch):
    def fails(name: str) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(compat.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(compat.importlib, "import_module", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        compat._torchvision()

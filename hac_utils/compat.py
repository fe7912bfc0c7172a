"""Make torchvision and torchaudio importable beside a CPU build of torch, and keep model hubs out of it.

The registry wheels of torchvision and torchaudio are linked against CUDA. Beside a CPU torch their
compiled parts do not load, and with them ``timm``, ``hear21passt``, ``laion_clap`` and even
``from transformers import RobertaForSequenceClassification`` fail. Their Python parts, all we use, work.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
import types
import warnings
from typing import Any

_DONE: dict[str, str] = {}
_KEPT: list[Any] = []  # torch.library.Library objects: their schemas vanish when they are collected

_NMS = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_QNMS = "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def ensure() -> dict[str, str]:
    """Prepare the process for transformers, timm, hear21passt and laion_clap. Call it before importing them.

    The native import is tried first. Only if it fails with the known message is the package purged,
    given what it misses, and imported again. Idempotent. So that nothing hangs in retries, model hubs
    are declared offline, unless ``HAC_ONLINE=1``, ``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE`` is set.

    Returns
    -------
    dict
        ``{"torchvision": how, "torchaudio": how}`` with how one of ``"native"``, ``"python-only"``
        (compiled operators missing) and ``"absent"``.
    """
    if not _DONE:
        _quiet_hub()
        _DONE.update(torchvision=_torchvision(), torchaudio=_torchaudio())
    return dict(_DONE)


def _quiet_hub() -> None:
    """Environment for the Hugging Face libraries, which read it when they are imported."""
    hub = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    if os.environ.get("HAC_ONLINE") != "1" and not any(name in os.environ for name in hub):
        os.environ.update(dict.fromkeys(hub, "1"))
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    constants = sys.modules.get("huggingface_hub.constants")  # imported before us: it has read already
    if constants is not None and os.environ.get("HF_HUB_OFFLINE") == "1":
        constants.HF_HUB_OFFLINE = True


def _purge(package: str) -> None:
    for name in [m for m in sys.modules if m == package or m.startswith(package + ".")]:
        del sys.modules[name]


def _torchvision() -> str:
    if importlib.util.find_spec("torchvision") is None or importlib.util.find_spec("torch") is None:
        return "absent"
    try:
        importlib.import_module("torchvision")
        return "native"
    except RuntimeError as e:
        if "torchvision::" not in str(e):
            raise
    import torch

    _purge("torchvision")
    library = torch.library.Library("torchvision", "DEF")
    library.define(_NMS)
    library.define(_QNMS)
    _KEPT.append(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that its image reader is missing too
        importlib.import_module("torchvision")
    return "python-only"


def _torchaudio() -> str:
    if importlib.util.find_spec("torchaudio") is None or importlib.util.find_spec("torch") is None:
        return "absent"
    try:
        importlib.import_module("torchaudio")
        return "native"
    except OSError:  # a CUDA library its .so is linked against
        pass
    _purge("torchaudio")
    stub = types.ModuleType("torchaudio._extension")
    stub._IS_TORCHAUDIO_EXT_AVAILABLE = False
    stub._IS_ALIGN_AVAILABLE = False
    stub.fail_if_no_align = lambda function: function
    sys.modules["torchaudio._extension"] = stub
    importlib.import_module("torchaudio")
    return "python-only"

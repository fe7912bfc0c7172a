"""Fitted heads on disk: weights as safetensors, the rest as JSON; nothing is unpickled.

A folder holds ``head.json`` and the weights it names, ``weights-<start of their SHA-256>.safetensors``. The JSON is
written last, so that a killed save leaves the old head, or none.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from .baselines import LogisticHead, NeighboursHead, ZeroShot
from .errors import HacError, did_you_mean, first_few
from .fitting import class_codes
from .hatr import HATR
from .heads import ConcatHead, GatedFusionHead, MLPHead
from .io import read_json, write_bytes, write_json

FORMAT = 1
FILE = "head.json"
NETWORKS = {c.__name__: c for c in (MLPHead, ConcatHead, GatedFusionHead, HATR)}
KNOWN = NETWORKS | {c.__name__: c for c in (LogisticHead, NeighboursHead, ZeroShot)}
_SAVE_AGAIN = "save the head again, or copy the whole folder again"


def save_head(estimator: Any, folder: Path | str) -> Path:
    """Write a fitted head into `folder`, atomically; a head that is there already is replaced.

    The same head gives the same bytes.

    Returns
    -------
    Path of ``head.json``.

    Raises
    ------
    HacError
        Not one of the heads and baselines, or not fitted.
    """
    from safetensors.numpy import save

    kind, folder = type(estimator).__name__, Path(folder)
    if type(estimator) is not KNOWN.get(kind):
        raise HacError(f"cannot save a {kind}", "save_head", "it saves " + ", ".join(KNOWN))
    if not hasattr(estimator, "history_"):
        raise HacError(f"this {kind} is not fitted", "save_head", "call fit first")
    arrays = {name: np.asarray(value, order="C") for name, value in _arrays(estimator).items()}
    data = save(arrays)
    digest = hashlib.sha256(data).hexdigest()
    params = {k: v for k, v in estimator.get_params(deep=False).items() if k != "class_vectors"}
    classes = params.get("classes")
    config = {
        "format": FORMAT,
        "class": kind,
        "params": params | ({} if classes is None else {"classes": [str(c) for c in classes]}),
        "classes": [str(c) for c in estimator.classes_],
        "n_features": int(estimator.n_features_in_),
        "n_parameters": int(estimator.n_parameters_),
        "history": estimator.history_,
        "best_epoch": getattr(estimator, "best_epoch_", None),
        "weights_sha256": digest,
    }
    write_bytes(folder / _weights_name(digest), data)
    write_json(folder / FILE, config)
    for old in sorted(folder.glob("weights-*.safetensors")):
        if old.name != _weights_name(digest):
            with contextlib.suppress(OSError):
                old.unlink()
    return folder / FILE


def load_head(folder: Path | str) -> Any:
    """Read a head that :func:`save_head` wrote; it predicts the same bytes on the same machine.

    Raises
    ------
    HacError
        No head there, another format version, an unknown class or parameter, weights whose hash or shapes are not
        those of the JSON.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = Path(folder) / FILE
    config = read_json(path)
    _check_config(config, path)
    weights = path.parent / _weights_name(config["weights_sha256"])
    try:
        data = weights.read_bytes()
    except OSError as e:
        raise HacError(f"the head's weights are not readable: {e.strerror}", str(weights), _SAVE_AGAIN) from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != config["weights_sha256"]:
        what = f"the weights have SHA-256 {digest[:12]}…, the head names {config['weights_sha256'][:12]}…"
        raise HacError(what, str(weights), _SAVE_AGAIN)
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError) as e:
        raise HacError(f"not readable as safetensors: {e}", str(weights), _SAVE_AGAIN) from None
    estimator = _estimator(config, arrays, path)
    estimator.classes_ = np.array(config["classes"])
    estimator.n_features_in_ = config["n_features"]
    estimator.n_parameters_ = config["n_parameters"]
    estimator.history_ = config["history"]
    if config["best_epoch"] is not None:
        estimator.best_epoch_ = config["best_epoch"]
    _check_arrays(estimator, arrays, str(weights))
    _restore(estimator, arrays)
    return estimator


def _weights_name(digest: str) -> str:
    return f"weights-{digest[:16]}.safetensors"


def _check_config(config: Any, path: Path) -> None:
    kinds = {
        "format": int,
        "class": str,
        "params": dict,
        "classes": list,
        "n_features": int,
        "n_parameters": int,
        "history": list,
        "best_epoch": (int, type(None)),
        "weights_sha256": str,
    }
    if not isinstance(config, dict):
        raise HacError("not a saved head", str(path), "give the folder that save_head wrote")
    if config.get("format") != FORMAT:
        what = f"format version {config.get('format')!r}; this program reads {FORMAT}"
        raise HacError(what, str(path), "save the head again with this version")
    odd = sorted(k for k, kind in kinds.items() if not isinstance(config.get(k, ...), kind))
    if odd:
        raise HacError(f"entries missing or of the wrong kind: {first_few(odd)}", str(path), _SAVE_AGAIN)
    digest = config["weights_sha256"]
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise HacError("weights_sha256 is not a SHA-256", str(path), _SAVE_AGAIN)
    if config["class"] not in KNOWN:
        raise HacError(f"unknown class of head {config['class']!r}", str(path), did_you_mean(config["class"], KNOWN))
    if config["n_features"] < 1:
        raise HacError(f"n_features is {config['n_features']}", str(path), _SAVE_AGAIN)


def _estimator(config: dict, arrays: dict[str, np.ndarray], path: Path) -> Any:
    """The estimator, not fitted, with its parameters."""
    kind = KNOWN[config["class"]]
    known = set(kind().get_params(deep=False)) - {"class_vectors"}
    if set(config["params"]) != known:
        odd = sorted(set(config["params"]) ^ known)
        raise HacError(f"unknown or missing parameters {first_few(odd)}", f"{path}, params", _SAVE_AGAIN)
    if class_codes(config["params"].get("classes")).tolist() != config["classes"]:
        raise HacError("classes differ from those of the parameters", str(path), _SAVE_AGAIN)
    vectors = {"class_vectors": arrays.get("class_vectors")} if kind is ZeroShot else {}
    return kind(**config["params"], **vectors)


def _arrays(estimator: Any) -> dict[str, np.ndarray]:
    """What was learned, by name."""
    if type(estimator).__name__ in NETWORKS:
        return {k: v.detach().cpu().numpy() for k, v in estimator.network_.state_dict().items()}
    return estimator.learned_


def _skeleton(estimator: Any) -> Any:
    """The network without values: shapes alone, and no memory, whatever numbers the JSON holds."""
    import torch

    with torch.device("meta"):
        return estimator._network(estimator.n_features_in_, len(estimator.classes_))


def _check_arrays(estimator: Any, arrays: dict[str, np.ndarray], where: str) -> None:
    """Refuse arrays that are not those of the estimator: names, types, shapes, and class numbers."""
    d, k = estimator.n_features_in_, len(estimator.classes_)
    if type(estimator).__name__ in NETWORKS:
        try:
            state = _skeleton(estimator).state_dict()
        except (TypeError, ValueError, RuntimeError) as e:
            raise HacError(f"no network of these parameters: {e}", where, _SAVE_AGAIN) from None
        wanted = {name: (str(value.dtype).removeprefix("torch."), *value.shape) for name, value in state.items()}
    elif isinstance(estimator, ZeroShot):
        wanted = {"class_vectors": ("float32", k, d)}
    elif isinstance(estimator, NeighboursHead):
        n = arrays["target"].size if "target" in arrays else 0
        wanted = {"rows": ("float32", n, d), "target": ("int64", n)}
    else:
        m = arrays["seen"].size if "seen" in arrays else 0
        wanted = {name: ("float64", d) for name in ("mean", "scale")}
        wanted |= {"coef": ("float64", m, d), "intercept": ("float64", m), "seen": ("int64", m)}
    found = {name: (str(value.dtype), *value.shape) for name, value in arrays.items()}
    wrong = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        what = f"weights of other shapes than the head's: {first_few(wrong)}; {name} is {found.get(name)}"
        raise HacError(f"{what}, not {wanted.get(name)}", where, _SAVE_AGAIN)
    for name in {"target", "seen"} & set(arrays):
        if not len(arrays[name]) or arrays[name].min() < 0 or arrays[name].max() >= k:
            raise HacError(f"{name} holds numbers that are no class", where, _SAVE_AGAIN)


def _restore(estimator: Any, arrays: dict[str, np.ndarray]) -> None:
    if type(estimator).__name__ not in NETWORKS:
        estimator.learned_ = arrays
        return
    import torch

    network = _skeleton(estimator).to_empty(device="cpu")
    network.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()})
    estimator.network_ = network.eval()

"""CLAP models from checkpoints: laion-clap's own code or transformers', filled with the same weights."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io as _io
import json
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from .errors import HacError

BACKENDS = ("transformers", "laion")
_FIX = "hac weights get clap"

# checkpoints -------------------------------------------------------------------------------------


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Tensors of a laion-clap checkpoint by name, without the ``module.`` of parallel training.

    Nothing in the file is executed: besides tensors only numpy's numbers, which the published file
    also holds (epoch, optimizer), are let through.

    Raises
    ------
    HacError
        Missing, damaged, with anything else inside, or not a model.
    """
    import torch

    path = Path(path)
    scalar = np.float64(0).__reduce__()[0]  # how numpy rebuilds a number
    allowed = [(scalar, f"numpy.{name}.multiarray.scalar") for name in ("core", "_core")]
    allowed += [np.dtype, *(type(np.dtype(kind)) for kind in "fdilqIQ?")]
    try:
        with torch.serialization.safe_globals(allowed):
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise HacError("no such file", str(path), _FIX) from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as e:
        raise HacError(f"not loaded as a checkpoint: {first_line(e)}", str(path), _FIX) from None
    state = data.get("state_dict", data) if isinstance(data, dict) else None
    if not isinstance(state, dict) or not any(isinstance(v, torch.Tensor) for v in state.values()):
        raise HacError("holds no model weights", str(path), _FIX)
    state = {k.removeprefix("module."): v for k, v in state.items()}
    state.pop("text_branch.embeddings.position_ids", None)  # a buffer that transformers no longer keeps
    return state


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class Shape:
    """Sizes of a fused CLAP model; the defaults are those of the published one (HTSAT-tiny, RoBERTa base)."""

    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    layers: int = 12
    hidden: int = 768
    inner: int = 3072
    vocabulary: int = 50_265
    positions: int = 514

    @property
    def features(self) -> int:
        return self.width * 2 ** (len(self.depths) - 1)

    @classmethod
    def of(cls, state: dict[str, Any], where: str) -> Shape:
        """As found in a laion-clap state; a :class:`HacError` if it is not that of a fused HTSAT model."""
        try:
            state["audio_branch.patch_embed.mel_conv2d.weight"]  # only fused models have it
            found = [(_BIAS_TABLE.fullmatch(name), value) for name, value in state.items()]
            blocks = sorted((int(m[1]), int(m[2]), v.shape[1]) for m, v in found if m)
            stages = sorted({stage for stage, _, _ in blocks})
            words = state["text_branch.embeddings.word_embeddings.weight"]
            return cls(
                width=state["audio_branch.patch_embed.proj.weight"].shape[0],
                depths=tuple(sum(b[0] == stage for b in blocks) for stage in stages),
                heads=tuple(next(b[2] for b in blocks if b[0] == stage) for stage in stages),
                layers=len({k.split(".")[3] for k in state if k.startswith("text_branch.encoder.layer.")}),
                hidden=words.shape[1],
                inner=state["text_branch.encoder.layer.0.intermediate.dense.weight"].shape[0],
                vocabulary=words.shape[0],
                positions=state["text_branch.embeddings.position_embeddings.weight"].shape[0],
            )
        except KeyError as e:
            what = f"not a fused CLAP checkpoint (HTSAT and RoBERTa): it has no {e.args[0]}"
            raise HacError(what, where, _FIX) from None


#: Of each block: its stage, its place, and (second dimension) its attention heads.
_BIAS_TABLE = re.compile(r"audio_branch\.layers\.(\d+)\.blocks\.(\d+)\.attn\.relative_position_bias_table")
_RENAMED = (
    (r"^text_branch\.", "text_model."),
    (r"^audio_branch\.bn0\.", "audio_model.audio_encoder.batch_norm."),
    (r"^audio_branch\.", "audio_model.audio_encoder."),
    (r"^(audio|text)_projection\.0\.", r"\1_projection.linear1."),
    (r"^(audio|text)_projection\.2\.", r"\1_projection.linear2."),
    (r"(blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"(blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    (r"(blocks\.\d+)\.attn\.proj\.", r"\1.attention.output.dense."),
    (r"(blocks\.\d+)\.attn\.", r"\1.attention.self."),
)
#: Parts of laion-clap's model that give no embedding: its own spectrogram, the AudioSet head, training heads.
_UNUSED = re.compile(
    r"audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\.|(audio|text)_transform\.|.*\.attn_mask$"
)


def convert_laion_state(state: dict[str, Any]) -> dict[str, Any]:
    """A laion-clap state (see :func:`read_checkpoint`) under the names of ``transformers.ClapModel``."""
    out = {}
    for name, value in state.items():
        if _UNUSED.match(name):
            continue
        for pattern, new in _RENAMED:
            name = re.sub(pattern, new, name)
        if ".attention.self.qkv." in name:  # one matrix there, three here
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                out[name.replace(".qkv.", f".{part}.")] = third.clone()
        else:
            out[name] = value
    return out


# models ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Both libraries print while they load."""
    with contextlib.redirect_stdout(_io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _replaced(module: ModuleType, **names: Any) -> Iterator[None]:
    before = {name: getattr(module, name) for name in names}
    vars(module).update(names)
    try:
        yield
    finally:
        vars(module).update(before)


def _laion_model(shape: Shape) -> Any:
    """laion-clap's CLAP with fresh weights.

    Its package is entered by the inner door: ``import laion_clap`` fetches three tokenizers, and the model's
    constructor fetches a RoBERTa, whose weights the checkpoint replaces.
    """
    spec = importlib.util.find_spec("laion_clap")
    if spec is None:
        raise HacError("laion-clap is not installed", "backend 'laion'", "pip install 'hac-utils[clap]'")
    package = str(Path(spec.submodule_search_locations[0]))
    sys.path.append(package)
    try:
        module = importlib.import_module("clap_module.model")
        htsat = importlib.import_module("clap_module.htsat")
    finally:
        sys.path.remove(package)
    from transformers import RobertaConfig, RobertaModel

    roberta = RobertaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=max(1, shape.hidden // 64),
        intermediate_size=shape.inner,
        max_position_embeddings=shape.positions,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )

    def audio_branch(config: Any, fusion: bool, kind: str) -> Any:
        return htsat.HTSAT_Swin_Transformer(
            embed_dim=shape.width,
            depths=list(shape.depths),
            num_heads=list(shape.heads),
            num_classes=config.class_num,
            config=config,
            enable_fusion=fusion,
            fusion_type=kind,
        )

    settings = json.loads((Path(package) / "clap_module/model_configs/HTSAT-tiny.json").read_text())
    settings["text_cfg"]["model_type"] = "roberta"
    names = {"RobertaModel": SimpleNamespace(from_pretrained=lambda name: RobertaModel(roberta))}
    if (shape.width, shape.depths, shape.heads) != (Shape.width, Shape.depths, Shape.heads):
        settings["embed_dim"] = shape.features
        names["create_htsat_model"] = audio_branch
    with _replaced(module, **names):
        return module.CLAP(**settings, enable_fusion=True, fusion_type="aff_2d")


def _transformers_model(shape: Shape, part: str) -> Any:
    """transformers' audio or text half of ClapModel, with fresh weights."""
    from transformers import ClapAudioConfig, ClapTextConfig
    from transformers.models.clap import modeling_clap

    if part == "audio":
        config = ClapAudioConfig(
            enable_fusion=True,
            fusion_type="aff_2d",
            patch_embeds_hidden_size=shape.width,
            hidden_size=shape.features,
            depths=list(shape.depths),
            num_attention_heads=list(shape.heads),
        )
        return modeling_clap.ClapAudioModelWithProjection(config)
    config = ClapTextConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=max(1, shape.hidden // 64),
        intermediate_size=shape.inner,
        max_position_embeddings=shape.positions,
        layer_norm_eps=1e-5,  # RoBERTa's
    )
    return modeling_clap.ClapTextModelWithProjection(config)


def fill(model: Any, state: dict[str, Any], where: str) -> None:
    """Load all of `state`, which must hold all of the model (but for counters that are no weights)."""
    own = ("position_ids", "token_type_ids")
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as e:
        raise HacError(f"the weights do not fit: {str(e).splitlines()[-1].strip()}", where, _FIX) from None
    missing = [name for name in missing if not name.endswith(own)]
    if missing or unexpected:
        first = [*missing, *unexpected][0]
        what = f"{len(missing)} weights missing, {len(unexpected)} unknown; the first: {first}"
        raise HacError(what, where, _FIX)


def build(file: Path | None, backend: str, part: str) -> Any:
    """The "audio" or "text" encoder of CLAP, as a torch module of the backend's library.

    Parameters
    ----------
    file : a checkpoint of laion-clap (.pt), the model file of a Hugging Face folder (transformers only), or
        None for random weights from torch's generator as it stands

    Raises
    ------
    HacError
        Damaged, not a fused CLAP model, or with weights missing.
    """
    where = str(file)
    with quiet():
        if file is not None and file.suffix != ".pt":
            return _from_hub(file, part)
        state = None if file is None else read_checkpoint(file)
        shape = Shape() if state is None else Shape.of(state, where)
        model = _laion_model(shape) if backend == "laion" else _transformers_model(shape, part)
        if state is not None:
            if backend == "transformers":
                state = {
                    k: v
                    for k, v in convert_laion_state(state).items()
                    if k.startswith((f"{part}_model.", f"{part}_projection."))
                }
            fill(model, state, where)
        if backend == "laion":  # the half that is not used
            delattr(model, "text_branch" if part == "audio" else "audio_branch")
        return model


def _from_hub(file: Path, part: str) -> Any:
    from safetensors import SafetensorError
    from transformers.models.clap import modeling_clap

    kind = getattr(modeling_clap, f"Clap{part.capitalize()}ModelWithProjection")
    try:
        model, info = kind.from_pretrained(file.parent, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, pickle.UnpicklingError, SafetensorError) as e:
        raise HacError(f"not loaded as a CLAP model: {first_line(e)}", str(file), _FIX) from None
    if missing := sorted(info["missing_keys"]):
        raise HacError(f"{len(missing)} weights missing; the first: {missing[0]}", str(file), _FIX)
    if part == "audio" and not model.config.enable_fusion:
        raise HacError("not a fused CLAP model", str(file), "use laion/clap-htsat-fused")
    return model

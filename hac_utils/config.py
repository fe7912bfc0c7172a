"""A profile: the settings of a run, read once from YAML into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import HacError, did_you_mean


@dataclass(frozen=True)
class CorpusSettings:
    """Size and seed of the synthetic demo corpus (profile kind "demo")."""

    clips: int = 1400
    noisy: int = 1100
    evaluation: int = 253
    seed: int = 0


@dataclass(frozen=True)
class SplitSettings:
    """Folds, the seed of the official baseline's splits, and a split table of your own in place of `fixed`."""

    folds: int = 5
    seed: int = 1821
    file: str = ""


@dataclass(frozen=True)
class HeadSettings:
    """Training of the heads (report, Sec. 3.1: AdamW 1e-3, cosine, label smoothing .1, dropout .3)."""

    epochs: int = 30
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.3
    label_smoothing: float = 0.1
    precision: str = "float32"


@dataclass(frozen=True)
class HatrSettings:
    """Training of the official baseline: at most so many epochs, stopped after `patience` without a better one."""

    epochs: int = 100
    patience: int = 15


@dataclass(frozen=True)
class RobertaSettings:
    """The fine-tuned text model; `weights` empty means a small RoBERTa trained from scratch."""

    weights: str = ""
    layers: int = 2
    hidden: int = 128
    heads: int = 4
    vocab_size: int = 4000
    max_tokens: int = 64
    epochs: int = 6
    batch_size: int = 32
    lr: float = 1e-3


@dataclass(frozen=True)
class PasstSettings:
    """The fine-tuned audio model: hear21passt's PaSST in a small configuration, from scratch."""

    seconds: float = 2.0
    embed_dim: int = 96
    depth: int = 3
    heads: int = 3
    epochs: int = 6
    batch_size: int = 16
    lr: float = 1e-3


@dataclass(frozen=True)
class EnsembleSettings:
    """Table 3 of the report: member weights and the strength of logit adjustment."""

    F: float = 0.55
    A: float = 0.25
    R: float = 1.0
    P: float = 0.5
    tau: float = 0.5


@dataclass(frozen=True)
class SubmissionSettings:
    """Who submits; goes into the file names and every meta.yaml."""

    lastname: str = "Lastname"
    firstname: str = "Firstname"
    email: str = "firstname.lastname@example.org"
    affiliation: str = "Inst"
    institute: str = "Institute"
    location: str = "City, Country"


@dataclass(frozen=True)
class Profile:
    """Everything a run is told. See ``configs/*.yaml``."""

    kind: str
    title: str
    synthetic: bool = False
    records: list[str] = field(default_factory=lambda: ["bsd10k"])
    data: str = ""
    noisy: str = ""
    evaluation: str = ""
    audio_encoder: str = "logmel"
    text_encoder: str = "tfidf"
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    tuning_seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    tuning_protocols: list[str] = field(default_factory=lambda: ["fixed"])
    workers: int = 2
    corpus: CorpusSettings = CorpusSettings()
    splits: SplitSettings = SplitSettings()
    head: HeadSettings = HeadSettings()
    hatr: HatrSettings = HatrSettings()
    baselines: list[str] = field(default_factory=lambda: ["hatr audio", "hatr", "logistic", "neighbours", "zero-shot"])
    baseline_seeds: list[int] = field(default_factory=lambda: [0])
    baseline_protocols: list[str] = field(default_factory=lambda: ["official5", "uploader5"])
    text_systems: bool = False
    roberta: RobertaSettings = RobertaSettings()
    passt: PasstSettings = PasstSettings()
    ensemble: EnsembleSettings = EnsembleSettings()
    submission: SubmissionSettings = SubmissionSettings()


_CHOICES = {
    "kind": ("demo", "folder", "records"),
    "audio_encoder": ("logmel", "clap", "clap-random", "clap-provided"),
    "text_encoder": ("tfidf", "minilm", "clap", "clap-provided"),
    "head.precision": ("float32", "bfloat16"),
}


def _build(cls: type, values: Any, where: str, at: str = "") -> Any:
    if not isinstance(values, dict):
        raise HacError(
            f"{at or 'the profile'} must be a mapping, not {type(values).__name__}",
            where,
            "write it as 'key: value' lines",
        )
    hints = typing.get_type_hints(cls)
    out = {}
    for key, value in values.items():
        name = f"{at}.{key}" if at else str(key)
        if key not in hints:
            raise HacError(f"unknown key {name!r}", where, did_you_mean(key, hints))
        out[key] = _value(hints[key], value, where, name)
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.name not in out and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise HacError(f"missing key {missing[0]!r}", where, f"add a line '{missing[0]}: …'")
    return cls(**out)


def _value(hint: Any, value: Any, where: str, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where, name)
    if isinstance(hint, types.GenericAlias):  # list[int], list[str]
        (inner,) = hint.__args__
        if not isinstance(value, list) or not value:
            raise HacError(
                f"{name} must be a list of {inner.__name__} with at least one entry, got {value!r}",
                where,
                f"for example {name}: [0, 1, 2]",
            )
        return [_value(inner, v, where, f"{name}[{i}]") for i, v in enumerate(value)]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise HacError(
            f"{name} must be {hint.__name__}, got {value!r} ({type(value).__name__})",
            where,
            f"give a value of type {hint.__name__}",
        )
    if hint in (int, float) and not 0 <= value < 2**32:  # also NaN and infinity; seeds must fit in 32 bits
        raise HacError(
            f"{name} must be at least 0 and below 2**32, got {value!r}",
            where,
            "give a finite number that is not negative",
        )
    allowed = _CHOICES.get(name)
    if allowed and value not in allowed:
        raise HacError(f"{name} cannot be {value!r}", where, did_you_mean(value, allowed))
    return value


def read_profile(path: Path | str) -> Profile:
    """Read a profile file.

    Raises
    ------
    HacError
        No such file, not YAML, an unknown key (with the nearest known name), a wrong type.
    """
    import yaml

    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise HacError(f"no profile {path.stem!r}", str(path), did_you_mean(path.stem, known)) from None
    except OSError as e:
        raise HacError(f"not readable: {e.strerror}", str(path), "give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise HacError(
            f"not readable as YAML: {str(e).splitlines()[0]}",
            str(path),
            "check the indentation near that line",
        ) from None
    profile = _build(Profile, values, str(path))
    for name in ("seeds", "tuning_seeds", "baseline_seeds"):
        seeds = getattr(profile, name)
        if len(set(seeds)) != len(seeds):
            raise HacError(
                f"{name} must be different integers, got {seeds}", str(path), f"for example {name}: [0, 1, 2]"
            )
    if profile.splits.folds < 2:
        raise HacError(
            f"splits.folds must be at least 2, got {profile.splits.folds}",
            str(path),
            "use 5, the official number",
        )
    return profile

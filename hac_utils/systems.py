"""Systems by name, as notebook 02 and ``hac train`` train them: the report's heads, the official baseline, plain picks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from .baselines import LogisticHead, NeighboursHead, ZeroShot, class_prompts
from .config import HatrSettings, HeadSettings
from .errors import HacError, did_you_mean
from .hatr import HATR
from .heads import ConcatHead, GatedFusionHead, MLPHead

#: Name -> what it is, in words for tables.
SYSTEMS = {
    "audio": "sound alone",
    "text": "text alone",
    "concat": "sound + text, concatenated",
    "gated": "sound + text, gated",
    "hatr audio": "official baseline, sound alone",
    "hatr": "official baseline, sound + text",
    "logistic": "logistic regression, sound + text",
    "neighbours": "10 nearest neighbours, sound + text",
    "zero-shot": "zero-shot CLAP, sound against class names",
}

#: Systems that see the sound only, and those that see the text only; all others see both where there is sound.
SOUND_ONLY, TEXT_ONLY = ("audio", "hatr audio", "zero-shot"), ("text",)


def build(
    names: Sequence[str],
    head: HeadSettings,
    hatr: HatrSettings,
    *,
    audio_dim: int | None,
    class_vectors: np.ndarray | None = None,
) -> dict[str, Any]:
    """Estimators by name.

    Parameters
    ----------
    names : of :data:`SYSTEMS`
    audio_dim : width of the audio embedding, None in a run without sounds: systems that need one are left out
    class_vectors : (23, d) text vectors of the class prompts, for "zero-shot"

    Raises
    ------
    HacError
        An unknown name.
    """
    unknown = [n for n in names if n not in SYSTEMS]
    if unknown:
        raise HacError(f"no system {unknown[0]!r}", "systems", did_you_mean(unknown[0], SYSTEMS))
    training, baseline = dataclasses.asdict(head), dataclasses.asdict(hatr)
    made = {
        "audio": lambda: MLPHead(**training),
        "text": lambda: MLPHead(**training),
        "concat": lambda: ConcatHead(**training, audio_dim=audio_dim),
        "gated": lambda: GatedFusionHead(**training, audio_dim=audio_dim),
        "hatr audio": lambda: HATR(modalities=1, **baseline),
        "hatr": lambda: HATR(modalities=2, audio_dim=audio_dim, **baseline),
        "logistic": LogisticHead,
        "neighbours": NeighboursHead,
        "zero-shot": lambda: ZeroShot(class_vectors),
    }
    needs_sound = {*SOUND_ONLY, "concat", "gated", "hatr"}
    return {name: made[name]() for name in names if audio_dim is not None or name not in needs_sound}


def inputs(system: str, audio: dict[str, np.ndarray] | None, text: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Corpus -> X of a system: one embedding, or sound and text side by side, (n, d_audio + d_text)."""
    if system in SOUND_ONLY:
        assert audio is not None
        return audio
    if system in TEXT_ONLY or audio is None:
        return text
    return {corpus: np.hstack([audio[corpus], text[corpus]]) for corpus in text}


def zero_shot_vectors(text_encoder: Any) -> np.ndarray:
    """Text vectors of the 23 class prompts, by the text tower of the audio embeddings; float32 (23, d)."""
    return text_encoder.encode(class_prompts())

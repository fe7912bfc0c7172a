"""The encoders by name, for profiles and the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .clap import ClapEncoder, ClapTextEncoder
from .encoders import LogMelEncoder
from .errors import HacError, did_you_mean
from .minilm import MiniLMEncoder
from .passt import PasstEncoder

#: name -> function of the device; the "-random" ones are untrained: for trying out and for tests.
AUDIO: dict[str, Callable[[str], Any]] = {
    "logmel": lambda device: LogMelEncoder(),
    "clap": lambda device: ClapEncoder(device=device),
    "clap-random": lambda device: ClapEncoder(weights="random", device=device),
    "passt": lambda device: PasstEncoder(device=device),
    "passt-random": lambda device: PasstEncoder(weights="random", device=device),
}
TEXT: dict[str, Callable[[str], Any]] = {
    "clap": lambda device: ClapTextEncoder(device=device),
    "minilm": lambda device: MiniLMEncoder(device=device),
}


def audio_encoder(name: str, device: str = "cpu") -> Any:
    """The audio encoder of that name; missing weights are an error that names the command."""
    if name not in AUDIO:
        raise HacError(f"no audio encoder {name!r}", "encoder", did_you_mean(name, AUDIO))
    return AUDIO[name](device)


def text_encoder(name: str, device: str = "cpu") -> Any:
    """The frozen text encoder of that name."""
    if name not in TEXT:
        raise HacError(f"no frozen text encoder {name!r}", "encoder", did_you_mean(name, TEXT))
    return TEXT[name](device)

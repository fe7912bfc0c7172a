"""The Broad Sound Taxonomy (BST): 5 families and their 23 second-level classes."""

from __future__ import annotations

import numpy as np

FAMILIES: dict[str, str] = {
    "m": "Music",
    "is": "Instrument samples",
    "sp": "Speech",
    "fx": "Sound effects",
    "ss": "Soundscapes",
}

#: code -> name, in taxonomy order (the order of class_idx 101 … 504 in v1.2, 0 … 22 in v1.1).
NAMES: dict[str, str] = {
    "m-sp": "solo percussion",
    "m-si": "solo instrument",
    "m-m": "multiple instruments",
    "is-p": "percussion",
    "is-s": "string",
    "is-w": "wind",
    "is-k": "piano, keyboard instruments",
    "is-e": "synths, electronic",
    "sp-s": "solo speech",
    "sp-c": "conversation, crowd",
    "sp-p": "processed, synthetic",
    "fx-o": "objects, house appliances",
    "fx-v": "vehicles",
    "fx-m": "other mechanisms, engines, machines",
    "fx-h": "human sounds and actions",
    "fx-a": "animals",
    "fx-n": "natural elements, explosions",
    "fx-ex": "experimental",
    "fx-el": "electronic, design",
    "ss-n": "nature",
    "ss-i": "indoors",
    "ss-u": "urban",
    "ss-s": "synthetic, artificial",
}

CLASSES: tuple[str, ...] = tuple(NAMES)
N_CLASSES: int = len(CLASSES)
INDEX: dict[str, int] = {code: i for i, code in enumerate(CLASSES)}

_BASE = {"m": 100, "is": 200, "sp": 300, "fx": 400, "ss": 500}


def family(code: str) -> str:
    """Family of a class code: ``"fx-el"`` -> ``"fx"``."""
    return code.split("-", 1)[0]


def _v12_index() -> dict[str, int]:
    count: dict[str, int] = {}
    out = {}
    for code in CLASSES:
        fam = family(code)
        count[fam] = count.get(fam, 0) + 1
        out[code] = _BASE[fam] + count[fam]
    return out


#: code -> class_idx of BSD10k v1.2 (101 … 504).
CLASS_IDX: dict[str, int] = _v12_index()

#: position of each class's family in FAMILIES, int, shape (23,).
FAMILY_OF: np.ndarray = np.array([list(FAMILIES).index(family(c)) for c in CLASSES])

#: ``SAME_FAMILY[i, j]``: classes i and j share a family, bool, shape (23, 23).
SAME_FAMILY: np.ndarray = FAMILY_OF[:, None] == FAMILY_OF[None, :]


def is_leftover(code: str) -> bool:
    """True for ``-other`` and family-only codes (``"fx-other"``, ``"fx"``), which the task drops."""
    return code in FAMILIES or (code.endswith("-other") and family(code) in FAMILIES)


def long_name(code: str) -> str:
    """``"fx-el"`` -> ``"Sound effects / electronic, design"``."""
    return f"{FAMILIES[family(code)]} / {NAMES[code]}"

"""How title, tags and description become the one text that is embedded, and which way the challenge used.

The template of the provided text embeddings is published nowhere we looked. The candidates are what
the teams write and plain variants of it; :func:`choose_template` shows which one gives the provided vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from .datasets import join_text
from .encoders import unit_rows
from .errors import HacError

#: Below this cosine two embeddings of one clip are not the same.
SAME = 0.99

FIELDS = ("title", "tags", "description")
Template = Callable[[pd.DataFrame], list[str]]
#: ids and their vectors (n, d), as extraction and :func:`features.load` give them
Vectors = tuple[Sequence[str], np.ndarray]


def _raw(joiner: str, tags: str = ",", fields: Sequence[str] = FIELDS) -> Template:
    """The cells as they are, tags' commas as `tags`, empty cells left out."""

    def fill(frame: pd.DataFrame) -> list[str]:
        columns = [frame[f].fillna("").str.replace(",", tags) if f == "tags" else frame[f].fillna("") for f in fields]
        return [joiner.join(v for v in row if v) for row in zip(*columns, strict=True)]

    return fill


def _kucukoglu(frame: pd.DataFrame) -> list[str]:
    return [text[:400] or "a sound" for text in join_text(frame)]


def _haz(frame: pd.DataFrame) -> list[str]:
    columns = [frame[f].fillna("").replace("", "nan") for f in FIELDS]
    return [". ".join(row)[:512] for row in zip(*columns, strict=True)]


def _six(frame: pd.DataFrame) -> list[str]:
    return [text or "sound" for text in _raw(" ", " ", ("tags", "description"))(frame)]


#: Name -> function of a metadata table (columns title, tags, description) to one text per row.
TEMPLATES: dict[str, Template] = {
    "title. tags. description (no HTML)": join_text,
    "title. tags. description": _raw(". "),
    "title. tags (spaces). description": _raw(". ", " "),
    "title. tags (comma, space). description": _raw(". ", ", "),
    "title tags description": _raw(" "),
    "title tags (spaces) description": _raw(" ", " "),
    "title, tags, description": _raw(", "),
    "title. description. tags": _raw(". ", fields=("title", "description", "tags")),
    "description": _raw("", fields=("description",)),
    "NYU team: no HTML, 400 characters": _kucukoglu,
    "HAZ team: 512 characters, nan": _haz,
    "SIX team: tags description": _six,
}

#: The template used where none was chosen.
DEFAULT = TEMPLATES["title. tags. description"]


def compare(extracted: Vectors, provided: Vectors) -> pd.DataFrame:
    """Cosine of two embeddings of the same clips.

    Parameters
    ----------
    extracted, provided : (ids, vectors (n, d)); clips that only one has are left out

    Returns
    -------
    table (sound_id, cosine), in the order of `extracted`; NaN where a vector is zero or not finite
    """
    (ids, X), (others, Y) = extracted, provided
    X, Y = np.asarray(X), np.asarray(Y)
    for kind, names, vectors in (("extracted", ids, X), ("provided", others, Y)):
        if vectors.ndim != 2 or len(names) != len(vectors):
            raise HacError(f"{len(names)} ids, vectors of shape {vectors.shape}", kind, "give ids and (n, d)")
    if X.shape[1] != Y.shape[1]:
        fix = "are both from the same encoder?"
        raise HacError(f"vectors of {X.shape[1]} and of {Y.shape[1]} values", "extracted, provided", fix)
    rows = pd.Index(others).get_indexer(list(ids))
    both = rows >= 0
    a, b = unit_rows(X[both]).astype(np.float64), unit_rows(Y[rows[both]]).astype(np.float64)
    cosine = (a * b).sum(axis=1)
    cosine[~(a.any(axis=1) & b.any(axis=1))] = np.nan
    table = pd.DataFrame({"sound_id": np.asarray(ids, dtype=object)[both], "cosine": cosine})
    return table.astype({"sound_id": "str"})


def choose_template(
    encode: Callable[[list[str]], np.ndarray], frame: pd.DataFrame, provided: Vectors, *, limit: int = 200
) -> pd.DataFrame:
    """How near each template's embeddings are to the provided ones.

    Parameters
    ----------
    encode : texts -> (n, d), such as ``ClapTextEncoder().encode``
    frame : metadata with the columns sound_id, title, tags, description
    provided : ids and text embeddings that came with the data
    limit : clips to try, spread evenly over those that have one; 0 takes all

    Returns
    -------
    table (template, n, mean_cosine, lowest, below), best first
        ``below`` is the number of clips under `SAME`; equals keep the order of `TEMPLATES`.
    """
    known = frame[frame["sound_id"].isin(list(provided[0]))]
    if known.empty:
        raise HacError("no clip has a provided text embedding", "provided", "hac data get bsd10k")
    if limit and len(known) > limit:
        known = known.iloc[np.linspace(0, len(known) - 1, limit).round().astype(int)]
    texts = {name: template(known) for name, template in TEMPLATES.items()}
    unique = list(dict.fromkeys(text for column in texts.values() for text in column))
    vectors, place = encode(unique), {text: i for i, text in enumerate(unique)}
    rows = []
    for name, column in texts.items():
        table = compare((known["sound_id"].tolist(), vectors[[place[text] for text in column]]), provided)
        cosine = table["cosine"]
        rows.append((name, len(table), cosine.mean(), cosine.min(), int((~(cosine >= SAME)).sum())))
    found = pd.DataFrame(rows, columns=["template", "n", "mean_cosine", "lowest", "below"])
    return found.sort_values("mean_cosine", ascending=False, kind="stable", ignore_index=True)

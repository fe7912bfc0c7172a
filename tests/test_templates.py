"""Text templates: how metadata become one text, and which way gives the provided embeddings."""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd
import pytest

from hac_utils.errors import HacError
from hac_utils.templates import TEMPLATES, choose_template, compare

FRAME = pd.DataFrame(
    {
        "sound_id": ["1", "2", "3"],
        "title": ["Rain.wav", "Dog, barking", ""],
        "tags": ["rain,tin-roof", "", "a,b"],
        "description": ["Heavy <b>rain</b>, on tin", "A dog", ""],
    }
)


def encode(texts: list[str], dim: int = 16) -> np.ndarray:
    """A different random direction for each text."""
    return np.stack([np.random.default_rng(zlib.crc32(t.encode())).standard_normal(dim) for t in texts])


def test_templates_write_what_their_names_say():
    lines = {name: template(FRAME) for name, template in TEMPLATES.items()}
    assert lines["title. tags. description (no HTML)"] == [
        "Rain.wav. rain tin-roof. Heavy rain , on tin",
        "Dog, barking. A dog",
        "a b",
    ]
    assert lines["title. tags. description"][0] == "Rain.wav. rain,tin-roof. Heavy <b>rain</b>, on tin"
    assert lines["title. tags (spaces). description"][0] == "Rain.wav. rain tin-roof. Heavy <b>rain</b>, on tin"
    assert lines["title. tags (comma, space). description"][2] == "a, b"
    assert lines["title, tags, description"][1] == "Dog, barking, A dog"
    assert lines["title. description. tags"][0] == "Rain.wav. Heavy <b>rain</b>, on tin. rain,tin-roof"
    assert lines["description"] == ["Heavy <b>rain</b>, on tin", "A dog", ""]
    assert lines["HAZ team: 512 characters, nan"][1:] == ["Dog, barking. nan. A dog", "nan. a,b. nan"]
    assert lines["SIX team: tags description"] == ["rain tin-roof Heavy <b>rain</b>, on tin", "A dog", "a b"]


def test_team_templates_cut_and_fall_back():
    empty = pd.DataFrame({"title": ["", "x" * 600], "tags": ["", ""], "description": ["", "y"]})
    first, long = TEMPLATES["NYU team: no HTML, 400 characters"](empty)
    assert first == "a sound" and long == "x" * 400
    assert TEMPLATES["SIX team: tags description"](empty)[0] == "sound"
    assert TEMPLATES["HAZ team: 512 characters, nan"](empty) == ["nan. nan. nan", "x" * 512]


def test_missing_cells_are_as_empty_ones():
    gaps = FRAME.replace("", None)
    for name, template in TEMPLATES.items():
        assert template(gaps) == template(FRAME), name


@pytest.mark.parametrize("used", TEMPLATES)
def test_the_template_in_use_is_found(used):
    frame = pd.DataFrame({c: [f"{c} {i}, <i>{i}</i>" for i in range(30)] for c in ("title", "tags", "description")})
    frame["sound_id"] = [str(i) for i in range(30)]
    provided = frame["sound_id"].tolist()[::-1], encode(TEMPLATES[used](frame))[::-1]
    table = choose_template(encode, frame, provided)
    best = table.iloc[0]
    assert list(table.columns) == ["template", "n", "mean_cosine", "lowest", "below"] and len(table) == len(TEMPLATES)
    assert best["mean_cosine"] == pytest.approx(1, abs=1e-6) and best["below"] == 0 and best["n"] == 30
    exact = table[table["mean_cosine"] > 0.999]["template"].tolist()
    assert used in exact and len(exact) <= 3  # some differ only where cells are empty or long


def test_only_clips_with_a_provided_embedding_are_tried_spread_evenly():
    n = 1000
    frame = pd.DataFrame(
        {
            "sound_id": [str(i) for i in range(n)],
            "title": [f"t{i}" for i in range(n)],
            "tags": "",
            "description": "",
        }
    )
    ids = [str(i) for i in range(0, n, 2)]
    seen = []

    def watch(texts):
        seen.extend(texts)
        return encode(texts)

    table = choose_template(watch, frame, (ids, encode([f"t{i}" for i in ids])), limit=11)
    assert set(table["n"]) == {11} and {f"t{i}" for i in (0, 998)} <= set(seen)
    assert len(seen) == len(set(seen))  # no text twice
    assert set(choose_template(encode, frame, (ids, encode(ids)), limit=0)["n"]) == {500}
    with pytest.raises(HacError, match="no clip has a provided text embedding"):
        choose_template(encode, frame, (["x"], encode(["x"])))


def test_compare_matches_by_id_and_ignores_length():
    X = np.array([[1.0, 0], [0, 2], [3, 4], [1, 1]])
    table = compare((["a", "b", "c", "d"], X), (["c", "a", "b", "z"], np.array([[4.0, 3], [5, 0], [0, -1], [1, 1]])))
    assert table["sound_id"].tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(table["cosine"], [1, -1, 0.96], atol=1e-7)


def test_compare_says_nothing_of_zero_or_broken_vectors():
    X = np.array([[1.0, 0], [0, 0], [np.nan, 1]])
    cosine = compare((list("abc"), X), (list("abc"), np.ones((3, 2))))["cosine"]
    assert cosine[0] == pytest.approx(0.5**0.5) and np.isnan(cosine[1]) and np.isnan(cosine[2])


def test_compare_refuses_what_cannot_be_compared():
    with pytest.raises(HacError, match="2 ids, vectors of shape \\(3, 4\\)"):
        compare((["a", "b"], np.ones((3, 4))), (["a"], np.ones((1, 4))))
    with pytest.raises(HacError, match="vectors of 4 and of 5 values"):
        compare((["a"], np.ones((1, 4))), (["a"], np.ones((1, 5))))

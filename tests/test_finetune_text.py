"""RobertaClassifier: learns, repeats itself to the bit, and refuses what it cannot use."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the train extra is not installed")

import torch
from sklearn.base import clone

from hac_utils.errors import HacError
from hac_utils.finetune_text import RobertaClassifier
from hac_utils.metrics import hierarchical_f1
from hac_utils.taxonomy import CLASSES

FAMILY_WORDS = {"fx-a": ["dog", "barking", "cat"], "m-m": ["song", "band"], "ss-u": ["street", "city"]}
COMMON = ["recorded", "with", "a", "zoom", "in", "the", "morning", "loud", "long", "stereo"]
TINY = {"layers": 1, "hidden": 32, "heads": 2, "vocab_size": 320, "max_tokens": 24, "epochs": 10}
TINY |= {"lr": 4e-3, "batch_size": 16}


def toy(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Texts of common words and one word that gives the class away."""
    rng = np.random.default_rng([7, seed])
    y = rng.choice(sorted(FAMILY_WORDS), n)
    return [" ".join(rng.permutation([*rng.choice(COMMON, 5), rng.choice(FAMILY_WORDS[c])])) for c in y], y


@pytest.fixture(scope="module")
def fitted() -> RobertaClassifier:
    return RobertaClassifier(**TINY).fit(*toy(240, 0), val=toy(60, 1))


def test_it_learns_words_that_belong_to_one_class(fitted):
    texts, y = toy(200, 2)
    assert np.mean(fitted.predict(texts) == y) > 0.9


def test_three_classes_in_training_still_give_23_columns_that_sum_to_one(fitted):
    proba = fitted.predict_proba(toy(20, 2)[0])
    assert proba.shape == (20, 23) and proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    assert (proba > 0).all()
    assert fitted.classes_.tolist() == sorted(CLASSES)


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_callers_torch_alone(fitted):
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    again = clone(fitted).fit(*toy(240, 0), val=toy(60, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert threads == torch.get_num_threads()
    texts = toy(20, 2)[0]
    assert again.predict_proba(texts).tobytes() == fitted.predict_proba(texts).tobytes()
    assert again.history_ == fitted.history_


def test_another_process_gives_the_same_bytes():
    code = (
        "import hashlib, test_finetune_text as t\n"
        "m = t.RobertaClassifier(**t.TINY | {'epochs': 1}).fit(*t.toy(64, 0))\n"
        "print(hashlib.sha256(m.predict_proba(t.toy(8, 2)[0]).tobytes()).hexdigest())"
    )
    folder = Path(__file__).parent
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    here = RobertaClassifier(**TINY | {"epochs": 1}).fit(*toy(64, 0)).predict_proba(toy(8, 2)[0])
    assert done.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest(), done.stderr


def test_different_seeds_differ():
    texts, y = toy(48, 0)
    models = (RobertaClassifier(**TINY | {"epochs": 1}, seed=s).fit(texts, y) for s in (0, 1))
    a, b = (model.predict_proba(texts) for model in models)
    assert np.abs(a - b).max() > 1e-4


def test_the_order_of_the_texts_is_irrelevant(fitted):
    texts = [*toy(150, 3)[0], "", "dog"]
    turned = fitted.predict_proba(texts[::-1])[::-1]
    np.testing.assert_allclose(turned, fitted.predict_proba(texts), atol=1e-6)


def test_the_kept_weights_are_those_of_the_best_validation_epoch(fitted):
    val_texts, val_y = toy(60, 1)
    kept = hierarchical_f1(val_y, fitted.predict(val_texts), never_predicted="zero")
    assert kept == max(h["val_hF"] for h in fitted.history_)
    assert [h["epoch"] for h in fitted.history_] == list(range(1, 11))


def test_without_validation_there_is_no_score():
    model = RobertaClassifier(**TINY | {"epochs": 2}).fit(*toy(48, 0))
    assert [h["val_hF"] for h in model.history_] == [None, None]


def test_the_parameter_count_is_the_one_worked_out_on_paper(fitted):
    v, d, k, positions = len(fitted.tokenizer_), 32, 23, 24 + 2
    embeddings = (v + positions + 1) * d + 2 * d  # words, positions, one type, LayerNorm
    attention = 4 * (d * d + d) + 2 * d  # query, key, value, output, LayerNorm
    feed_forward = (d * 2 * d + 2 * d) + (2 * d * d + d) + 2 * d
    head = (d * d + d) + (d * k + k)
    assert fitted.n_parameters_ == embeddings + attention + feed_forward + head
    assert v <= TINY["vocab_size"]
    assert fitted.source_ == "small RoBERTa (1 layers, 32) trained from scratch on this corpus"


def test_the_tokenizer_sees_training_texts_only_and_frames_each_text(fitted):
    ids = fitted._encode(["dog", "Dog", ""])
    assert ids[0] == ids[1] and ids[2] == [0, 2]
    assert ids[0][0] == 0 and ids[0][-1] == 2
    assert len(fitted._encode(["dog " * 100])[0]) == 24
    unseen = fitted._encode(["xylophone"])[0]
    assert len(unseen) > 6 and 3 not in unseen  # bytes, never <unk>


def test_classes_can_be_fixed_to_fewer_codes():
    model = RobertaClassifier(**TINY | {"epochs": 1}, classes=["ss-u", "fx-a", "m-m", "is-p"])
    model.fit(*toy(48, 0))
    assert model.classes_.tolist() == ["fx-a", "is-p", "m-m", "ss-u"]
    assert model.predict_proba(["dog"]).shape == (1, 4)


def test_balanced_weights_raise_the_rare_class():
    texts, y = toy(200, 0)
    keep = (y != "fx-a") | (np.cumsum(y == "fx-a") <= 4)
    texts, y = [t for t, k in zip(texts, keep, strict=True) if k], y[keep]
    mean = {}
    for balanced in (False, True):
        model = RobertaClassifier(**TINY | {"epochs": 2}, balanced=balanced).fit(texts, y)
        mean[balanced] = model.predict_proba(toy(100, 2)[0])[:, model.classes_.tolist().index("fx-a")].mean()
    assert mean[True] > mean[False]


@pytest.mark.parametrize(
    ("texts", "y", "options", "said"),
    [
        (["dog", float("nan")], ["fx-a", "fx-a"], {}, "rows that are no text: 1 (1)"),
        (["dog", "cat"], ["fx-a", "fx-dog"], {}, "unknown labels: 1 (fx-dog)"),
        (["dog", "cat"], ["fx-a", float("nan")], {}, "unknown labels: 1 (nan)"),
        (["dog", "cat"], ["fx-a"], {}, "2 rows, but labels of shape (1,)"),
        ([], [], {}, "no texts"),
        (["dog"], ["fx-a"], {"epochs": 0}, "epochs is 0"),
        (["dog"], ["fx-a"], {"lr": float("nan")}, "lr is nan"),
        (["dog"], ["fx-a"], {"heads": 3}, "hidden=32 is not a multiple of heads=3"),
        (["dog"], ["fx-a"], {"vocab_size": 100}, "vocab_size is 100"),
        (["dog"], ["fx-a"], {"classes": ["fx-q"]}, "unknown class 'fx-q'"),
    ],
)
def test_bad_input_is_named(texts, y, options, said):
    with pytest.raises(HacError) as caught:
        RobertaClassifier(**TINY | options).fit(texts, y)
    assert said in str(caught.value)


def test_bad_validation_rows_are_named():
    with pytest.raises(HacError, match="val y"):
        RobertaClassifier(**TINY).fit(["dog"], ["fx-a"], val=(["dog"], ["zz"]))


def test_missing_weights_say_how_to_get_them(tmp_path):
    with pytest.raises(HacError) as caught:
        RobertaClassifier(weights=str(tmp_path / "roberta")).fit(["dog"], ["fx-a"])
    assert caught.value.fix == "hac weights get roberta" and "config.json is missing" in caught.value.what


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "roberta"
    fitted.model_.save_pretrained(folder)
    fitted.tokenizer_.save_pretrained(folder)
    return folder


def test_weights_from_a_folder_are_used(saved, fitted):
    texts, y = toy(100, 2)
    model = RobertaClassifier(**TINY | {"epochs": 1, "lr": 0.0}, weights=str(saved)).fit(texts, y)
    np.testing.assert_allclose(model.predict_proba(texts), fitted.predict_proba(texts), atol=1e-6)
    assert model.source_ == str(saved)


def test_weights_for_other_classes_get_a_new_head(saved):
    few = RobertaClassifier(**TINY | {"epochs": 1}, weights=str(saved), classes=list(FAMILY_WORDS))
    few.fit(*toy(48, 0))
    assert few.predict_proba(["dog"]).shape == (1, 3)


def test_a_text_longer_than_the_pretrained_model_reads_is_an_error(saved):
    with pytest.raises(HacError, match="this model reads 24"):
        RobertaClassifier(**TINY | {"max_tokens": 64}, weights=str(saved)).fit(["dog"], ["fx-a"])


def test_an_empty_tokenizer_is_an_error(saved, tmp_path):
    from transformers import RobertaConfig

    for broken in ("empty", "torn"):
        shutil.copytree(saved, tmp_path / broken)
    for file in (tmp_path / "empty").glob("*token*"):
        file.unlink()
    RobertaConfig(vocab_size=320, hidden_size=32).save_pretrained(tmp_path / "empty")
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(HacError, match="tokenizer|cannot be read"):
        RobertaClassifier(**TINY, weights=str(tmp_path / "empty")).fit(["dog"], ["fx-a"])
    with pytest.raises(HacError, match="cannot be read"):
        RobertaClassifier(**TINY, weights=str(tmp_path / "torn")).fit(["dog"], ["fx-a"])

"""PasstClassifier: hear21passt's front end, only faster; learns, repeats to the bit, refuses bad clips."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("hear21passt", reason="the passt extra is not installed")

import torch
from sklearn.base import clone

from hac_utils.errors import HacError
from hac_utils.finetune_audio import PasstClassifier, _front
from hac_utils.metrics import hierarchical_f1
from hac_utils.taxonomy import CLASSES

RATE = 8000
TINY = {"sample_rate": RATE, "seconds": 1.0, "embed_dim": 32, "depth": 1, "heads": 2, "epochs": 14}
TINY |= {"patchout_f": 1, "patchout_t": 1, "lr": 3e-3, "batch_size": 8}


def toy(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Low tones, high tones and noise, at random levels."""
    rng = np.random.default_rng([11, seed])
    y = rng.choice(["is-e", "is-w", "ss-n"], n)
    t = np.arange(RATE) / RATE
    band = {"is-e": (200, 500), "is-w": (1500, 3000)}
    waves = np.empty((n, RATE))
    for wave, c in zip(waves, y, strict=True):
        noise = c == "ss-n"
        wave[:] = rng.normal(0, 0.2, RATE) if noise else 0.3 * np.sin(2 * np.pi * rng.uniform(*band[c]) * t)
    return (waves * rng.uniform(0.3, 1, (n, 1))).astype(np.float32), y


@pytest.fixture(scope="module")
def fitted() -> PasstClassifier:
    return PasstClassifier(**TINY).fit(*toy(160, 0), val=toy(48, 1))


def test_it_tells_tones_from_noise(fitted):
    waves, y = toy(90, 2)
    assert np.mean(fitted.predict(waves) == y) > 0.8


def test_three_classes_in_training_still_give_23_columns_that_sum_to_one(fitted):
    proba = fitted.predict_proba(toy(10, 2)[0])
    assert proba.shape == (10, 23) and proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    assert fitted.classes_.tolist() == sorted(CLASSES)


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_callers_torch_alone(fitted):
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    again = clone(fitted).fit(*toy(160, 0), val=toy(48, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert threads == torch.get_num_threads()
    waves = toy(10, 2)[0]
    assert again.predict_proba(waves).tobytes() == fitted.predict_proba(waves).tobytes()
    assert again.history_ == fitted.history_


def test_different_seeds_differ():
    waves, y = toy(32, 0)
    models = (PasstClassifier(**TINY | {"epochs": 1}, seed=s).fit(waves, y) for s in (0, 1))
    a, b = (model.predict_proba(waves) for model in models)
    assert np.abs(a - b).max() > 1e-4


def test_prediction_is_not_augmented_and_does_not_depend_on_the_order(fitted):
    waves = toy(40, 3)[0]
    once = fitted.predict_proba(waves)
    assert once.tobytes() == fitted.predict_proba(waves).tobytes()
    np.testing.assert_allclose(fitted.predict_proba(waves[::-1])[::-1], once, atol=1e-5)


def test_the_kept_weights_are_those_of_the_best_validation_epoch(fitted):
    waves, y = toy(48, 1)
    kept = hierarchical_f1(y, fitted.predict(waves), never_predicted="zero")
    assert kept == max(h["val_hF"] for h in fitted.history_)


@pytest.mark.parametrize("training", [False, True])
def test_the_front_end_equals_hear21passts_own(training):
    from hear21passt.models.preprocess import AugmentMelSTFT

    front = _front(32000, 32000)
    own = AugmentMelSTFT(
        n_mels=128, sr=32000, win_length=800, hopsize=640, n_fft=1024, freqm=24, timem=10, htk=False,
        fmin=0.0, fmax=15000, norm=1, fmin_aug_range=10, fmax_aug_range=2000,
    )  # fmt: skip
    x = torch.tensor(np.random.default_rng(5).normal(0, 0.1, (4, 32000)), dtype=torch.float32)
    made = []
    for front_end in (front, own):
        front_end.train(training)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch: the library's stft call is deprecated
                made.append(front_end(x))
    assert made[0].shape == (4, 128, front.frames) == (4, 128, 50)
    torch.testing.assert_close(made[0], made[1], atol=2e-5, rtol=0)
    assert training == bool((made[0] == (0.0 + 4.5) / 5).any())  # a masked cell holds exactly this


def test_the_parameter_count_is_the_one_worked_out_on_paper(fitted):
    d, k, rows, columns = 32, 23, 8, 3  # 50 frames hold 3 whole patches
    patches = 16 * 16 * d + d
    tokens = d + d + rows * d + columns * d  # class token, its position, rows, columns
    block = 2 * d + (3 * d * d + 3 * d) + (d * d + d) + 2 * d + (2 * d * d + 2 * d) + (2 * d * d + d)
    head = 2 * d + 2 * d + d * k + k  # final LayerNorm, the head's own, the linear layer
    assert fitted.n_parameters_ == patches + tokens + block + head
    assert fitted.source_ == "small PaSST (1 layers, 32, 1 s) trained from scratch on this corpus"


def test_fitting_prints_nothing(capsys):
    PasstClassifier(**TINY | {"epochs": 1}).fit(*toy(16, 0))
    assert capsys.readouterr().out == ""


def test_mixup_makes_the_training_loss_higher():
    """Mixed targets cannot be met: with three classes at hand the best loss is the entropy of the shares."""
    waves, y = toy(160, 0)
    plain, mixed = (PasstClassifier(**TINY, mixup=m, label_smoothing=0.0).fit(waves, y) for m in (0.0, 1.0))
    assert mixed.history_[-1]["loss"] > 0.3 > plain.history_[-1]["loss"]


def test_other_float_types_and_memory_maps_are_read(fitted, tmp_path):
    waves = toy(6, 2)[0]
    np.save(tmp_path / "w.npy", waves)
    mapped = np.load(tmp_path / "w.npy", mmap_mode="r")
    assert fitted.predict_proba(mapped).tobytes() == fitted.predict_proba(waves).tobytes()
    assert fitted.predict_proba(waves.astype(np.float64)).tobytes() == fitted.predict_proba(waves).tobytes()


def _with_nan() -> np.ndarray:
    waves = toy(3, 0)[0]
    waves[1, 5] = np.nan
    return waves


@pytest.mark.parametrize(
    ("waves", "y", "options", "said"),
    [
        (_with_nan(), ["ss-n"] * 3, {}, "NaN or infinite samples: rows 1 (1)"),
        (toy(2, 0)[0][:, :-1], ["ss-n"] * 2, {}, "give floats of shape (n, 8000)"),
        (toy(2, 0)[0].astype(np.int16), ["ss-n"] * 2, {}, "int16"),
        (toy(2, 0)[0][:0], [], {}, "waveforms of shape (0, 8000)"),
        (toy(2, 0)[0], ["ss-n"], {}, "2 rows, but labels of shape (1,)"),
        (toy(2, 0)[0], ["ss-n", "ss-x"], {}, "unknown labels: 1 (ss-x)"),
        (toy(2, 0)[0], ["ss-n"] * 2, {"patchout_t": 3}, "patchout_t=3, but there are 3 patches"),
        (toy(2, 0)[0], ["ss-n"] * 2, {"heads": 3}, "embed_dim=32 is not a multiple of heads=3"),
        (toy(2, 0)[0][:, :800], ["ss-n"] * 2, {"seconds": 0.1}, "seconds=0.1 gives 5 frames"),
        (toy(2, 0)[0], ["ss-n"] * 2, {"mixup": -1}, "mixup is -1"),
    ],
)
def test_bad_input_is_named(waves, y, options, said):
    with pytest.raises(HacError) as caught:
        PasstClassifier(**TINY | options).fit(waves, y)
    assert said in str(caught.value)

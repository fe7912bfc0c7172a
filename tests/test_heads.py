"""The heads: sizes worked out on paper, honest training, clear errors."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")

from sklearn.base import clone
from sklearn.model_selection import cross_val_predict

from hac_utils.errors import HacError
from hac_utils.heads import RECIPES, ConcatHead, GatedFusionHead, MLPHead
from hac_utils.taxonomy import CLASSES

HEADS = [MLPHead, ConcatHead, GatedFusionHead]


def blobs(n=230, d=32, seed=0, spread=0.4, classes=CLASSES):
    """Noisy points around one centre per class; the centres do not depend on `seed`."""
    rng = np.random.default_rng(seed)
    y = np.array(classes)[np.arange(n) % len(classes)]
    centres = np.random.default_rng(99).normal(size=(len(CLASSES), d))
    X = centres[[CLASSES.index(c) for c in y]] + spread * rng.normal(size=(n, d))
    return X.astype(np.float32), y


def quick(head, **options):
    return head(**({"epochs": 8, "width": 32, "batch_size": 32, "lr": 3e-3} | options))


def test_parameter_counts_are_those_worked_out_on_paper():
    X, y = blobs(46, 512)
    both = np.hstack([X, X])
    # LayerNorm 2·512, Linear 512·512 + 512, Linear 512·23 + 23
    assert MLPHead(epochs=1).fit(X, y).n_parameters_ == 1024 + 262_656 + 11_799
    # LayerNorm 2·1024, Linear 1024·512 + 512, Linear 512·23 + 23
    assert ConcatHead(epochs=1).fit(both, y).n_parameters_ == 2048 + 524_800 + 11_799
    # two LayerNorms 2·1024, gate 1024·512 + 512 and 512·512 + 512, W_a and W_t 2·(512·512 + 512), out 512·23 + 23
    assert GatedFusionHead(epochs=1).fit(both, y).n_parameters_ == 2048 + 524_800 + 262_656 + 525_312 + 11_799


@pytest.mark.parametrize("head", HEADS)
def test_a_head_learns_what_can_be_learned_and_keeps_the_contract(head):
    X, y = blobs()
    test_X, test_y = blobs(seed=1)
    fitted = quick(head, epochs=25).fit(X, y, val=blobs(seed=2))
    proba = fitted.predict_proba(test_X)
    assert proba.shape == (len(test_y), 23) and proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    assert fitted.classes_.tolist() == sorted(CLASSES)
    assert (fitted.predict(test_X) == test_y).mean() > 0.9
    assert len(fitted.history_) == 25 and fitted.history_[-1]["loss"] < fitted.history_[0]["loss"]


@pytest.mark.parametrize("head", HEADS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(head):
    X, y = blobs()
    first, again, other = (quick(head, seed=s, epochs=2).fit(X, y).predict_proba(X) for s in (0, 0, 1))
    assert first.tobytes() == again.tobytes() and first.tobytes() != other.tobytes()


def test_training_leaves_the_global_generators_alone():
    import torch

    X, y = blobs()
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    quick(MLPHead, epochs=1).fit(X, y)
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads


def test_the_best_validation_epoch_is_the_one_that_is_kept():
    X, y = blobs(spread=2.0)
    val = blobs(seed=4, spread=2.0)
    fitted = quick(MLPHead, epochs=12).fit(X, y, val=val)
    scores = [h["val_hF"] for h in fitted.history_]
    assert scores[fitted.best_epoch_ - 1] == max(scores)
    from hac_utils.metrics import hierarchical_f1

    assert hierarchical_f1(val[1], fitted.predict(val[0]), never_predicted="zero") == pytest.approx(
        max(scores), abs=1e-12
    )


def test_concatenation_ignores_the_length_of_either_embedding():
    X, y = blobs(d=32)
    fitted = quick(ConcatHead, epochs=2).fit(X, y)
    scaled = X * np.repeat([7.0, 0.1], 16)
    np.testing.assert_allclose(fitted.predict_proba(scaled), fitted.predict_proba(X), atol=1e-5)


def test_a_constant_gate_makes_gated_fusion_a_linear_map_of_the_concatenation():
    import torch

    X, y = blobs(d=32)
    fitted = quick(GatedFusionHead, epochs=1).fit(X, y)
    net = fitted.network_
    with torch.no_grad():
        for p in net.gate[2].parameters():
            p.zero_()
        net.gate[2].bias += 0.7
        g = torch.sigmoid(torch.tensor(0.7))
        a, t, gates = net.gates(torch.tensor(X))
        assert torch.allclose(gates, g.expand_as(gates))
        weight = torch.cat([g * net.audio.weight, (1 - g) * net.text.weight], dim=1)
        bias = g * net.audio.bias + (1 - g) * net.text.bias
        expected = net.out(torch.cat([a, t], 1) @ weight.T + bias)
        assert torch.allclose(net(torch.tensor(X)), expected, atol=1e-5)


def test_the_gate_lies_between_text_and_audio():
    X, y = blobs(d=32)
    gate = quick(GatedFusionHead, epochs=1).fit(X, y).gate(X)
    assert gate.shape == (len(X),) and ((gate > 0) & (gate < 1)).all()


def test_sample_weights_of_zero_remove_clips():
    X, y = blobs(d=16)
    wrong = y.copy()
    wrong[115:] = np.roll(y[115:], 7)
    weight = np.r_[np.ones(115), np.zeros(len(y) - 115)]
    fitted = quick(MLPHead, epochs=25).fit(X, wrong, sample_weight=weight)
    assert (fitted.predict(X[115:]) == y[115:]).mean() > 0.8


def test_a_class_missing_in_training_keeps_its_column():
    X, y = blobs(classes=CLASSES[:5])
    proba = quick(MLPHead, epochs=1).fit(X, y).predict_proba(X)
    assert proba.shape[1] == 23


def test_heads_work_in_scikit_learn():
    X, y = blobs(classes=CLASSES[:4], n=60)
    head = quick(MLPHead, classes=list(CLASSES[:4]), epochs=15)
    assert clone(head).get_params() == head.get_params()
    assert (cross_val_predict(head, X, y, cv=3) == y).mean() > 0.8


def test_the_family_loss_puts_more_mass_into_the_right_family():
    X, y = blobs(spread=3.0)
    families = {h: quick(MLPHead, loss=h, epochs=3).fit(X, y) for h in ("cross_entropy", "hierarchical")}
    assert families["cross_entropy"].predict_proba(X).tobytes() != families["hierarchical"].predict_proba(X).tobytes()


def test_unit_embeddings_of_unequal_width_are_not_cut_in_the_middle():
    X, y = blobs(46, 20)
    parts = [p / np.linalg.norm(p, axis=1, keepdims=True) for p in (X[:, :12], X[:, 12:])]
    for head in (ConcatHead, GatedFusionHead):
        with pytest.raises(HacError, match="give audio_dim=12"):
            quick(head).fit(np.hstack(parts), y)
        quick(head, audio_dim=12, epochs=1).fit(np.hstack(parts), y)
        quick(head, epochs=1).fit(np.hstack([parts[0], parts[0]]), y)
        quick(head, epochs=1).fit(X, y)


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_named_recipe_is_a_set_of_parameters(recipe):
    X, y = blobs(46, 8)
    assert GatedFusionHead(**RECIPES[recipe]).set_params(epochs=1).fit(X, y).best_epoch_ == 1


def test_bad_input_is_one_clear_error_each():
    X, y = blobs(46, 8)
    fitted = quick(MLPHead, epochs=1).fit(X, y)
    nan = X.copy()
    nan[3, 2] = np.nan
    cases = [
        (lambda: fitted.predict_proba(X[:, :4]), "4 columns, the model was fitted on 8"),
        (lambda: fitted.predict_proba(nan), "NaN or infinite in rows 1 \\(3\\)"),
        (lambda: quick(MLPHead).fit(nan, y), "NaN or infinite"),
        (lambda: quick(MLPHead).fit(X, ["zz"] * 46), "unknown labels"),
        (lambda: quick(MLPHead).fit(X, y[:40]), "46 rows, but labels of shape \\(40,\\)"),
        (lambda: quick(MLPHead).fit(X, ["m-sp"] * 46), "only one class in y: m-sp"),
        (lambda: quick(MLPHead).fit(X[0], y), "shape \\(n, d\\)"),
        (lambda: quick(ConcatHead).fit(X[:, :7], y), "7 columns; fusion needs"),
        (lambda: quick(ConcatHead, audio_dim=8).fit(X, y), "audio_dim is 8, X has 8 columns"),
        (lambda: quick(GatedFusionHead, audio_dim=2.5).fit(X, y), "audio_dim is 2.5"),
        (lambda: quick(MLPHead, audio_dim=4).fit(X, y), "takes one embedding"),
        (lambda: quick(MLPHead, loss="mse").fit(X, y), "loss cannot be 'mse'"),
        (lambda: quick(MLPHead, precision="float16").fit(X, y), "precision cannot be 'float16'"),
        (lambda: quick(MLPHead, dropout=1.0).fit(X, y), "dropout is 1.0"),
        (lambda: quick(MLPHead, patience=-1).fit(X, y), "patience is -1"),
        (lambda: quick(MLPHead).fit(X, y, sample_weight=np.ones(3)), "sample weights of shape \\(3,\\) for 46 rows"),
        (lambda: quick(MLPHead).fit(X, y, val=(X[:, :4], y)), "val X has 4 columns, the model was fitted on 8"),
        (lambda: quick(MLPHead).fit(X, y, val=(X, ["zz"] * 46)), "val y"),
        (lambda: quick(MLPHead).fit(X[:0], y[:0]), "y is empty"),
        (lambda: quick(MLPHead, epochs=0).fit(X, y), "epochs is 0"),
    ]
    for call, message in cases:
        with pytest.raises(HacError, match=message):
            call()

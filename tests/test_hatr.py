"""The official baseline: its layers, its training recipe, and what the house asks of every estimator."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")

import torch
from sklearn.base import clone

from hac_utils import hatr
from hac_utils.errors import HacError
from hac_utils.fitting import private_torch
from hac_utils.hatr import HATR, augmented
from hac_utils.taxonomy import CLASSES


def blobs(n=184, d=8, seed=0, spread=0.3, classes=CLASSES):
    """Noisy points around one centre per class; the centres do not depend on `seed`."""
    rng = np.random.default_rng(seed)
    y = np.array(classes)[np.arange(n) % len(classes)]
    centres = np.random.default_rng(99).normal(size=(len(CLASSES), d))
    X = centres[[CLASSES.index(c) for c in y]] + spread * rng.normal(size=(n, d))
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def fitted():
    X, y = blobs(d=16)
    return HATR(epochs=3, batch_size=32).fit(X, y, val=blobs(d=16, seed=2))


def linear(i, o):
    return i * o + o


def residual(width, inner):
    return linear(width, inner) + 2 * inner + linear(inner, width) + 2 * width


ENCODER = 2 * 512 + linear(512, 512) + 3 * residual(512, 1024) + linear(512, 256) + linear(256, 128) + 2 * 128
TRUNK = linear(128, 256) + linear(256, 128) + linear(128, 64) + 2 * residual(64, 128) + linear(64, 32) + linear(32, 23)
FUSION = linear(256, 128) + linear(128, 2)


def test_parameter_counts_are_those_of_the_official_network():
    both, one = HATR()._network(1024, 23), HATR(modalities=1)._network(512, 23)
    count = [sum(p.numel() for p in net.parameters()) for net in (both, one)]
    assert count == [2 * ENCODER + FUSION + TRUNK, ENCODER + TRUNK] == [7_319_513, 3_698_647]


def test_layers_stand_in_the_official_order_with_the_official_dropout():
    net = HATR()._network(1024, 23)

    def names(module):
        kinds = [type(m).__name__ for m in module.modules() if not list(m.children())]
        return " ".join(kinds).replace("BatchNorm1d", "Norm").replace("LeakyReLU", "Leaky")

    block = "Linear Norm Leaky Drop Linear Norm Leaky "
    assert names(net.encoders[0]) == f"Norm Linear Leaky Drop {3 * block}Linear Leaky Drop Linear Norm"
    assert names(net.attention) == "Linear Tanh Linear Softmax"
    assert names(net.trunk) == f"{3 * 'Linear Leaky Drop '}{2 * block}Linear Leaky Drop Linear"
    rates = [m.p for m in net.trunk.modules() if type(m).__name__ == "Drop"]
    assert rates == [0.1, 0.1, 0.05, 0.05, 0.05, 0.025] and net.fused.p == 0.1
    assert {m.negative_slope for m in net.modules() if type(m).__name__ == "LeakyReLU"} == {0.01}


def test_linear_weights_start_xavier_uniform_or_as_torch_makes_them():
    torch.manual_seed(0)
    for init, bound in (("xavier", (6 / (512 + 1024)) ** 0.5), ("torch", 512**-0.5)):
        weight = HATR(init=init)._network(1024, 23).encoders[0][4].inner[0].weight
        assert weight.shape == (1024, 512) and weight.abs().max() <= bound
        assert float(weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.01)


def by_hand(net, x, d):
    """The forward pass written out once more, from the facts, in evaluation mode."""
    F = torch.nn.functional
    state = net.state_dict()

    def norm(x, at):
        mean, var = state[f"{at}.running_mean"], state[f"{at}.running_var"]
        return (x - mean) / (var + 1e-5).sqrt() * state[f"{at}.weight"] + state[f"{at}.bias"]

    def lin(x, at):
        return x @ state[f"{at}.weight"].T + state[f"{at}.bias"]

    def leaky(x):
        return F.leaky_relu(x, 0.01)

    def res(x, at):
        inner = leaky(norm(lin(x, f"{at}.inner.0"), f"{at}.inner.1"))
        return leaky(norm(lin(inner, f"{at}.outer.0"), f"{at}.outer.1") + x)

    codes = []
    for m, part in enumerate((x[:, :d], x[:, d:])):
        at = f"encoders.{m}"
        h = leaky(lin(norm(part, f"{at}.0"), f"{at}.1"))
        for block in (4, 5, 6):
            h = res(h, f"{at}.{block}")
        codes.append(norm(lin(leaky(lin(h, f"{at}.7")), f"{at}.10"), f"{at}.11"))
    weight = lin(torch.tanh(lin(torch.cat(codes, 1), "attention.0")), "attention.2").softmax(1)
    z = codes[0] * weight[:, :1] + codes[1] * weight[:, 1:]
    for layer in (0, 3, 6):
        z = leaky(lin(z, f"trunk.{layer}"))
    for block in (9, 10):
        z = res(z, f"trunk.{block}")
    return lin(leaky(lin(z, "trunk.11")), "trunk.14"), weight


def test_the_forward_pass_is_the_one_written_in_the_facts(fitted):
    X = torch.tensor(blobs(d=16, seed=5)[0])
    logits, weight = by_hand(fitted.network_, X, 8)
    with torch.no_grad():
        torch.testing.assert_close(fitted.network_(X), logits, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(fitted.gate(X.numpy()), weight[:, 0].numpy(), atol=1e-5)


def test_a_batch_is_trained_with_smoothed_cross_entropy_and_adam_whose_rate_halves_every_20_epochs():
    """Without dropout and augmentation, against a loop of plain torch parts; one batch an epoch."""
    X, y = blobs(n=46, d=8)
    options = dict(modalities=1, dropout=0.0, noise=0.0, zeroed=0.0, batch_size=46, lr=1e-4)
    ours = HATR(epochs=24, **options).fit(X, y)
    with private_torch(0, 1):  # another number of threads rounds otherwise, and 24 epochs of BatchNorm make it grow
        net = HATR(**options)._network(8, 23)
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-4, weight_decay=1e-5)
        target = torch.tensor([ours.classes_.tolist().index(c) for c in y])
        for epoch in range(24):
            optimiser.param_groups[0]["lr"] = 1e-4 * 0.5 ** (epoch // 20)
            rows = torch.randperm(46)
            log_p = net(torch.tensor(X)[rows]).log_softmax(1)
            goal = torch.full((46, 23), 0.01 / 23)
            goal[torch.arange(46), target[rows]] += 0.99
            optimiser.zero_grad()
            loss = -(goal * log_p).sum(1).mean()
            loss.backward()
            optimiser.step()
            assert float(loss.detach()) == pytest.approx(ours.history_[epoch]["loss"], rel=1e-3)
    for name, value in net.state_dict().items():
        if "weight" in name and value.ndim == 2:
            mine = ours.network_.state_dict()[name]
            assert (mine - value).norm() / value.norm() < 1e-5, name


def test_the_last_partial_batch_is_left_out(monkeypatch):
    sizes = []
    real = hatr.augmented
    monkeypatch.setattr(hatr, "augmented", lambda x, *a: sizes.append(len(x)) or real(x, *a))
    X, y = blobs(n=70)
    HATR(modalities=1, epochs=2, batch_size=32).fit(X, y)
    assert sizes == [32, 32, 32, 32]
    sizes.clear()
    HATR(modalities=1, epochs=1).fit(X[:46], y[:46])
    assert sizes == [46]  # the only batch is kept


def test_augmentation_zeroes_1_to_70_percent_of_each_embedding_evenly_and_adds_noise():
    rng = np.random.default_rng(0)
    x = np.ones((4000, 60), np.float32)
    out = augmented(x, [20, 40], 1e-4, 0.7, rng)
    assert (x == 1).all()
    for part, d in ((out[:, :20], 20), (out[:, 20:], 40)):
        zeros, most = (part == 0).sum(axis=1), int(0.7 * d)
        counts = np.bincount(zeros, minlength=most + 1)
        assert counts[0] == 0 and len(counts) == most + 1  # 1 … most, nothing else
        assert counts[1:].min() > 0.6 * 4000 / most and counts[1:].max() < 1.5 * 4000 / most
        per_column = (part == 0).mean(axis=0)
        assert per_column == pytest.approx(np.full(d, (1 + most) / 2 / d), abs=0.04)
        kept = part[part != 0]
        assert abs(kept - 1).max() > 0 and np.std(kept) == pytest.approx(1e-4, rel=0.03)
    same = (out[:, :20] == 0).sum(axis=1) / 20 - (out[:, 20:] == 0).sum(axis=1) / 40
    assert np.abs(same).mean() > 0.1  # the two embeddings are drawn on their own
    assert (augmented(x, [60], 0.0, 0.0, rng) == x).all()


def test_dropout_has_its_rate_and_keeps_the_mean_and_is_off_in_prediction(fitted):
    net = fitted.network_
    drop = net.fused
    x = torch.ones(2000, 100)
    assert drop.words is None and torch.equal(drop(x), x)
    drop.train()
    try:
        drop.words = np.random.default_rng(0)
        out = drop(x)
    finally:
        drop.words = None
        drop.eval()
    assert float((out == 0).float().mean()) == pytest.approx(0.1, abs=0.003)
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.9])


def test_training_stops_after_the_patience_and_keeps_the_epoch_of_best_accuracy():
    X, y = blobs(d=16, spread=3.0)
    val = blobs(d=16, seed=4, spread=3.0)
    head = HATR(epochs=40, patience=3, batch_size=64).fit(X, y, val=val)
    scores = [entry["val_accuracy"] for entry in head.history_]
    best = int(np.argmax(scores))
    assert head.best_epoch_ == best + 1 and len(scores) == best + 1 + 3 < 40
    assert (head.predict(val[0]) == val[1]).mean() == scores[best]
    assert set(head.history_[0]) == {"epoch", "loss", "val_hF", "val_accuracy"}


@pytest.mark.parametrize("modalities", [1, 2])
def test_it_learns_what_can_be_learned_and_keeps_the_contract(modalities):
    X, y = blobs(d=32)
    test_X, test_y = blobs(d=32, seed=1)
    head = HATR(modalities=modalities, epochs=12, batch_size=32).fit(X, y, val=blobs(d=32, seed=2))
    proba = head.predict_proba(test_X)
    assert proba.shape == (len(test_y), 23) and proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    assert head.classes_.tolist() == sorted(CLASSES) and (head.predict(test_X) == test_y).mean() > 0.7
    assert hasattr(head, "gate") == (modalities == 2)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(fitted):
    X, y = blobs(d=16)
    again, other = (HATR(epochs=3, batch_size=32, seed=s).fit(X, y, val=blobs(d=16, seed=2)) for s in (0, 1))
    assert again.predict_proba(X).tobytes() == fitted.predict_proba(X).tobytes()
    assert again.history_ == fitted.history_
    assert other.predict_proba(X).tobytes() != fitted.predict_proba(X).tobytes()


def test_training_leaves_the_global_generators_alone():
    X, y = blobs(n=46)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before, state, threads = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    HATR(modalities=1, epochs=1).fit(X, y)
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads
    assert (np.random.get_state()[1] == state).all()


def test_embeddings_of_different_width_meet_at_audio_dim():
    X, y = blobs(n=46, d=20)
    head = HATR(epochs=1, audio_dim=8).fit(X, y)
    assert head.network_.encoders[0][0].num_features == 8 and head.network_.encoders[1][0].num_features == 12
    assert ((head.gate(X) > 0) & (head.gate(X) < 1)).all()


def test_clips_of_weight_zero_do_not_move_the_loss():
    X, y = blobs(n=64, d=8)
    wrong = y.copy()
    wrong[32:] = np.roll(y[32:], 3)
    weight = np.r_[np.ones(32), np.zeros(32)]
    options = dict(modalities=1, epochs=1, batch_size=64)
    first, second = (HATR(**options).fit(X, labels, sample_weight=weight) for labels in (y, wrong))
    assert first.predict_proba(X).tobytes() == second.predict_proba(X).tobytes()
    assert first.predict_proba(X).tobytes() != HATR(**options).fit(X, wrong).predict_proba(X).tobytes()


def test_parameters_survive_a_clone():
    head = HATR(modalities=1, seed=4, classes=list(CLASSES[:4]))
    assert clone(head).get_params() == head.get_params()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": 3}, "modalities is 3"),
        ({"init": "kaiming"}, "init cannot be 'kaiming'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"zeroed": 1.5}, "zeroed 1.5"),
        ({"audio_dim": 0}, "audio_dim is 0"),
        ({"audio_dim": 8}, "8 columns, audio_dim is 8"),
        ({"classes": ["zz"]}, "unknown class 'zz'"),
    ],
)
def test_a_bad_parameter_is_one_clear_error(options, message):
    with pytest.raises(HacError, match=message):
        HATR(**options).fit(*blobs(n=46))


def test_bad_input_is_one_clear_error(fitted):
    X, y = blobs(n=46, d=16)
    nan = X.copy()
    nan[3, 2] = np.nan
    cases = [
        (lambda: fitted.predict_proba(X[:, :4]), "4 columns, the model was fitted on 16"),
        (lambda: fitted.predict_proba(nan), "NaN or infinite in rows 1 \\(3\\)"),
        (lambda: HATR().fit(nan, y), "NaN or infinite"),
        (lambda: HATR().fit(X[:, :7], y), "7 columns, audio_dim is None"),
        (lambda: HATR().fit(X, ["zz"] * 46), "unknown labels"),
        (lambda: HATR().fit(X, ["m-sp"] * 46), "only one class in y: m-sp"),
        (lambda: HATR().fit(X, y, val=(X, ["zz"] * 46)), "unknown labels"),
        (lambda: HATR().fit(X, y, sample_weight=[-1.0] * 46), "sample weights"),
    ]
    for call, message in cases:
        with pytest.raises(HacError, match=message):
            call()
    assert fitted.predict_proba(X[:0]).shape == (0, 23)

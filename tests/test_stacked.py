"""Stacked training: the hand-derived step against a plain torch loop, and stacks of many against stacks of one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")

import torch
from torch.nn import functional as F

from hac_utils.errors import HacError
from hac_utils.fitting import Job, fit_predict_many, private_torch, stacks
from hac_utils.heads import ConcatHead, GatedFusionHead, MLPHead
from hac_utils.metrics import hierarchical_f1
from hac_utils.stacked import orders
from hac_utils.taxonomy import CLASSES, family

HEADS = [MLPHead, ConcatHead, GatedFusionHead]
SORTED = np.array(sorted(CLASSES))


def clouds(n=300, d=32, seed=0, spread=3.0):
    """Overlapping clouds, one per class; the centres do not depend on `seed`."""
    rng = np.random.default_rng(seed)
    label = rng.integers(len(CLASSES), size=n)
    centres = np.random.default_rng(99).normal(size=(len(CLASSES), d))
    return (centres[label] + spread * rng.normal(size=(n, d))).astype(np.float32), SORTED[label]


def quick(head, **options):
    return head(**({"epochs": 5, "width": 48, "batch_size": 32, "dropout": 0.0, "lr": 3e-3} | options))


def reference(head, X, y, weight=None):
    """Initial network of `head`, trained by autograd, torch's AdamW and schedule, in the same order of rows."""
    features = torch.from_numpy(head._prepare(X))
    label = torch.from_numpy(np.searchsorted(SORTED, y))
    weight = torch.ones(len(y)) if weight is None else torch.from_numpy(weight)
    families = [family(c) for c in SORTED]
    to_family = torch.tensor([[float(f == g) for g in sorted(set(families))] for f in families])
    with private_torch(head.seed, 1):
        net = head._network(features.shape[1], len(SORTED))
        optimiser = torch.optim.AdamW(net.parameters(), lr=head.lr, weight_decay=head.weight_decay)
        steps = math.ceil(len(y) / head.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, head.epochs * steps)
        for order in itertools.islice(orders(head.seed, len(y)), head.epochs):
            for rows in torch.from_numpy(order).split(head.batch_size):
                logits = net(features[rows])
                loss = F.cross_entropy(logits, label[rows], label_smoothing=head.label_smoothing, reduction="none")
                if head.loss == "hierarchical":
                    mass = (logits.softmax(1) @ to_family * to_family[label[rows]]).sum(1)
                    loss = loss - 0.5 * torch.log(mass)
                loss = (loss * weight[rows]).sum() / weight[rows].sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    return net


def largest_difference(state, other):
    assert state.keys() == other.keys()
    return max(float((state[k] - other[k]).abs().max()) for k in state)


@pytest.mark.parametrize("loss", ["cross_entropy", "hierarchical"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_without_dropout_the_hand_derived_step_gives_the_weights_of_a_plain_torch_loop(head, weighted, loss):
    X, y = clouds()
    weight = np.random.default_rng(3).uniform(0, 2, len(y)).astype(np.float32) if weighted else None
    model = quick(head, loss=loss, seed=4)
    expected = reference(model, X, y, weight)
    start = {k: v.clone() for k, v in model_state_at_start(model, X).items()}
    got = model.fit(X, y, sample_weight=weight).network_.state_dict()
    assert largest_difference(start, expected.state_dict()) > 0.02  # it did move
    assert largest_difference(got, expected.state_dict()) < 1e-4


def model_state_at_start(model, X):
    with private_torch(model.seed, 1):
        return model._network(X.shape[1], len(SORTED)).state_dict()


@pytest.mark.parametrize("head", HEADS)
def test_a_layernorm_scale_near_zero_takes_the_long_way_and_agrees(head, monkeypatch):
    monkeypatch.setattr("hac_utils.networks._SMALL_SCALE", 10.0)
    X, y = clouds()
    model = quick(head)
    expected = reference(model, X, y).state_dict()
    assert largest_difference(model.fit(X, y).network_.state_dict(), expected) < 1e-4


@pytest.mark.parametrize("parts", [(20, 12), (8, 24)])
@pytest.mark.parametrize("head", [ConcatHead, GatedFusionHead])
def test_embeddings_of_unequal_width_are_split_at_audio_dim(head, parts):
    X, y = clouds()
    model = quick(head, audio_dim=parts[0])
    expected = reference(model, X, y).state_dict()
    fitted = model.fit(X, y)
    assert largest_difference(fitted.network_.state_dict(), expected) < 1e-4
    if head is GatedFusionHead:
        assert fitted.network_.audio.weight.shape == (48, parts[0])
        assert fitted.network_.text.weight.shape == (48, parts[1])
    else:
        scaled = X * np.repeat([7.0, 0.1], parts).astype(np.float32)
        np.testing.assert_allclose(fitted.predict_proba(scaled), fitted.predict_proba(X), atol=1e-5)


def five_jobs(head, X, y, **options):
    """Folds of unequal size, two seeds, validation rows and weights."""
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.5, 1.5, len(y)).astype(np.float32)
    jobs = []
    for i, n in enumerate([200, 199, 198, 200, 195]):
        rows = rng.permutation(len(y))
        model = quick(head, seed=i // 2, **options)
        jobs.append(Job(model, X, y, rows[:n], rows[n : n + 50 - i], {"scored": rows[250:]}, weight))
    return jobs


@pytest.mark.parametrize("loss", ["cross_entropy", "hierarchical"])
@pytest.mark.parametrize("head", HEADS)
def test_a_stack_of_five_gives_the_weights_of_five_trained_one_by_one(head, loss):
    X, y = clouds()
    jobs = five_jobs(head, X, y, loss=loss)
    stacked = head.fit_stack(jobs)
    for job, one in zip(jobs, stacked, strict=True):
        alone = quick(head, loss=loss, seed=job.estimator.seed).fit(
            X[job.train], y[job.train], val=(X[job.val], y[job.val]), sample_weight=job.sample_weight[job.train]
        )
        assert one.best_epoch_ == alone.best_epoch_
        assert [h["val_hF"] for h in one.history_] == [h["val_hF"] for h in alone.history_]
        np.testing.assert_allclose([h["loss"] for h in one.history_], [h["loss"] for h in alone.history_], rtol=1e-5)
        assert largest_difference(one.network_.state_dict(), alone.network_.state_dict()) < 1e-4
        np.testing.assert_allclose(one.predict_proba(X), alone.predict_proba(X), atol=1e-4)


def test_the_loss_in_the_history_is_that_of_the_plain_loop():
    X, y = clouds()
    model = quick(MLPHead, epochs=1, lr=0.0, batch_size=37)
    got = model.fit(X, y).history_[0]["loss"]
    features, label = torch.from_numpy(X), torch.from_numpy(np.searchsorted(SORTED, y))
    expected = F.cross_entropy(model.network_(features), label, label_smoothing=0.1)
    assert got == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_strict_hF_of_every_epoch_is_that_of_the_metric():
    X, y = clouds()
    val = clouds(seed=1)
    for epochs in (1, 2):
        model = quick(GatedFusionHead, epochs=epochs).fit(X, y, val=val)
        expected = hierarchical_f1(val[1], model.predict(val[0]), never_predicted="zero")
        assert model.history_[model.best_epoch_ - 1]["val_hF"] == pytest.approx(expected, abs=1e-12)


def test_with_dropout_the_hF_is_distributed_as_in_the_plain_loop():
    X, y = clouds(600, spread=2.0)
    test_X, test_y = clouds(2000, seed=1, spread=2.0)
    found, expected = [], []
    for seed in range(8):
        model = quick(MLPHead, dropout=0.5, seed=seed, epochs=10)
        net = reference(model, X, y).eval()
        with torch.inference_mode():
            plain = SORTED[net(torch.from_numpy(test_X)).argmax(1).numpy()]
        expected.append(hierarchical_f1(test_y, plain))
        found.append(hierarchical_f1(test_y, model.fit(X, y).predict(test_X)))
    noise = math.hypot(np.std(found, ddof=1), np.std(expected, ddof=1)) / math.sqrt(len(found))
    assert abs(np.mean(found) - np.mean(expected)) < max(3 * noise, 0.003)
    assert min(found) > 0.3


def test_the_dropout_mask_drops_the_asked_share_and_keeps_the_mean():
    from hac_utils.networks import Mlp, Model, Recipe

    X, y = clouds()
    recipe = Recipe(1, 256, 1e-3, 0.0, 0.3, 0.1, False, "float32", 0, "cpu")
    state = model_state_at_start(quick(MLPHead), X)
    rows = np.arange(len(X))
    models = [Model(dict(state), s, rows, None, np.zeros(len(X), int), np.ones(len(X))) for s in (0, 1)]
    net = Mlp(models, 256, [32], 23, recipe, torch.device("cpu"))
    net.draw_mask()
    first = net.mask.clone()
    net.draw_mask()
    for mask in (*first, *net.mask):
        assert float((mask == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
        assert float(mask.mean()) == pytest.approx(1.0, abs=0.03)
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], net.mask[0])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_results_are_the_same_bytes_again_and_for_one_or_two_workers(head, precision):
    X, y = clouds()
    jobs = five_jobs(head, X, y, dropout=0.3, precision=precision, epochs=2)
    runs = [fit_predict_many(jobs, workers=w) for w in (1, 1, 2)]
    reversed_order = fit_predict_many(jobs[::-1], workers=1)[::-1]
    for results in zip(*runs, reversed_order, strict=True):
        assert len({r.proba["scored"].tobytes() for r in results}) == 1
        assert all(r.history == results[0].history for r in results)


@pytest.mark.parametrize("head", HEADS)
def test_bfloat16_learns_what_float32_learns(head):
    X, y = clouds(600, spread=1.0)
    test_X, test_y = clouds(600, seed=1, spread=1.0)
    scores = [
        hierarchical_f1(test_y, quick(head, precision=p, epochs=15).fit(X, y).predict(test_X))
        for p in ("float32", "bfloat16")
    ]
    assert min(scores) > 0.9 and abs(scores[0] - scores[1]) < 0.03


def test_patience_stops_a_model_and_the_kept_weights_are_those_of_the_best_epoch():
    X, y = clouds()
    val = clouds(seed=1)
    long = quick(MLPHead, epochs=30, seed=1).fit(X, y, val=val)
    short = quick(MLPHead, epochs=30, seed=1, patience=2).fit(X, y, val=val)
    assert len(short.history_) == short.best_epoch_ + 2 < 30
    assert short.history_ == long.history_[: len(short.history_)]


def test_a_stopped_model_of_a_stack_no_longer_changes():
    X, y = clouds()
    jobs = five_jobs(MLPHead, X, y, patience=1, epochs=20)
    for job, one in zip(jobs, MLPHead.fit_stack(jobs), strict=True):
        alone = quick(MLPHead, patience=1, epochs=20, seed=job.estimator.seed).fit(
            X[job.train], y[job.train], val=(X[job.val], y[job.val]), sample_weight=job.sample_weight[job.train]
        )
        assert (one.best_epoch_, len(one.history_)) == (alone.best_epoch_, len(alone.history_))
        assert largest_difference(one.network_.state_dict(), alone.network_.state_dict()) < 1e-4


def test_only_heads_on_a_gpu_that_share_all_but_the_seed_are_stacked():
    X, y = clouds()
    one, other = five_jobs(MLPHead, X, y, device="cuda"), five_jobs(MLPHead, X, y, device="cuda", lr=1e-2)
    wide = five_jobs(MLPHead, X[:, :16], y, device="cuda")
    groups = stacks([*one, *other, *wide])
    assert sorted(sum(groups, [])) == list(range(15)) and [len(g) for g in groups] == [5, 5, 5]
    assert stacks(five_jobs(MLPHead, X, y)) == [[i] for i in range(5)]


def test_a_class_missing_in_training_stays_improbable_and_the_stack_says_so_for_one_class_only():
    X, y = clouds()
    seen = y != "fx-o"
    proba = quick(MLPHead, epochs=10).fit(X[seen], y[seen]).predict_proba(X)
    assert proba[:, SORTED.tolist().index("fx-o")].mean() < 0.03
    job = Job(quick(MLPHead), X, y, np.flatnonzero(y == "fx-o"), None, {})
    with pytest.raises(HacError, match="only one class in y: fx-o"):
        MLPHead.fit_stack([job])

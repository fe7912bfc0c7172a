"""The training loop, and many trainings side by side."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the train extra is not installed")
pytest.importorskip("hear21passt", reason="the passt extra is not installed")

import torch

from hac_utils.errors import HacError
from hac_utils.finetune import train
from hac_utils.finetune_audio import PasstClassifier
from hac_utils.finetune_text import RobertaClassifier
from hac_utils.fitting import Job, class_codes, fit_predict_many, private_torch, softmax, targets


def small_jobs() -> list[Job]:
    rng = np.random.default_rng(3)
    y = rng.choice(["fx-a", "m-m"], 200)
    texts = [f"{'dog' if c == 'fx-a' else 'song'} number {i}" for i, c in enumerate(y)]
    waves = rng.normal(0, 0.1, (200, 8000)).astype(np.float32)  # over 1 MB: joblib maps it
    roberta = RobertaClassifier(layers=1, hidden=16, heads=2, vocab_size=300, max_tokens=16, epochs=2)
    passt = PasstClassifier(sample_rate=8000, seconds=1.0, embed_dim=16, depth=1, heads=2, epochs=2)
    passt.set_params(patchout_t=1)
    train, val = np.arange(20, 200), np.arange(20)
    return [
        Job(roberta, texts, y, train, val, {"test": np.arange(30), "pool": ["a dog", "a song"]}),
        Job(passt, waves, y, train, None, {"test": np.arange(30), "pool": waves[:3]}),
    ]


def test_many_trainings_give_the_same_bytes_with_one_worker_and_with_two():
    one, two = (fit_predict_many(small_jobs(), workers=w) for w in (1, 2))
    for a, b, pool in zip(one, two, (2, 3), strict=True):
        assert a.history == b.history and a.source == b.source and a.n_parameters == b.n_parameters
        assert a.proba["test"].tobytes() == b.proba["test"].tobytes() and a.proba["test"].shape == (30, 23)
        assert a.proba["pool"].tobytes() == b.proba["pool"].tobytes() and len(a.proba["pool"]) == pool


def test_many_trainings_leave_the_given_estimator_unfitted():
    job = small_jobs()[0]
    result = fit_predict_many([job], workers=2)[0]
    assert not hasattr(job.estimator, "history_")
    assert result.source.startswith("small RoBERTa")


def test_an_error_in_a_worker_arrives_as_our_error():
    jobs = [dataclasses.replace(job, y=np.array(["zz"] * 200)) for job in small_jobs()]
    with pytest.raises(HacError, match="unknown labels"):
        fit_predict_many(jobs, workers=2)


def run(val_scores: list[str], **options) -> tuple[list[float], float, list[dict]]:
    """Train one weight whose gradient is always 1; epoch i's validation predicts code `val_scores[i]`."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 10.0)
    after, epoch = [], iter(val_scores)
    classes = np.array(["fx-a", "fx-h", "m-m"])

    def logits() -> np.ndarray:
        after.append(model.weight.item())
        return (classes == next(epoch)).astype(np.float32)[None]

    history = train(
        model, name="test", batches=[[np.arange(2), np.arange(2)]] * 3,
        loss_of=lambda rows: model.weight.sum(), logits_of=logits,
        val_y=np.array(["fx-a"]) if val_scores else None, classes=classes,
        **{"lr": 0.1, "weight_decay": 0.0, "warmup": 0.5} | options,
    )  # fmt: skip
    return after, model.weight.item(), history


def test_the_first_of_the_best_epochs_is_kept():
    after, kept, history = run(["m-m", "fx-a", "fx-a"])
    assert kept == after[1] and len(set(after)) == 3
    assert [h["val_hF"] for h in history] == [0.0, 1.0, 1.0]


def test_a_class_never_predicted_counts_zero_when_epochs_compete():
    _, _, history = run(["m-m", "fx-a", "fx-h"])
    assert [h["val_hF"] for h in history] == [0.0, 1.0, 0.0]


def test_the_learning_rate_rises_linearly_and_falls_to_nothing():
    """Adam moves a weight of constant gradient by the learning rate: 6 steps, 3 of them rising."""
    after, _, _ = run(["fx-a", "fx-a", "fx-a"])
    rates = 0.1 * np.array([1 / 3, 2 / 3, 3 / 3, 3 / 3, 2 / 3, 1 / 3])
    np.testing.assert_allclose(after, 10 - rates.cumsum()[1::2], atol=1e-5)


def test_without_validation_the_last_weights_stay():
    _, kept, history = run([])
    assert kept == pytest.approx(10 - 0.4, abs=1e-5)
    assert [h["val_hF"] for h in history] == [None] * 3
    assert history[0]["loss"] == pytest.approx(10 - 0.1 / 6, abs=1e-5)  # before the first and the second step


def test_training_that_diverges_is_an_error_with_a_fix():
    with pytest.raises(HacError, match="choose a smaller lr"):
        run([], lr=float("inf"))


def test_softmax_survives_large_logits():
    p = softmax(np.array([[1000.0, 0.0], [0.0, np.log(3.0)]], dtype=np.float32))
    np.testing.assert_allclose(p, [[1, 0], [0.25, 0.75]], atol=1e-7)


def test_codes_are_sorted_and_labels_become_positions_in_them():
    codes = class_codes(["ss-u", "fx-a"])
    assert codes.tolist() == ["fx-a", "ss-u"]
    assert targets(np.array(["ss-u", "fx-a"]), codes, 2).tolist() == [1, 0]
    with pytest.raises(HacError, match="no classes"):
        class_codes([])


def test_private_torch_restores_threads_after_an_error():
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    with pytest.raises(ZeroDivisionError), private_torch(1, before + 1):
        assert torch.get_num_threads() == before + 1
        torch.rand(3)
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == before
    assert torch.equal(state, torch.random.get_rng_state())

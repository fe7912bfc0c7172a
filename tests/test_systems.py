"""Systems by name: the right estimator, and the right embeddings for it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")

from hac_utils import systems
from hac_utils.config import HatrSettings, HeadSettings
from hac_utils.errors import HacError


def test_systems_see_sound_text_or_both_side_by_side():
    sound, text = {"dev": np.ones((2, 3))}, {"dev": np.zeros((2, 2))}
    for name in ("audio", "hatr audio", "zero-shot"):
        assert systems.inputs(name, sound, text)["dev"].shape == (2, 3)
    assert systems.inputs("text", sound, text)["dev"].shape == (2, 2)
    for name in ("concat", "gated", "hatr", "logistic", "neighbours"):
        assert systems.inputs(name, sound, text)["dev"].tolist() == [[1, 1, 1, 0, 0]] * 2
        assert systems.inputs(name, None, text)["dev"].shape == (2, 2)


def test_every_name_builds_and_takes_the_profiles_training():
    made = systems.build(list(systems.SYSTEMS), HeadSettings(epochs=3, lr=0.5), HatrSettings(epochs=7), audio_dim=4)
    assert list(made) == list(systems.SYSTEMS)
    assert made["gated"].epochs == 3 and made["gated"].audio_dim == 4 and made["audio"].lr == 0.5
    assert made["hatr"].epochs == 7 and made["hatr"].modalities == 2 and made["hatr audio"].modalities == 1


def test_without_sounds_only_systems_remain_that_need_none():
    made = systems.build(list(systems.SYSTEMS), HeadSettings(), HatrSettings(), audio_dim=None)
    assert list(made) == ["text", "logistic", "neighbours"]


def test_an_unknown_system_is_refused_by_name():
    with pytest.raises(HacError, match="(?s)no system .gatd.*gated"):
        systems.build(["gatd"], HeadSettings(), HatrSettings(), audio_dim=4)

"""PaSST: hear21passt's model, offline, with random weights saved as the published file is."""

from __future__ import annotations

import copy
import json
import socket

import numpy as np
import pytest

from hac_utils import passt
from hac_utils.compat import ensure
from hac_utils.errors import HacError
from hac_utils.io import sha256_file

torch = pytest.importorskip("torch")
pytest.importorskip("hear21passt")


@pytest.fixture(scope="module", autouse=True)
def no_network():
    def refuse(*args, **kwargs):
        raise AssertionError(f"network: {args}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


def make_shallow(patch):
    """hear21passt builds one block with one head for twelve with twelve; all outside them stays."""
    ensure()
    from hear21passt.models import passt as theirs

    def model(arch, pretrained):
        assert arch == "passt_s_swa_p16_128_ap476" and not pretrained
        size = {"depth": 1, "num_heads": 1, "mlp_ratio": 1.0}
        return theirs.PaSST(img_size=(128, 998), stride=(10, 10), distilled=True, **size)

    patch.setattr(theirs, "get_model", model)


@pytest.fixture
def shallow(monkeypatch):
    make_shallow(monkeypatch)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        make_shallow(patch)
        state = passt.PasstEncoder("random")._model.net.state_dict()
    generator = torch.Generator().manual_seed(5)
    for name, value in state.items():
        if name.endswith(("bias", "embed", "head.1.weight")):
            value.normal_(0, 0.1, generator=generator)
    path = tmp_path_factory.mktemp("passt") / "made.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def encoder(weights):
    encoder = passt.PasstEncoder(str(weights))
    with pytest.MonkeyPatch.context() as patch:
        make_shallow(patch)
        assert encoder._model.net.embed_dim == encoder.dim
    return encoder


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    n = round(seconds * 32_000)
    rng = np.random.default_rng([seed, 9])
    t = np.arange(n) / 32_000
    return (0.3 * np.sin(2 * np.pi * (300 + 50 * t) * t) + rng.normal(0, 0.02 + 0.004 * t, n)).astype(np.float32)


def unit(x):
    return np.isfinite(x).all() and np.abs(np.linalg.norm(x, axis=1) - 1).max() < 1e-5


# windows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds, count", [(0.01, 1), (5, 1), (10, 1), (10.5, 5), (12.5, 6), (25, 11), (30, 13)])
def test_long_clips_have_a_window_every_2_and_a_half_seconds(seconds, count):
    parts = passt.windows(sound(seconds))
    assert len(parts) == count and all(p.dtype == np.float32 for p in parts)
    assert {len(p) for p in parts} == ({320_000} if count > 1 else {max(5120, round(seconds * 32_000))})


def test_the_first_window_is_centred_on_the_start():
    audio = sound(20)
    first, *_, last = passt.windows(audio)
    assert np.array_equal(first[160_000:], audio[:160_000]) and np.array_equal(first[:160_000], audio[160_000:0:-1])
    assert np.array_equal(last[:160_000], audio[-160_000:])


@pytest.mark.parametrize("n", [0, 1, 200, 4800])
def test_specks_are_padded_with_silence(n):
    audio = sound(n / 32_000)
    (part,) = passt.windows(audio)
    assert len(part) == 5120 and np.array_equal(part[:n], audio) and not part[n:].any()


# vectors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.2, 3, 10, 11])
def test_embeddings_and_logits_are_those_of_hear21passts_own_call(encoder, seconds):
    audio = sound(seconds, 2)
    model = copy.deepcopy(encoder._model)
    for block in model.net.blocks:
        del block.attn.forward  # ours, with the fused kernel
    with torch.no_grad(), passt._quiet():
        theirs = model.get_scene_embeddings(torch.from_numpy(audio)[None]).numpy()[0]
    x, logits = encoder.encode([audio], ["1"]), encoder.encode_logits([audio], ["1"])
    assert x.shape == (1, 768) and logits.shape == (1, 527) and x.dtype == logits.dtype == np.float32
    np.testing.assert_allclose(logits[0], theirs[:527], atol=1e-5)
    np.testing.assert_allclose(x[0], theirs[527:] / np.linalg.norm(theirs[527:]), atol=1e-5)
    assert np.ptp(logits) > 0.1


@pytest.mark.parametrize(
    "wave", [np.zeros(0), np.ones(1), np.zeros(5000), np.full(5000, 900.0), np.r_[1, np.zeros(330_000)]]
)
def test_any_clip_gives_one_finite_unit_vector(encoder, wave):
    x = encoder.encode([wave.astype(np.float32)])
    assert x.shape == (1, encoder.dim) and unit(x) and np.isfinite(encoder.encode_logits([wave])).all()


def test_a_sounds_embedding_does_not_depend_on_order_or_batch(encoder):
    waves = [
        sound(s, i) for i, s in enumerate((0.1, 3, 11, 0.01, 1, 2, 0.5, 1.2, 0.2, 0.3, 4, 0.7, 1.5, 2.5, 0.6, 0.05))
    ]
    whole = encoder.encode(waves)
    order = np.random.default_rng(1).permutation(16)
    for size in (1, 3, 16):
        out = np.empty_like(whole)
        for start in range(0, 16, size):
            rows = order[start : start + size]
            out[rows] = encoder.encode([waves[i] for i in rows])
        assert out.tobytes() == whole.tobytes(), size
    assert encoder.encode([]).shape == (0, 768) and (whole @ whole.T)[0, 1:].max() < 0.99999


def test_nothing_is_printed_and_the_global_generators_stay(weights, shallow, capfd):
    before = torch.get_rng_state()
    passt.PasstEncoder(str(weights)).encode([sound(1)])
    assert torch.equal(before, torch.get_rng_state()) and capfd.readouterr().out == ""


def test_settings_are_json_need_no_model_and_name_the_weights(weights, shallow):
    encoder = passt.PasstEncoder(str(weights))
    settings = encoder.settings()
    assert json.loads(json.dumps(settings)) == settings and "_model" not in vars(encoder)
    assert settings["weights_sha256"] == sha256_file(weights) and settings["weights"] == "made.pt"
    a, b, c = (passt.PasstEncoder("random", seed=s) for s in (0, 0, 1))
    assert a.settings() == b.settings() != c.settings()
    assert a.encode([sound(1)]).tobytes() == b.encode([sound(1)]).tobytes() != c.encode([sound(1)]).tobytes()


@pytest.mark.slow
def test_the_published_size_runs_offline():
    encoder = passt.PasstEncoder("random")
    x = encoder.encode([sound(0.5)])
    assert x.shape == (1, 768) and unit(x)
    assert round(sum(p.numel() for p in encoder._model.net.parameters()) / 1e6, 1) == 86.2


# weights -----------------------------------------------------------------------------------------


def test_weights_that_are_not_here_are_an_error_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("HAC_CACHE", str(tmp_path))
    for path in ("", str(tmp_path), str(tmp_path / "x.pt")):
        with pytest.raises(HacError) as e:
            passt.PasstEncoder(path)
        assert e.value.fix == "hac weights get passt"


def test_a_folder_holds_the_file_of_the_published_name_which_must_be_that_file(weights, tmp_path):
    (tmp_path / passt.CHECKPOINT).write_bytes(weights.read_bytes())
    for make in (lambda e: e.settings(), lambda e: e.encode([sound(1)])):
        with pytest.raises(HacError, match="not the published file: sha256 .* expected 302903fa"):
            make(passt.PasstEncoder(str(tmp_path)))


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("content", ["cut", "text", {"bomb": Bomb()}, 3, [1], {"a": 1}, {"time_new_pos_embed": 3}])
def test_other_files_are_refused_unexecuted(weights, shallow, tmp_path, content, capfd):
    path = tmp_path / "x.pt"
    if content == "cut":
        path.write_bytes(weights.read_bytes()[:-1000])
    elif content == "text":
        path.write_text("no weights")
    else:
        torch.save(content, path)
    with pytest.raises(HacError) as e:
        passt.PasstEncoder(str(path)).encode([sound(1)])
    assert e.value.where == str(path) and e.value.fix == "hac weights get passt"
    assert "executed" not in capfd.readouterr().out


def test_missing_unknown_and_misfitting_weights_are_refused(weights, shallow, tmp_path):
    state = torch.load(weights, weights_only=True)

    def refused(changed, match):
        torch.save(changed, tmp_path / "x.pt")
        with pytest.raises(HacError, match=match):
            passt.PasstEncoder(str(tmp_path / "x.pt")).encode([sound(1)])

    refused({k: v for k, v in state.items() if k != "norm.weight"}, "1 weights missing, 0 unknown")
    refused(state | {"more": torch.ones(1)}, "0 weights missing, 1 unknown; the first: more")
    refused(state | {"norm.weight": torch.ones(3)}, "do not fit: .*norm.weight")

"""CLAP: two backends, one preprocessing; offline, with random weights saved as the published file is."""

from __future__ import annotations

import json
import pickle
import socket

import numpy as np
import pytest

from hac_utils import clap, clap_model
from hac_utils.compat import ensure
from hac_utils.errors import HacError
from hac_utils.io import sha256_file

torch = pytest.importorskip("torch")

SMALL = clap_model.Shape(
    width=16, depths=(1, 1, 2, 1), heads=(1, 1, 2, 2), layers=1, inner=64, vocabulary=1600, positions=100
)
WORDS = "rain thunder dog bark piano city traffic wind glass door engine bird voice crowd drum sea".split()


@pytest.fixture(scope="module", autouse=True)
def no_network():
    """Whatever these tests import or build, a connection is an error at once, not a wait."""

    connect = socket.socket.connect

    def refuse(*args, **kwargs):
        if getattr(args[0], "family", None) == socket.AF_UNIX:  # between processes of this machine
            return connect(*args)
        raise AssertionError(f"network: {args}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


def laion_state(shape: clap_model.Shape, seed: int = 1) -> dict:
    """Random weights, nothing left at its starting value: running statistics, biases, attention offsets."""
    ensure()
    generator = torch.Generator().manual_seed(seed)
    with clap_model.quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = clap_model._laion_model(shape).state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif name.endswith(("running_mean", "bias", "bias_table")):
            value.normal_(0, 0.2, generator=generator)
    return state


def save_like_published(path, state, **more):
    """With the prefix of parallel training, the buffer of old transformers, and what training leaves."""
    inside = {f"module.{k}": v for k, v in state.items()}
    inside["module.text_branch.embeddings.position_ids"] = torch.arange(SMALL.positions)[None]
    optimizer = {"state": {}, "param_groups": [{"lr": np.float64(1e-4), "betas": (0.9, 0.99)}]}
    best = {"name": "x", "epoch": 45, "best": np.float32(0.5), "n": np.int64(3), "optimizer": optimizer}
    torch.save(best | {"state_dict": inside} | more, path)
    return path


@pytest.fixture(scope="module")
def state():
    return laion_state(SMALL)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A byte-level BPE of 1,500 tokens learned here, saved as RoBERTa's."""
    ensure()
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    rng = np.random.default_rng(0)
    made = ["".join(rng.choice(list("aeioubdfgklmnprst"), 6)) for _ in range(900)]
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator([" ".join(WORDS), *made * 2], vocab_size=1500, special_tokens=special)
    bpe.save_model(str(folder))
    RobertaTokenizerFast.from_pretrained(str(folder)).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory, state):
    return save_like_published(tmp_path_factory.mktemp("clap") / "published.pt", state)


@pytest.fixture(scope="module", params=clap_model.BACKENDS)
def encoder(request, weights):
    return clap.ClapEncoder(request.param, str(weights))


@pytest.fixture(scope="module", params=clap_model.BACKENDS)
def text_encoder(request, weights, tokenizer):
    return clap.ClapTextEncoder(request.param, str(weights), tokenizer=str(tokenizer))


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose loudness and colour move, so that no two stretches of it sound alike."""
    n = round(seconds * 48_000)
    rng = np.random.default_rng([seed, 7])
    t = np.arange(n) / 48_000
    tone = np.sin(2 * np.pi * (200 + 60 * t + 40 * seed) * t)
    return ((0.3 + 0.2 * np.sin(t)) * tone + rng.normal(0, 0.02 + 0.004 * t, n)).astype(np.float32)


def unit(x):
    return np.isfinite(x).all() and np.abs(np.linalg.norm(x, axis=1) - 1).max() < 1e-5


# preprocessing -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def laion_features():
    """laion-clap's get_audio_features; importing it needs its three tokenizers out of the way."""
    ensure()
    import transformers

    with pytest.MonkeyPatch.context() as patch, clap_model.quiet():
        for name in ("BertTokenizer", "RobertaTokenizer", "BartTokenizer"):
            patch.setattr(getattr(transformers, name), "from_pretrained", lambda *a, **k: None)
        from laion_clap.training import data
    settings = dict(sample_rate=48000, window_size=1024, hop_size=480, mel_bins=64, fmin=50, fmax=14000)

    def features(audio, starts):
        quantised = data.int16_to_float32(data.float32_to_int16(audio))
        with pytest.MonkeyPatch.context() as patch:
            left = list(starts)
            patch.setattr(np.random, "choice", lambda allowed: left.pop(0))
            patch.setattr(np.random, "randint", lambda low, high: low)
            tensor = torch.from_numpy(quantised).float()
            return data.get_audio_features({}, tensor, 480_000, "fusion", "repeatpad", settings)

    return features


@pytest.mark.parametrize("n", [1, 336, 5000, 100_000, 240_000, 479_999, 480_000, 480_479, 480_480, 481_440, 1_200_000])
def test_the_input_is_laion_claps_own_for_any_length(laion_features, n):
    audio = sound(n / 48_000)
    audio[: n // 3] *= 5  # some of it beyond full scale
    frames = n // 480 + 1
    starts = clap.chunk_starts(frames, "123", 4) if frames > 1001 else []
    theirs = laion_features(audio, starts)
    mel = clap.prepare(audio, "123", 4)
    assert (len(mel) == 4) == bool(theirs["longer"]) == (n >= 480_480)
    assert mel.shape == (4 if n >= 480_480 else 1, 1001, 64) and mel.dtype == torch.float32
    assert (mel.expand(4, -1, -1) - theirs["mel_fusion"]).abs().max() < 2e-3  # dB
    assert (mel.expand(4, -1, -1) - theirs["mel_fusion"]).abs().mean() < 1e-5


def test_quantising_is_that_of_16_bit_files():
    x = np.array([0, 0.5, -0.5, 1, -1, 3, -3, 1 / 32767, 0.9 / 32767, -1.9 / 32767], dtype=np.float32)
    wanted = np.array([0, 16383, -16383, 32767, -32767, 32767, -32767, 1, 0, -1]) / 32767
    np.testing.assert_allclose(clap.quantise(x), wanted, rtol=0, atol=1e-7)


def test_a_long_spectrogram_does_not_show_where_its_blocks_meet(monkeypatch):
    audio = clap.quantise(sound(12))
    whole = clap.log_mel(audio)
    monkeypatch.setattr(clap, "_BLOCK", 97)
    assert whole.shape == (1201, 64) and (clap.log_mel(audio) - whole).abs().max() < 1e-3


def test_windows_of_long_clips_depend_on_seed_and_id_alone():
    golden = [192, 507, 1143]
    assert clap.chunk_starts(2501, "123456", 0) == clap.chunk_starts(2501, "123456", 0) == golden
    others = [clap.chunk_starts(2501, i, s) for i, s in (("123457", 0), ("123456", 1), ("", 0))]
    assert golden not in others and len({tuple(o) for o in others}) == 3


@pytest.mark.parametrize("frames", [1002, 1003, 1004, 1010, 2501, 700_000])
def test_the_three_windows_lie_in_the_thirds_of_the_clip(frames):
    thirds = np.array_split(np.arange(frames - 1000), 3)
    for i in range(50):
        starts = clap.chunk_starts(frames, str(i), 0)
        assert all(s in third if len(third) else s == 0 for s, third in zip(starts, thirds, strict=True))
        assert max(starts) + 1001 <= frames


# the two backends --------------------------------------------------------------------------------


def test_both_backends_agree_on_5_10_and_25_seconds(weights):
    waves, ids = [sound(s, s) for s in (5, 10, 25)], ["5", "10", "25"]
    a, b = (clap.ClapEncoder(name, str(weights)).encode(waves, ids) for name in clap_model.BACKENDS)
    assert a.shape == (3, 512) and a.dtype == np.float32 and unit(a)
    assert (a * b).sum(axis=1).min() >= 0.9999 and np.abs(a - b).max() < 1e-5
    assert (a @ a.T)[np.triu_indices(3, 1)].max() < 0.9995  # and tell the clips apart


def test_embeddings_are_those_of_laion_claps_own_call(encoder, laion_features, weights):
    """Its own features, four channels also for short clips, all clips in one batch, into its own model."""
    model = clap.ClapEncoder("laion", str(weights))._model
    waves, ids = [sound(s, 3) for s in (2, 10, 14)], ["a", "b", "c"]
    inputs = [laion_features(w, clap.chunk_starts(1401, i, 0)) for w, i in zip(waves, ids, strict=True)]
    inputs = [{k: f[k] for k in ("mel_fusion", "longer")} for f in inputs]
    theirs = model.get_audio_embedding(inputs).numpy()
    assert (theirs * encoder.encode(waves, ids)).sum(axis=1).min() >= 0.9999


def test_both_backends_agree_on_texts(weights, tokenizer):
    texts = ["", "dog bark", "rain. thunder, wind", " ".join(WORDS * 20), "日本 é 🎵"]
    a, b = (
        clap.ClapTextEncoder(name, str(weights), tokenizer=str(tokenizer)).encode(texts) for name in clap_model.BACKENDS
    )
    assert a.shape == (5, 512) and a.dtype == np.float32 and unit(a)
    assert (a * b).sum(axis=1).min() >= 0.9999 and np.abs(a - b).max() < 1e-5
    assert (a @ a.T)[np.triu_indices(5, 1)].max() < 0.9999


@pytest.mark.slow
def test_both_backends_agree_at_the_published_size(tmp_path):
    shape = clap_model.Shape(layers=1, inner=64, vocabulary=1600, positions=100)
    path = save_like_published(tmp_path / "full.pt", laion_state(shape))
    waves, ids = [sound(s, s) for s in (5, 10, 25)], ["5", "10", "25"]
    a, b = (clap.ClapEncoder(name, str(path)) for name in clap_model.BACKENDS)
    x, y = a.encode(waves, ids), b.encode(waves, ids)
    assert (x * y).sum(axis=1).min() >= 0.9999 and np.abs(x - y).max() < 1e-5
    assert sum(p.numel() for p in a._model.parameters()) == 28_205_512
    assert b._model.audio_branch.__class__.__module__ == "clap_module.htsat"


@pytest.mark.slow
def test_random_weights_follow_the_seed_and_name_themselves():
    a, b, c = (clap.ClapEncoder(weights="random", seed=s) for s in (0, 0, 1))
    x, y, z = (e.encode([sound(1)]) for e in (a, b, c))
    assert x.tobytes() == y.tobytes() != z.tobytes() and unit(x)
    assert a.settings() == b.settings() and a.settings()["weights"] == "random"
    assert a.settings()["weights_sha256"] != c.settings()["weights_sha256"]


# independence ------------------------------------------------------------------------------------


def test_a_sounds_embedding_does_not_depend_on_order_or_batch(encoder):
    seconds = [0.1, 12, 3, 0.01, 10, 10.5, 1, 20, 5, 0.5, 2, 11, 9, 0.3, 7, 4]
    waves, ids = [sound(s, i) for i, s in enumerate(seconds)], [f"id{i}" for i in range(16)]
    whole = encoder.encode(waves, ids)
    order = np.random.default_rng(1).permutation(16)
    for size in (1, 3, 16):
        out = np.empty_like(whole)
        for start in range(0, 16, size):
            rows = order[start : start + size]
            out[rows] = encoder.encode([waves[i] for i in rows], [ids[i] for i in rows])
        assert out.tobytes() == whole.tobytes(), size


def test_a_gpus_one_big_batch_differs_by_rounding_only(encoder):
    """The call that a GPU gets, here on the CPU: short and long clips together, and short ones alone."""
    waves, ids = [sound(s, 5) for s in (1, 12, 10, 0.2, 30)], list("abcde")
    alone = encoder.encode(waves, ids)
    items = [encoder.prepare(w, i) for w, i in zip(waves, ids, strict=True)]
    for rows in ([0, 1, 2, 3, 4], [3, 0, 2], [4, 1]):
        with torch.inference_mode():
            out = encoder._call(encoder._model, torch.device("cpu"), [items[i] for i in rows]).numpy()
        np.testing.assert_allclose(out / np.linalg.norm(out, axis=1, keepdims=True), alone[rows], atol=1e-5)


def test_short_clips_are_never_flagged_longer(encoder, monkeypatch):
    seen = []
    call = encoder._call
    monkeypatch.setattr(
        encoder, "_call", lambda m, d, items: seen.extend(len(x) > 1 for x in items) or call(m, d, items)
    )
    encoder.encode([sound(s) for s in (0.1, 5, 10, 10.009)])
    encoder.encode([sound(10.01)], ["x"])
    assert seen == [False] * 4 + [True]


def test_the_id_counts_for_long_clips_only(encoder):
    short, long = sound(4), sound(21)
    a, b = encoder.encode([short, long], ["1", "2"]), encoder.encode([short, long], ["3", "4"])
    assert a[0].tobytes() == b[0].tobytes() and a[1].tobytes() != b[1].tobytes()
    assert encoder.encode([short])[0].tobytes() == a[0].tobytes()
    with pytest.raises(HacError, match="need their sound ids"):
        encoder.encode([short, long])
    with pytest.raises(ValueError):
        encoder.encode([short, long], ["1"])


def test_the_seed_counts_for_long_clips(weights):
    a, b = (clap.ClapEncoder(weights=str(weights), seed=s) for s in (0, 1))
    assert a.encode([sound(21)], ["1"]).tobytes() != b.encode([sound(21)], ["1"]).tobytes()
    assert a.encode([sound(3)], ["1"]).tobytes() == b.encode([sound(3)], ["1"]).tobytes()


def test_a_texts_embedding_does_not_depend_on_order_or_batch(text_encoder):
    texts = ["", *(" ".join(WORDS[: i + 1]) for i in range(15))]
    whole = text_encoder.encode(texts)
    for size in (1, 3, 16):
        parts = [text_encoder.encode(texts[::-1][i : i + size]) for i in range(0, 16, size)]
        assert np.concatenate(parts)[::-1].tobytes() == np.ascontiguousarray(whole).tobytes()
    with torch.inference_mode():  # padded to 77, as on a GPU
        padded = text_encoder._call(text_encoder._model, torch.device("cpu"), texts).numpy()
    np.testing.assert_allclose(padded / np.linalg.norm(padded, axis=1, keepdims=True), whole, atol=1e-5)


def test_texts_are_cut_at_77_tokens(text_encoder):
    words = WORDS * 10
    a, b = text_encoder.encode([" ".join(words), " ".join([*words, "dog", "dog"])])
    assert a.tobytes() == b.tobytes()
    assert text_encoder.encode([" ".join(words[:8])])[0].tobytes() != a.tobytes()


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(0),
        np.ones(1),
        np.zeros(5000),
        np.full(5000, 900.0),
        np.r_[1, np.zeros(600_000)],
        np.full(9, 1e-30),
    ],
)
def test_silence_clicks_and_specks_give_finite_unit_vectors(encoder, wave):
    x = encoder.encode([wave.astype(np.float16).astype(np.float32)], ["1"])
    assert x.shape == (1, 512) and unit(x)


def test_no_clips_give_no_rows(encoder, text_encoder):
    assert encoder.encode([], []).shape == text_encoder.encode([]).shape == (0, 512)


def test_bfloat16_stays_near(weights):
    plain, fast = (clap.ClapEncoder(weights=str(weights), autocast=flag) for flag in (False, True))
    x, y = (e.encode([sound(3), sound(12)], ["1", "2"]) for e in (plain, fast))
    assert x.tobytes() != y.tobytes() and (x * y).sum(axis=1).min() > 0.99 and y.dtype == np.float32


def test_nothing_is_printed_and_the_global_generators_stay(weights, capfd):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    for backend in clap_model.BACKENDS:
        clap.ClapEncoder(backend, str(weights)).encode([sound(12)], ["1"])
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == np.random.get_state()[1].tolist()
    assert capfd.readouterr().out == ""


# settings ----------------------------------------------------------------------------------------


def test_settings_are_json_and_need_no_model(weights, tokenizer):
    audio = clap.ClapEncoder(weights=str(weights), seed=3)
    text = clap.ClapTextEncoder(weights=str(weights), tokenizer=str(tokenizer))
    for encoder in (audio, text):
        settings = encoder.settings()
        assert json.loads(json.dumps(settings)) == settings
        assert settings["weights_sha256"] == sha256_file(weights) and "_model" not in vars(encoder)
    assert audio.settings()["seed"] == 3 and "seed" not in text.settings()


def test_settings_change_with_all_that_changes_a_vector(weights, tokenizer, state, tmp_path):
    other = save_like_published(tmp_path / "published.pt", state | {"logit_scale_a": torch.tensor(1.0)})
    (tmp_path / "t").mkdir()
    for path in tokenizer.iterdir():
        (tmp_path / "t" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "t" / "merges.txt").write_text("#version: 0.2\n")
    encoders = [
        clap.ClapEncoder(weights=str(weights), **k) for k in ({}, {"seed": 1}, {"autocast": True}, {"backend": "laion"})
    ]
    encoders += [clap.ClapEncoder(weights=str(other))]
    encoders += [clap.ClapTextEncoder(weights=str(weights), tokenizer=str(t)) for t in (tokenizer, tmp_path / "t")]
    keys = {json.dumps(e.settings(), sort_keys=True) for e in encoders}
    assert len(keys) == len(encoders) == 7


# checkpoints -------------------------------------------------------------------------------------


def test_prefix_buffer_and_training_leftovers_make_no_difference(weights, state, tmp_path):
    torch.save(state, tmp_path / "plain.pt")
    read, plain = clap_model.read_checkpoint(weights), clap_model.read_checkpoint(tmp_path / "plain.pt")
    assert read.keys() == plain.keys() == state.keys()
    assert all(torch.equal(read[k], state[k]) for k in state)
    assert clap_model.Shape.of(read, "") == SMALL


def test_the_legacy_format_is_read_too(state, tmp_path):
    torch.save({"state_dict": state}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert clap_model.read_checkpoint(tmp_path / "old.pt").keys() == state.keys()


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_checkpoint_with_code_in_it_is_refused_unexecuted(state, tmp_path, capfd):
    path = save_like_published(tmp_path / "bad.pt", state, extra=Bomb())
    with pytest.raises(HacError, match="not loaded as a checkpoint") as e:
        clap.ClapEncoder(weights=str(path)).encode([sound(1)])
    assert e.value.where == str(path) and "executed" not in capfd.readouterr().out
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(HacError, match="not loaded as a checkpoint"):
        clap_model.read_checkpoint(path)
    assert "executed" not in capfd.readouterr().out


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_damaged_checkpoint_is_one_clear_error(weights, tmp_path, share):
    data = weights.read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(HacError, match="not loaded as a checkpoint") as e:
        clap_model.read_checkpoint(tmp_path / "cut.pt")
    assert "hac weights get clap" in e.value.fix


@pytest.mark.parametrize("content", [3, [1, 2], {}, {"state_dict": {}}, {"a": "b"}, {"state_dict": 4}])
def test_a_checkpoint_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(HacError, match="holds no model weights"):
        clap_model.read_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("backend", clap_model.BACKENDS)
def test_missing_unknown_and_misfitting_weights_are_refused(state, tmp_path, backend):
    def refused(changed, match):
        path = save_like_published(tmp_path / "changed.pt", changed)
        with pytest.raises(HacError, match=match):
            clap.ClapEncoder(backend, str(path)).encode([sound(1)])

    refused({k: v for k, v in state.items() if k != "audio_branch.norm.weight"}, "1 weights missing, 0 unknown")
    refused(state | {"audio_branch.more": torch.ones(1)}, "0 weights missing, 1 unknown")
    refused(state | {"audio_branch.norm.weight": torch.ones(3)}, "do not fit: .*norm.weight")
    unfused = {k: v for k, v in state.items() if "mel_conv2d" not in k and "fusion_model" not in k}
    refused(unfused, "not a fused CLAP checkpoint")


def test_a_hugging_face_folder_gives_the_same_bytes(weights, state, tmp_path):
    ensure()
    from transformers import ClapConfig, ClapModel

    model = clap.ClapEncoder(weights=str(weights))._model
    text = clap_model._transformers_model(SMALL, "text").config
    config = ClapConfig(audio_config=model.config.to_dict(), text_config=text.to_dict())
    hub = ClapModel(config)
    hub.load_state_dict(clap_model.convert_laion_state(state), strict=False)
    hub.save_pretrained(tmp_path)
    waves, ids = [sound(2), sound(15)], ["1", "2"]
    folder = clap.ClapEncoder(weights=str(tmp_path))
    assert folder.encode(waves, ids).tobytes() == clap.ClapEncoder(weights=str(weights)).encode(waves, ids).tobytes()
    assert folder.settings()["weights_sha256"] == sha256_file(tmp_path / "model.safetensors")
    with pytest.raises(HacError, match="laion-clap's own checkpoint only"):
        clap.ClapEncoder("laion", str(tmp_path))
    del hub.audio_model.audio_encoder.norm
    hub.save_pretrained(tmp_path)
    with pytest.raises(HacError, match="2 weights missing; the first: audio_model.audio_encoder.norm"):
        clap.ClapEncoder(weights=str(tmp_path)).encode(waves, ids)
    (tmp_path / "model.safetensors").write_bytes(b"\x08" * 100)
    with pytest.raises(HacError, match="not loaded as a CLAP model"):
        clap.ClapEncoder(weights=str(tmp_path)).encode(waves, ids)


def test_the_fetched_folder_serves_both_encoders(weights, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("HAC_CACHE", str(tmp_path))
    folder = tmp_path / "weights" / "clap"
    folder.mkdir(parents=True)
    (folder / clap.CHECKPOINT).write_bytes(weights.read_bytes())
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    (folder / "config.json").write_text('{"model_type": "roberta", "vocab_size": 1500}')  # as roberta-base's
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    audio, text = clap.ClapEncoder(), clap.ClapTextEncoder()
    other = clap.ClapTextEncoder(weights=str(weights), tokenizer=str(tokenizer))
    assert text.encode(["rain, dog"]).tobytes() == other.encode(["rain, dog"]).tobytes()
    assert audio.settings()["weights"] == text.settings()["weights"] == clap.CHECKPOINT and audio._model
    with open(folder / clap.CHECKPOINT, "ab") as f:
        f.write(b"x")
    for encode in (
        clap.ClapEncoder("laion", str(folder)).encode,
        clap.ClapEncoder(weights=str(folder)).encode,
    ):
        with pytest.raises(HacError, match="not the published file: sha256"):  # it was pinned above
            encode([sound(1)])


def test_weights_that_are_not_here_are_an_error_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("HAC_CACHE", str(tmp_path))
    for make in (
        clap.ClapEncoder,
        clap.ClapTextEncoder,
        lambda: clap.ClapEncoder(weights=str(tmp_path / "x.pt")),
    ):
        with pytest.raises(HacError) as e:
            make()
        assert e.value.fix == "hac weights get clap"
    with pytest.raises(HacError, match="did you mean 'laion'"):
        clap.ClapEncoder("liaon")
    with pytest.raises(HacError, match="no device"):
        clap.ClapEncoder(weights="random", device="tpu9").encode([sound(1)])


# tokenizers --------------------------------------------------------------------------------------


def test_an_empty_tokenizer_is_an_error(weights, tokenizer, tmp_path):
    config = json.loads((tokenizer / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "vocab.json").write_text(json.dumps({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(HacError, match="the tokenizer is empty: it knows 5 tokens"):
        clap.ClapTextEncoder(weights=str(weights), tokenizer=str(tmp_path)).encode(["rain"])


def test_a_folder_without_a_tokenizer_is_an_error(weights, tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(HacError, match="tokenizer") as e:
            clap.ClapTextEncoder(weights=str(weights), tokenizer=str(folder)).encode(["rain"])
        assert e.value.fix == "hac weights get clap"


def test_a_tokenizer_larger_than_the_model_is_an_error(tokenizer, tmp_path):
    small = clap_model.Shape(**(vars(SMALL) | {"vocabulary": 1200}))
    path = save_like_published(tmp_path / "small.pt", laion_state(small))
    with pytest.raises(HacError, match="knows 1,500 tokens, the model 1,200"):
        clap.ClapTextEncoder(weights=str(path), tokenizer=str(tokenizer)).encode(["rain"])


def test_in_worker_processes_it_gives_the_same_bytes(weights, tmp_path):
    """Three ways: alone in this process, one worker, two workers; the network is loaded once in each worker."""
    import soundfile as sf

    from hac_utils.extract import extract, sounds_in

    (tmp_path / "in").mkdir()
    for k in range(33):
        sf.write(tmp_path / "in" / f"{k}.wav", sound(10.5 if k % 11 == 0 else 0.1 + k / 20, k), 48_000)
    clips, made = sounds_in(tmp_path / "in"), []
    for workers in (0, 1, 2):
        done = extract(
            clips,
            clap.ClapEncoder(weights=str(weights)),
            tmp_path / str(workers),
            workers=workers,
            batch_size=5 + workers,
        )
        assert done.failures.empty and 0 < done.model_seconds < done.seconds
        made.append(done.read(list(clips))[1].tobytes())
    assert made[0] == made[1] == made[2]
    direct = clap.ClapEncoder(weights=str(weights)).encode([sound(10.5, 11)], ["11"])
    assert np.frombuffer(made[0], np.float32).reshape(33, -1)[list(clips).index("11")] @ direct[0] > 0.999


def test_an_encoder_travels_without_its_network_and_arrives_once(weights):
    import pickle

    encoder = clap.ClapEncoder(weights=str(weights))
    encoder.encode([sound(0.5)])
    sent = pickle.dumps(encoder)
    assert len(sent) < 2000
    arrived, again = pickle.loads(sent), pickle.loads(sent)
    assert arrived is again and "_model" not in vars(arrived)
    assert arrived.encode([sound(0.5)]).tobytes() == encoder.encode([sound(0.5)]).tobytes()

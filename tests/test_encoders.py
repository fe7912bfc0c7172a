"""Encoders and extraction: one contract for all; bad clips are named; nothing leaks from test texts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from hac_utils.datasets import join_text, read_dataset
from hac_utils.encoders import AUDIO_ENCODERS, TEXT_ENCODERS, LogMelEncoder, TfidfEncoder, unit_rows
from hac_utils.errors import HacError
from hac_utils.extract import embed_audio, embed_corpus, embed_texts

TEXTS = [
    "rain on a tin roof", "heavy rain and thunder", "dog barking in the yard", "a small dog whines",
    "piano chord", "grand piano note", "city traffic with horns", "traffic at night",
]  # fmt: skip


def noise(seconds, seed=0, rate=32_000):
    return np.random.default_rng([seed, 8]).normal(0, 0.1, max(1, round(seconds * rate))).astype(np.float32)


def write_clips(folder, n):
    paths = {}
    for i in range(n):
        rate = (8000, 44_100, 48_000)[i % 3]
        paths[f"{i}"] = folder / f"{i}.wav"
        sf.write(paths[f"{i}"], noise(0.02 + 0.01 * (i % 7), i, rate), rate)
    return paths


# contract of audio encoders ----------------------------------------------------------------------


@pytest.mark.parametrize("name", AUDIO_ENCODERS)
@pytest.mark.parametrize("seconds", [0, 0.0001, 0.007, 0.1, 1.037, 10, 30])
def test_any_length_gives_one_finite_unit_vector(name, seconds):
    encoder = AUDIO_ENCODERS[name]()
    x = encoder.encode([noise(seconds)])
    assert encoder.name == name and x.shape == (1, encoder.dim) and x.dtype == np.float32
    assert np.isfinite(x).all() and abs(np.linalg.norm(x) - 1) < 1e-6


@pytest.mark.parametrize("name", AUDIO_ENCODERS)
@pytest.mark.parametrize(
    "wave", [np.zeros(5000), np.ones(5000), np.full(5000, 1000), np.r_[1, np.zeros(5000)], np.full(9, 1e-30)]
)
def test_silence_steps_and_clicks_give_finite_unit_vectors(name, wave):
    x = AUDIO_ENCODERS[name]().encode([wave.astype(np.float32)])
    assert np.isfinite(x).all() and abs(np.linalg.norm(x) - 1) < 1e-6


@pytest.mark.parametrize("name", AUDIO_ENCODERS)
def test_a_clips_vector_does_not_depend_on_its_batch(name):
    encoder, batch = AUDIO_ENCODERS[name](), [noise(s, i) for i, s in enumerate((0.1, 0.5, 0.3))]
    together = encoder.encode(batch)
    alone = np.vstack([AUDIO_ENCODERS[name]().encode([a]) for a in batch])
    assert together.tobytes() == alone.tobytes() == encoder.encode(batch[::-1])[::-1].tobytes()


def test_different_sounds_are_further_apart_than_two_takes_of_one_sound():
    t = np.arange(32_000) / 32_000
    low, high = (np.sin(2 * np.pi * hz * t).astype(np.float32) * 0.3 for hz in (200, 4000))
    a, b, c, d = LogMelEncoder().encode([noise(1, 1), noise(1, 2), low, high])
    assert a @ b > 0.99 and max(a @ c, a @ d, c @ d) < a @ b - 0.05


@pytest.mark.parametrize("hz", [200, 1000, 4000, 12_000])
def test_a_full_scale_sine_is_near_0_db_in_the_band_of_its_frequency(hz):
    t = np.arange(32_000) / 32_000
    db = LogMelEncoder().spectrogram(np.sin(2 * np.pi * hz * t).astype(np.float32))
    assert db.shape == (64, 97) and db.dtype == np.float32 and db.min() == pytest.approx(-80, abs=1e-4)
    assert -7 < db.max() < 7 and np.ptp(db.argmax(axis=0)) == 0
    quiet = LogMelEncoder().spectrogram(0.1 * np.sin(2 * np.pi * hz * t).astype(np.float32))
    assert db.max() - quiet.max() == pytest.approx(20, abs=0.01)


def test_unit_rows_leave_a_zero_row_at_zero():
    x = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(x, [[0.6, 0.8], [0, 0]], rtol=0, atol=1e-7)
    assert x.dtype == np.float32


# text encoders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_any_text_gives_one_finite_vector_of_norm_1_or_0(name):
    encoder = TEXT_ENCODERS[name]().fit(TEXTS)
    x = encoder.encode([*TEXTS, "", "   ", "日本語", "\x00", "rain " * 20_000])
    norms = np.linalg.norm(x, axis=1)
    assert x.shape == (len(TEXTS) + 5, encoder.dim) and x.dtype == np.float32 and np.isfinite(x).all()
    np.testing.assert_allclose(norms[: len(TEXTS)], 1, atol=1e-6)
    assert norms[len(TEXTS)] == norms[len(TEXTS) + 1] == 0


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_fitting_twice_gives_the_same_bytes(name):
    a, b = (TEXT_ENCODERS[name](3).fit(TEXTS).encode(TEXTS) for _ in range(2))
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_words_of_test_texts_never_change_the_training_vectors(name):
    first = embed_texts(name, TEXTS, {"train": TEXTS, "test": ["rain"]}, seed=0)
    second = embed_texts(
        name, TEXTS, {"train": TEXTS, "test": ["rain", "xylophone zither", *["thunder rain"] * 50]}, seed=0
    )
    assert first["train"].tobytes() == second["train"].tobytes()
    assert first["test"][0].tobytes() == second["test"][0].tobytes()


def test_a_word_seen_in_test_texts_only_has_no_weight():
    fitted = TfidfEncoder().fit(TEXTS)
    known, more = fitted.encode(["dog barking", "dog barking qqqq"])
    np.testing.assert_allclose(known, more, rtol=0, atol=1e-6)
    assert not fitted.encode(["qqqq"]).any()


def test_texts_about_the_same_thing_are_nearer():
    x = TfidfEncoder().fit(TEXTS).encode(TEXTS)
    assert x[0] @ x[1] > x[0] @ x[4] + 0.05 and x[4] @ x[5] > x[4] @ x[2] + 0.05


@pytest.mark.parametrize("texts", [["rain"], ["rain", "rain"], ["a", "b"], ["rain", ""], TEXTS[:3]])
def test_tiny_corpora_fill_the_rest_with_zeros(texts):
    x = TfidfEncoder().fit(texts).encode(texts)
    assert x.shape == (len(texts), 512) and np.isfinite(x).all()
    assert not x[:, max(1, len(texts)) :].any()


@pytest.mark.parametrize("texts", [[], ["", "  "], ["!!!", "?"]])
def test_training_texts_without_a_word_are_one_error(texts):
    with pytest.raises(HacError, match="training texts") as e:
        TfidfEncoder().fit(texts)
    assert "title, tags, description" in e.value.where


def test_rare_words_only_still_fit_a_larger_corpus():
    texts = [f"{chr(97 + i // 26 % 26)}{chr(97 + i % 26)}" for i in range(520)]
    x = TfidfEncoder().fit(texts).encode(texts)
    assert np.isfinite(x).all() and x.any()


# extraction --------------------------------------------------------------------------------------


def test_embeddings_do_not_depend_on_order_or_workers(tmp_path):
    paths = write_clips(tmp_path, 36)
    ids, X, failures = embed_audio(paths, "logmel", workers=1)
    assert ids == list(paths) and X.shape == (36, 512) and X.dtype == np.float32 and failures.empty
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, atol=1e-6)
    two, X2, _ = embed_audio(paths, "logmel", workers=2)
    back, X3, _ = embed_audio(dict(reversed(paths.items())), "logmel", workers=1)
    assert two == ids and X2.tobytes() == X.tobytes()
    assert back == ids[::-1] and np.ascontiguousarray(X3[::-1]).tobytes() == X.tobytes()


def test_bad_files_are_named_and_the_others_kept(tmp_path):
    paths = write_clips(tmp_path, 4)
    expected = embed_audio(paths, "logmel", workers=1)[1]
    whole = paths["2"].read_bytes()
    paths |= {k: tmp_path / f"{k}.wav" for k in ("empty", "text", "cut", "dir", "absent", "nan")}
    paths["empty"].touch()
    paths["text"].write_text("no audio")
    paths["cut"].write_bytes(whole[:30])
    paths["dir"].mkdir()
    sf.write(paths["nan"], np.full(100, np.nan), 8000, subtype="FLOAT")
    ids, X, failures = embed_audio(dict(sorted(paths.items(), reverse=True)), "logmel", workers=1)
    assert ids == ["3", "2", "1", "0"] and np.array_equal(X[::-1], expected)
    assert failures["sound_id"].tolist() == ["absent", "cut", "dir", "empty", "nan", "text"]
    assert set(failures["stage"]) == {"audio embedding"} and (failures["reason"].str.len() > 5).all()


def corpus(tmp_path, n=4):
    (tmp_path / "audio").mkdir()
    write_clips(tmp_path / "audio", n)
    frame = pd.DataFrame(
        {
            "sound_id": [str(i) for i in range(n + 1)],
            "class": "fx-o",
            "title": "t",
            "tags": "",
            "description": "",
        }
    )
    frame.to_csv(tmp_path / "metadata.csv", index=False)
    return tmp_path


def test_a_corpus_keeps_rows_and_vectors_aligned_and_lists_the_rest(tmp_path):
    folder = corpus(tmp_path)
    (folder / "audio" / "1.wav").write_bytes(b"RIFF")
    data = read_dataset(folder)
    done = embed_corpus(data, "logmel", "tfidf", 1)
    frame, X, failures = done.frame, done.audio, done.failures
    assert done.text is None  # fitted per fold
    assert frame["sound_id"].tolist() == ["0", "2", "3"] and len(X) == 3
    assert frame["path"].tolist() == [str(folder / "audio" / f"{i}.wav") for i in (0, 2, 3)]
    assert np.array_equal(X[1:2], LogMelEncoder().encode([_wave(folder / "audio" / "2.wav")]))
    assert failures[["sound_id", "stage"]].to_numpy().tolist() == [
        ["4", "audio file"],
        ["1", "audio embedding"],
    ]


def _wave(path):
    from hac_utils.audio import load_audio

    return load_audio(path, LogMelEncoder.sample_rate)


def test_a_corpus_without_any_readable_sound_is_one_error(tmp_path):
    folder = corpus(tmp_path)
    for path in (folder / "audio").iterdir():
        path.write_bytes(b"")
    with pytest.raises(HacError, match="none of the 4 sound files could be read; the first: the file is empty"):
        embed_corpus(read_dataset(folder), "logmel", "tfidf", 1)


def test_a_corpus_without_audio_keeps_every_row(tmp_path):
    folder = corpus(tmp_path)
    for path in (folder / "audio").iterdir():
        path.unlink()
    (folder / "audio").rmdir()
    done = embed_corpus(read_dataset(folder), "logmel", "tfidf", 1)
    assert len(done.frame) == 5 and done.audio is None and done.failures.empty
    assert set(done.frame["path"]) == {""}


@pytest.mark.slow
def test_mini_bst_embeds_without_a_failure_and_a_sound_is_nearest_to_itself(real):
    data = read_dataset(real / "mini_bst")
    some = {i: data.audio[i] for i in list(data.audio)[::3]}
    ids, X, failures = embed_audio(some, "logmel", 1)
    assert failures.empty and len(ids) == 33
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, atol=1e-6)
    assert (X @ X.T).argmax(axis=1).tolist() == list(range(33))
    texts = join_text(data.frame)
    assert TfidfEncoder().fit(texts).encode(texts).any(axis=1).all()

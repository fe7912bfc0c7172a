"""Bad sound files are named, never fatal; good ones become finite float32."""

from __future__ import annotations

import os

import numpy as np
import pytest
import soundfile as sf

from hac_utils import audio
from hac_utils.audio import MAX_PEAK, SUFFIXES, fit_length, load_audio, load_clips, load_waves, map_clips
from hac_utils.errors import HacError

RATE = 16_000


def tone(n=4000, rate=RATE, hz=440.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(n) / rate)).astype(np.float32)


def wav(path, data=None, rate=RATE, subtype="PCM_16"):
    sf.write(path, tone() if data is None else data, rate, subtype=subtype)
    return path


def bad_files(folder):
    """name -> (file, a piece of the reason)."""
    good = wav(folder / "good.bin.wav").read_bytes()
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is a text\n" * 50)
    (folder / "zeros.wav").write_bytes(bytes(1000))
    (folder / "head.wav").write_bytes(good[:20])
    (folder / "dir.wav").mkdir()
    (folder / "png.mp3").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    (folder / "link.wav").symlink_to(folder / "nowhere.wav")
    os.mkfifo(folder / "pipe.wav")
    wav(folder / "nosamples.wav", np.zeros(0, np.float32))
    wav(folder / "nan.wav", np.where(np.arange(4000) == 99, np.nan, tone()), subtype="FLOAT")
    wav(folder / "inf.wav", np.where(np.arange(4000) == 99, np.inf, tone()), subtype="FLOAT")
    wav(folder / "loud.wav", tone() * np.float32(3e38), subtype="FLOAT")
    wav(folder / "int32.wav", tone() * 2.0**31, subtype="FLOAT")
    reasons = {
        "empty.wav": "empty",
        "text.wav": "not readable",
        "zeros.wav": "not readable",
        "head.wav": "",
        "dir.wav": "a folder",
        "png.mp3": "not readable",
        "link.wav": "no such file",
        "absent.wav": "no such file",
        "pipe.wav": "not a regular file",
        "nosamples.wav": "no samples",
        "nan.wav": "NaN",
        "inf.wav": "infinite",
        "loud.wav": "full scale",
        "int32.wav": "full scale",
    }
    return {name: (folder / name, reason) for name, reason in reasons.items()}


def check(x):
    assert x.dtype == np.float32 and x.ndim == 1 and x.size and np.isfinite(x).all() and x.flags.c_contiguous
    return x


def test_every_bad_file_is_one_error_with_a_reason(tmp_path):
    for path, reason in bad_files(tmp_path).values():
        with pytest.raises(HacError) as e:
            load_audio(path, 32_000)
        assert reason in e.value.what and e.value.where == str(path) and e.value.fix
        assert "\n" not in e.value.what


@pytest.mark.parametrize(
    ("suffix", "size"),
    [("wav", 4000), ("flac", 4000), ("ogg", 40_000), ("mp3", 40_000), ("aiff", 4000), ("au", 4000)],
)
def test_a_file_cut_anywhere_gives_finite_samples_or_one_error(suffix, size, tmp_path):
    sf.write(tmp_path / f"a.{suffix}", tone(size), RATE)
    data = (tmp_path / f"a.{suffix}").read_bytes()
    cuts = {0, 1, 4, 11, 12, 20, 36, 43, 44, 45, 46, 47, *np.linspace(48, len(data) - 1, 12).astype(int)}
    path, outcomes = tmp_path / f"cut.{suffix}", set()
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        try:
            outcomes.add(check(load_audio(path, RATE)).size <= size + 4096)
        except HacError:
            outcomes.add("error")
    assert outcomes <= {True, "error"} and "error" in outcomes


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_a_file_with_flipped_bytes_gives_finite_samples_or_one_error(suffix, tmp_path):
    sf.write(tmp_path / f"a.{suffix}", tone(), RATE)
    data = (tmp_path / f"a.{suffix}").read_bytes()
    rng = np.random.default_rng([3, len(suffix)])
    path = tmp_path / f"b.{suffix}"
    for trial in range(60):
        hurt = bytearray(data)
        for position in rng.integers(0, 60 if trial % 2 else len(data), 3):
            hurt[min(position, len(data) - 1)] = rng.integers(256)
        path.write_bytes(hurt)
        try:
            check(load_audio(path, RATE))
        except HacError:
            pass


def test_an_exception_of_another_kind_inside_the_decoder_is_still_one_error(tmp_path, monkeypatch):
    path = wav(tmp_path / "a.wav")
    for error in (AssertionError(), TypeError("odd"), MemoryError(), sf.LibsndfileError(5)):

        def read(*_, error=error, **__):
            raise error

        monkeypatch.setattr(sf.SoundFile, "read", read)
        with pytest.raises(HacError, match="not readable as audio: ."):
            load_audio(path, RATE)


@pytest.mark.parametrize("rate", [1, 1000, 8000, 44_100, 384_000, 1_000_000])
@pytest.mark.parametrize("n", [1, 2, 3, 1000])
def test_odd_rates_and_single_samples_give_finite_samples_of_the_right_length(rate, n, tmp_path):
    x = check(load_audio(wav(tmp_path / "a.wav", tone(n, rate), rate), 32_000))
    assert abs(x.size - max(1, n * 32_000 / rate)) <= 1 or (rate == 1 and x.size <= 30 * 32_000)


def test_a_rate_that_the_resampler_refuses_is_one_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("io ratio out of range")

    monkeypatch.setattr(audio.soxr, "ResampleStream", refuse)
    with pytest.raises(HacError, match="cannot resample from 16000 Hz"):
        load_audio(wav(tmp_path / "a.wav"), 32_000)
    for rate in (1, 2**31 - 1):
        monkeypatch.undo()
        try:
            check(load_audio(wav(tmp_path / "b.wav", tone(50), rate), 32_000))
        except HacError:
            pass


def test_eight_channels_are_averaged(tmp_path):
    channels = np.stack([tone() * k / 8 for k in range(8)], axis=1)
    x = check(load_audio(wav(tmp_path / "a.wav", channels, subtype="FLOAT"), RATE))
    np.testing.assert_allclose(x, channels.mean(axis=1), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"]
)
def test_every_sample_format_decodes_to_the_same_tone(subtype, tmp_path):
    x = check(load_audio(wav(tmp_path / "a.wav", subtype=subtype), RATE))
    np.testing.assert_allclose(x, tone(), rtol=0, atol=0.02)


def test_resampling_keeps_a_tone_a_tone(tmp_path):
    x = check(load_audio(wav(tmp_path / "a.wav", tone(44_100, 44_100), 44_100, "FLOAT"), 32_000))
    assert x.size == 32_000
    np.testing.assert_allclose(x[1000:-1000], tone(32_000, 32_000)[1000:-1000], rtol=0, atol=1e-3)


def test_at_most_30_seconds_are_read(tmp_path):
    path = wav(tmp_path / "a.wav", np.zeros(40 * 1000, np.float32), 1000)
    assert load_audio(path, 1000).size == 30_000
    assert load_audio(path, 1000, max_seconds=0.5).size == 500


def test_a_little_over_full_scale_is_kept_as_it_is(tmp_path):
    x = load_audio(wav(tmp_path / "a.wav", tone() * 4, subtype="FLOAT"), RATE)
    np.testing.assert_array_equal(x, tone() * 4)
    assert MAX_PEAK < np.finfo(np.float16).max


def test_short_clips_repeat_and_long_ones_are_cut():
    assert fit_length(np.array([1, 2, 3]), 8).tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert fit_length(np.array([1, 2, 3]), 2).tolist() == [1, 2]
    assert fit_length(np.array([1]), 3).tolist() == [1, 1, 1]


def test_load_clips_names_the_bad_files_and_keeps_the_others_in_order(tmp_path):
    paths = {name: path for name, (path, _) in bad_files(tmp_path).items()}
    paths = {"z": wav(tmp_path / "z.wav"), **paths, "a": wav(tmp_path / "a.wav", tone(1))}
    ids, waves, failures = load_clips(paths, RATE, 0.5)
    assert ids == ["z", "a"] and waves.shape == (2, 8000) and np.isfinite(waves).all()
    assert failures["sound_id"].tolist() == sorted(set(paths) - {"a", "z"})
    assert failures.columns.tolist() == ["sound_id", "stage", "reason"]
    assert set(failures["stage"]) == {"decode"} and (failures["reason"] != "").all()


def test_load_clips_of_bad_files_only_is_an_empty_block(tmp_path):
    ids, waves, failures = load_clips({"x": tmp_path / "x.wav"}, RATE, 0.25)
    assert ids == [] and waves.shape == (0, 4000) and len(failures) == 1


def test_load_waves_stops_when_a_file_went_bad_since(tmp_path):
    paths = {"a": wav(tmp_path / "a.wav"), "b": wav(tmp_path / "b.wav")}
    assert load_waves(paths, RATE, 0.1).shape == (2, 1600)
    paths["b"].write_bytes(b"")
    with pytest.raises(HacError) as e:
        load_waves(paths, RATE, 0.1)
    assert "empty" in e.value.what and e.value.where.endswith("b.wav")


def test_workers_give_the_same_bytes_in_the_same_order(tmp_path):
    paths = {f"{i}": wav(tmp_path / f"{i}.wav", tone(1000 + i, hz=100 + 9 * i)) for i in range(40)}
    paths["7"].write_text("no audio")
    one, two = (load_clips(paths, RATE, 0.1, workers=w) for w in (1, 2))
    assert one[0] == two[0] == [str(i) for i in range(40) if i != 7]
    assert one[1].tobytes() == two[1].tobytes()
    assert one[2].equals(two[2]) and one[2]["sound_id"].tolist() == ["7"]


def test_a_worker_process_that_dies_is_one_error():
    with pytest.raises(HacError, match="worker process died"):
        map_clips(os._exit, [3] * 32, 2, "test")


def test_the_listed_endings_can_be_read_by_this_libsndfile():
    known = {f".{f.lower()}" for f in sf.available_formats()} | {".aif", ".opus"}
    assert set(SUFFIXES) <= known

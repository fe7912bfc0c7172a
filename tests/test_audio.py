"""Bad sound files are named, never fatal; good ones become finite float32."""

from __future__ import annotations

import os
import subprocess
import sys

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


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
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


# streaming ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("rate", [16_000, 8000, 44_100])
def test_blocks_put_together_are_the_file_decoded_at_once(rate, channels, tmp_path, monkeypatch):
    import soxr

    rng = np.random.default_rng([rate, channels])
    data = rng.normal(0, 0.1, (30_011, channels)).astype(np.float32)
    path = wav(tmp_path / "a.wav", data, rate, "FLOAT")
    mono = data.mean(axis=1)
    expected = mono if rate == RATE else soxr.resample(mono, rate, RATE, quality="HQ")
    for block in (1000, 4096, 2**18):
        monkeypatch.setattr(audio, "BLOCK", block)
        blocks = list(audio.stream_audio(path, RATE, None))
        assert (len(blocks) > 5 or block > 1000) and all(b.size for b in blocks)
        assert np.concatenate(blocks).tobytes() == expected.tobytes() == load_audio(path, RATE).tobytes()


def test_the_whole_file_or_its_start_can_be_wanted(tmp_path):
    path = wav(tmp_path / "a.wav", np.zeros(100_000, np.float32), 1000)
    assert load_audio(path, 1000, None).size == 100_000
    assert load_audio(path, 1000, 31.5).size == 31_500


def test_a_bad_sample_late_in_a_long_file_is_found_but_not_after_the_part_that_is_wanted(tmp_path):
    data = np.zeros(100_000, np.float32)
    data[90_000] = np.nan
    path = wav(tmp_path / "a.wav", data, 1000, "FLOAT")
    assert load_audio(path, 1000).size == 30_000
    with pytest.raises(HacError, match="NaN"):
        load_audio(path, 1000, None)


MEASURE = """
import resource, sys
from hac_utils.audio import stream_audio
n = sum(len(b) for b in stream_audio(sys.argv[1], 16_000, None))
print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_a_file_of_two_hours(tmp_path):
    def decoded(hours):
        path = tmp_path / f"{hours}.wav"
        wav(path, np.zeros(1000), 8000)
        frames = int(hours * 3600 * 8000)
        head = bytearray(path.read_bytes()[:44])
        head[4:8], head[40:44] = (36 + 2 * frames).to_bytes(4, "little"), (2 * frames).to_bytes(4, "little")
        path.write_bytes(head)
        os.truncate(path, 44 + 2 * frames)  # a file with a hole: silence
        done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
        return map(int, done.stdout.split())

    short, small = decoded(0.05)
    long, large = decoded(2)
    assert (short, long) == (0.05 * 3600 * 16_000, 2 * 3600 * 16_000)
    assert large - small < 30, f"{small} MiB for 3 minutes, {large} MiB for 2 hours"


# ffmpeg (a stand-in: the real one is optional) -----------------------------------------------------

FFMPEG = """#!{python}
import struct, sys, time
import numpy as np
name = sys.argv[sys.argv.index("-i") + 1]
assert name.startswith("file:/") and "-nostdin" in sys.argv and sys.argv[sys.argv.index("-protocol_whitelist") + 1] == "file,pipe"
if "slow" in name: time.sleep(30)
if "bad" in name: sys.exit("x: Invalid data found")
wave = np.stack([np.full(50_000, 0.25), np.full(50_000, 0.75)], 1).astype(">f4")
sys.stdout.buffer.write(struct.pack(">4s5I", b".snd", 32, 0xFFFFFFFF, 6, 16_000, 2) + bytes(8) + wave.tobytes())
"""


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ffmpeg"
    program.write_text(FFMPEG.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def test_what_libsndfile_cannot_open_is_given_to_ffmpeg_if_there_is_one(ffmpeg):
    path = ffmpeg / "-x 'a'.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A ")
    x = check(load_audio(path, RATE))
    assert x.size == 50_000 and set(x) == {np.float32(0.5)}
    assert load_audio(path, RATE, 0.5).size == 8000
    assert abs(load_audio(path, 8000, None).size - 25_000) <= 1


def test_what_ffmpeg_cannot_read_either_is_one_error(ffmpeg, monkeypatch):
    (ffmpeg / "bad.m4a").write_bytes(b"no sound")
    with pytest.raises(HacError, match="not readable as audio: .*Invalid data"):
        load_audio(ffmpeg / "bad.m4a", RATE)
    (ffmpeg / "empty.m4a").touch()
    with pytest.raises(HacError, match="the file is empty"):
        load_audio(ffmpeg / "empty.m4a", RATE)
    monkeypatch.setattr(audio, "FFMPEG_SECONDS", 0.5)
    (ffmpeg / "slow.m4a").write_bytes(b"no sound")
    with pytest.raises(HacError, match=r"more than 0.5 s|took too long"):
        load_audio(ffmpeg / "slow.m4a", RATE)


def test_without_ffmpeg_the_reason_is_libsndfiles(tmp_path, monkeypatch):
    monkeypatch.setattr(audio.shutil, "which", lambda name: None)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    with pytest.raises(HacError, match="not readable as audio"):
        load_audio(tmp_path / "a.m4a", RATE)

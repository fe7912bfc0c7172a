"""The synthetic demo corpus: same bytes every time, the real layout, nothing of the truth in reach."""

from __future__ import annotations

import hashlib
import io
import json
import uuid

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from hac_utils import synth, synth_audio, synth_files, synth_plan, synth_text
from hac_utils.errors import HacError
from hac_utils.taxonomy import CLASS_IDX, CLASSES, family

SIZE = {"clips": 60, "noisy": 30, "evaluation": 23, "seed": 5}
METADATA = {name: f"{name}_metadata.csv" for name in ("BSD10k", "BSD35k-CS", "eval")}


def digests(root) -> dict[str, str]:
    files = [p for p in sorted(root.rglob("*")) if p.is_file()]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def table(root, path) -> pd.DataFrame:
    return pd.read_csv(root / path, dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    return root, synth.generate(root, **SIZE, workers=1)


@pytest.fixture(scope="module")
def full_tables():
    """Tables of the default size; planning needs no audio."""
    return synth_plan.plans(1400, 1100, 253, 0)


def test_one_and_two_workers_write_the_same_bytes(corpus, tmp_path):
    root, content = corpus
    assert synth.generate(tmp_path, **SIZE, workers=2) == content
    assert digests(tmp_path) == digests(root)


def test_another_seed_gives_other_sounds_and_words(corpus, tmp_path):
    root, _ = corpus
    synth.generate(tmp_path, clips=23, noisy=0, evaluation=0, seed=6, workers=1)
    ours, theirs = digests(root), digests(tmp_path)
    assert not set(ours.values()) & {v for k, v in theirs.items() if "/audio/" in k}
    assert len(theirs) > 23


@pytest.mark.parametrize("name", list(METADATA))
def test_every_row_has_one_audio_file_that_decodes_to_finite_sound(corpus, name):
    root, _ = corpus
    frame = table(root, f"{name}/metadata/{METADATA[name]}")
    files = sorted((root / name / "audio").iterdir())
    assert sorted(frame.iloc[:, 0]) == sorted(p.stem for p in files)
    for path in files:
        audio, sr = sf.read(path, always_2d=True)
        assert sr in synth_files.SAMPLE_RATES and 1 <= audio.shape[1] <= 2, path
        assert 0.01 <= len(audio) / sr <= 8.2, path
        assert np.isfinite(audio).all() and np.abs(audio).max() > 1e-4, path
        assert np.abs(audio).max() <= 1.2, path


def test_layout_columns_and_codings_are_those_of_the_real_sets(corpus):
    root, _ = corpus
    for name in ("BSD10k", "BSD35k-CS"):
        frame = table(root, f"{name}/metadata/{METADATA[name]}")
        assert list(frame.columns) == [
            "sound_id", "class", "class_idx", "class_top", "confidence",
            "uploader", "license", "title", "tags", "description",
        ]  # fmt: skip
        assert frame["sound_id"].is_unique and frame["sound_id"].str.fullmatch(r"\d+").all()
        assert (frame["class_top"] == frame["class"].map(family)).all()
        known = frame["class"].isin(CLASSES)
        assert (frame.loc[known, "class_idx"].astype(int) == frame.loc[known, "class"].map(CLASS_IDX)).all()
        description = table(root, f"{name}/metadata/BST_description.csv")
        assert list(description.columns) == [
            "class_idx", "class_key", "class_key_long",
            "top_level", "second_level", "description", "examples",
        ]  # fmt: skip
        assert tuple(description["class_key"]) == CLASSES
        assert (root / name / "README.md").read_text().startswith("SYNTHETIC DEMO CORPUS")
    frame = table(root, "eval/metadata/eval_metadata.csv")
    assert list(frame.columns) == ["anonymous_id", "title", "tags", "description"]
    assert all(str(uuid.UUID(i)) == i for i in frame["anonymous_id"])
    assert {p.suffix for p in (root / "eval/audio").iterdir()} == {".wav"}


def test_every_class_is_there_and_the_evaluation_set_is_balanced(corpus):
    root, content = corpus
    dev = table(root, "BSD10k/metadata/BSD10k_metadata.csv")
    assert set(dev["class"]) == set(CLASSES)
    assert (table(root, "hidden/eval_truth.csv")["class"].value_counts() == 1).all()
    assert content["counts"] == {"BSD10k": 60, "BSD35k-CS": 30, "eval": 23}
    assert dev["confidence"].isin(list("12345")).all()
    assert (table(root, "BSD35k-CS/metadata/BSD35k-CS_metadata.csv")["confidence"] == "").all()


def test_the_truth_lies_outside_the_dataset_folders(corpus):
    root, _ = corpus
    assert [p.relative_to(root).as_posix() for p in sorted(root.rglob("*truth*"))] == [
        "hidden/dev_truth.csv", "hidden/eval_truth.csv", "hidden/noisy_truth.csv",
    ]  # fmt: skip
    assert sorted(p.name for p in root.iterdir()) == ["BSD10k", "BSD35k-CS", "corpus.json", "eval", "hidden"]
    assert not {"class", "mix", "second_class"} & set(table(root, "eval/metadata/eval_metadata.csv").columns)
    dev, truth = table(root, "BSD10k/metadata/BSD10k_metadata.csv"), table(root, "hidden/dev_truth.csv")
    assert list(truth["sound_id"]) == list(dev["sound_id"])
    other = truth["class"] != dev["class"]
    assert (truth.loc[other, "second_class"] == dev.loc[other, "class"]).all()
    assert truth["mix"].astype(float).between(0, 0.5).all()


def test_a_killed_run_resumes_to_the_same_bytes_without_redoing_finished_clips(corpus, tmp_path, monkeypatch):
    root, _ = corpus
    real, calls = synth_files.render, []

    def dies_late(clip):
        if len(calls) == 40:
            raise KeyboardInterrupt
        calls.append(clip.path)
        return real(clip)

    monkeypatch.setattr(synth_files, "render", dies_late)
    with pytest.raises(KeyboardInterrupt):
        synth.generate(tmp_path, **SIZE, workers=1)
    assert not (tmp_path / "corpus.json").exists()
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/audio/*")}
    assert len(kept) == 40
    monkeypatch.setattr(synth_files, "render", real)
    synth.generate(tmp_path, **SIZE, workers=1)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert digests(tmp_path) == digests(root)


def test_a_finished_corpus_is_left_alone_and_a_lost_file_is_made_again(corpus, monkeypatch):
    root, content = corpus
    before = digests(root)
    lost = sorted((root / "BSD10k/audio").iterdir())[7]
    lost.unlink()
    assert synth.generate(root, **SIZE, workers=1) == content
    assert digests(root) == before
    monkeypatch.setattr(synth, "plans", lambda *a: pytest.fail("planned again"))
    assert synth.generate(root, **SIZE, workers=1) == content
    assert json.loads((root / "corpus.json").read_text()) == content


def test_other_settings_replace_the_old_corpus(tmp_path):
    synth.generate(tmp_path, clips=25, noisy=2, evaluation=2, workers=1)
    content = synth.generate(tmp_path, clips=23, noisy=1, evaluation=1, seed=1, workers=1)
    assert len(list(tmp_path.glob("*/audio/*"))) == 25
    assert content["settings"]["seed"] == 1


def test_a_folder_with_foreign_data_is_refused_and_left_untouched(tmp_path):
    (tmp_path / "BSD10k/audio").mkdir(parents=True)
    (tmp_path / "BSD10k/audio/1.wav").write_bytes(b"precious")
    with pytest.raises(HacError, match="BSD10k"):
        synth.generate(tmp_path, **SIZE, workers=1)
    assert digests(tmp_path) == {"BSD10k/audio/1.wav": hashlib.sha256(b"precious").hexdigest()}


def test_too_few_clips_is_an_error_that_names_the_least(tmp_path):
    with pytest.raises(HacError, match="23"):
        synth.generate(tmp_path, clips=22, workers=1)


@pytest.mark.parametrize("code", CLASSES)
def test_every_recipe_gives_finite_sound_at_any_length_and_rate(code):
    for i, (n, sr) in enumerate([(320, 16000), (441, 22050), (1001, 48000), (20000, 32000)]):
        x = synth_audio.RECIPES[code](np.random.default_rng(i), n, sr)
        assert x.shape == (n,) and np.isfinite(x).all() and np.abs(x).max() > 0


def test_ogg_files_carry_a_fixed_serial_number_and_valid_checksums(corpus):
    x = 0.1 * np.sin(np.arange(16000)).astype(np.float32)
    data = synth_files.encode(x, 16000, "ogg", "ogg")
    assert data == synth_files.encode(x, 16000, "ogg", "ogg")
    assert data[:4] == b"OggS" and data[14:18] == b"\x01\x00\x00\x00"
    # a page with a wrong checksum is dropped by the decoder, so a full decode proves them
    back, sr = sf.read(io.BytesIO(data))
    assert sr == 16000 and abs(len(back) - 16000) <= 1
    broken = bytearray(data)
    broken[22] ^= 1
    with pytest.raises(sf.LibsndfileError):
        sf.read(io.BytesIO(bytes(broken)))


def test_default_counts_follow_the_real_prior_and_ratings(full_tables):
    dev = full_tables[1]["BSD10k/metadata/BSD10k_metadata.csv"]
    counts = dev["class"].value_counts().reindex(CLASSES)
    assert counts.sum() == 1400 and counts.min() >= 20
    assert np.corrcoef(counts, synth_plan.PRIOR_10K)[0, 1] > 0.99
    shares = dev["confidence"].value_counts(normalize=True).reindex([1, 2, 3, 4, 5])
    assert np.abs(shares - np.array(synth_plan.RATINGS) / sum(synth_plan.RATINGS)).max() < 0.002
    mean = dev.groupby("class")["confidence"].mean().reindex(CLASSES)
    assert np.corrcoef(mean, synth_plan.CONFIDENCE)[0, 1] > 0.85


def test_uploaders_are_heavy_tailed_and_mostly_faithful_to_one_class(full_tables):
    dev = full_tables[1]["BSD10k/metadata/BSD10k_metadata.csv"]
    sizes = dev["uploader"].value_counts()
    assert 0.07 < sizes.iloc[0] / len(dev) < 0.11
    assert (sizes <= 3).mean() > 0.5
    assert 0.6 < (dev.groupby("uploader")["class"].nunique() == 1).mean() < 0.95


def test_crowd_labels_err_at_the_published_rates(full_tables):
    crowd = full_tables[1]["BSD35k-CS/metadata/BSD35k-CS_metadata.csv"]
    truth = full_tables[1]["hidden/noisy_truth.csv"]["class"]
    known = crowd["class"].isin(CLASSES)
    right, same = (crowd["class"] == truth)[known], (crowd["class_top"] == truth.map(family))[known]
    assert abs(right.mean() - 0.57) < 0.05 and abs(same.mean() - 0.75) < 0.05
    for code, rate in {"fx-o": 0.78, "is-p": 0.24, "m-m": 0.78}.items():
        assert abs(right[crowd["class"] == code].mean() - rate) < 0.15
    leftovers = crowd.loc[~known, "class_idx"].astype(int) % 100
    assert set(leftovers) == {0, 99} and truth.isin(CLASSES).all()


def test_texts_are_sometimes_empty_marked_up_and_not_ascii(full_tables):
    dev = full_tables[1]["BSD10k/metadata/BSD10k_metadata.csv"]
    assert 0.3 < (dev["description"] == "").mean() < 0.7
    assert 0.05 < (dev["tags"] == "").mean() < 0.5
    assert dev["description"].str.contains("<").any() and (dev["title"] != "").all()
    assert not all(t.isascii() for t in dev["description"])


def test_every_class_has_words():
    assert tuple(synth_text.LEXICON) == CLASSES
    assert all([len(field) for field in fields] == [14, 8, 4] for fields in synth_text.LEXICON.values())

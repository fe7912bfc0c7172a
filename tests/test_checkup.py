"""``hac data check`` and ``hac data show``: a clean folder is clean, and every planted defect is named in one run."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from matplotlib import pyplot as plt

from hac_utils import checkup, features, plotting, splits
from hac_utils.errors import HacError
from hac_utils.metadata import releases
from hac_utils.taxonomy import CLASS_IDX, CLASSES


@pytest.fixture(autouse=True)
def _agg():
    before = plt.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)


def embed(folder, ids):
    for k, kind in enumerate(features.KINDS):
        source = features.source_folder(folder, kind)
        source.mkdir(parents=True)
        for i, x in zip(ids, np.random.default_rng(k).normal(size=(len(ids), 512)), strict=True):
            np.save(source / f"{i}.npy", (x / np.linalg.norm(x)).astype(np.float32))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """46 clips of noise in 23 classes, 12 uploaders, with both embeddings: nothing is wrong with it."""
    folder = tmp_path_factory.mktemp("clean") / "mine"
    (folder / "audio").mkdir(parents=True)
    ids = [str(500_000 + i) for i in range(46)]
    classes = [CLASSES[i % 23] for i in range(46)]
    frame = pd.DataFrame(
        {
            "sound_id": ids,
            "class": classes,
            "class_idx": [CLASS_IDX[c] for c in classes],
            "confidence": [1 + i % 5 for i in range(46)],
        }
    )
    frame = frame.assign(
        uploader=[f"u{i % 12}" for i in range(46)], license="CC0", title="t", tags="a,b", description=""
    )
    frame.to_csv(folder / "metadata.csv", index=False)
    rng = np.random.default_rng(0)
    for k, i in enumerate(ids):
        sf.write(
            folder / "audio" / f"{i}.{'flac' if k % 3 == 0 else 'wav'}",
            0.1 * rng.normal(size=4000 + 400 * k),
            8000,
        )
    embed(folder, ids)
    return folder


@pytest.fixture
def copy(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "mine")
    return tmp_path / "mine"


def named(report, level: str, *words: str) -> bool:
    return any(f.level == level and all(w in f"{f.what} {f.where} {f.fix}" for w in words) for f in report.findings)


# clean folders -----------------------------------------------------------------------------------


def test_a_clean_folder_is_clean_and_is_left_untouched(corpus):
    before = sorted(corpus.rglob("*"))
    report = checkup.check(corpus, workers=1)
    assert report.clean and not [f for f in report.findings if f.level != "note"]
    assert sorted(corpus.rglob("*")) == before
    counts = report.counts
    assert (
        counts["clips"],
        counts["readable sounds"],
        counts["audio embeddings"],
        counts["text embeddings"],
    ) == (46, 46, 46, 46)
    assert (
        counts["classes"],
        counts["uploaders"],
        counts["clips with text"],
        counts["clips with a confidence"],
    ) == (23, 12, 46, 46)
    assert checkup.format_report(report).splitlines()[-1].startswith("clean: no error, no warning")


def test_the_report_states_uploader_leakage_and_hash_of_every_split(corpus):
    counts = checkup.check(corpus, workers=1).counts
    frame = checkup.read_dataset(corpus).frame
    for name, make in splits.PROTOCOLS.items():
        split, _ = make(frame)
        assert splits.split_hash(split) in counts[f"split {name}"]
        assert f"leakage {splits.uploader_leakage(split, frame):.1%}" in counts[f"split {name}"]
    assert "leakage 0.0%" in counts["split fixed"] and "leakage 0.0%" not in counts["split official5"]


def test_mini_bst_is_clean(real):
    report = checkup.check(real / "mini_bst")
    assert report.clean, checkup.format_report(report)
    assert report.counts["readable sounds"] == report.counts["clips"] == 99


# planted defects ---------------------------------------------------------------------------------


def plant(folder) -> list[tuple[str, ...]]:
    """Seventeen different defects in a copy of mini_bst; the findings that name them, as (level, words)."""
    path, audio = folder / "metadata.csv", folder / "audio"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    ids = frame["sound_id"].tolist()
    embed(folder, ids)
    files = {p.stem: p for p in audio.iterdir()}
    wav = [i for i in ids if files[i].suffix == ".wav" and 10 < ids.index(i)]
    flac = [i for i in ids if files[i].suffix == ".flac" and 10 < ids.index(i) and sf.info(files[i]).duration > 1.5]
    mp3 = [i for i in ids if files[i].suffix == ".mp3" and 10 < ids.index(i)]
    frame.loc[0, ["class", "class_idx"]] = ["fx-d", ""]
    frame.loc[1, "class_idx"] = "504"
    frame.loc[2, "confidence"] = "9"
    frame.loc[4, "sound_id"] = ids[3]
    frame.loc[5, "sound_id"] = "../" + ids[5]
    frame.to_csv(path, index=False)
    files[ids[6]].unlink()
    shutil.copy(files[ids[7]], audio / f"999999{files[ids[7]].suffix}")
    files[wav[0]].write_text("not a sound")
    files[wav[1]].write_bytes(b"")
    files[wav[2]].write_bytes(files[wav[2]].read_bytes()[:-5000])
    files[flac[0]].write_bytes(files[flac[0]].read_bytes()[:-4000])
    sf.write(files[wav[3]], np.full(9000, np.nan), 8000, subtype="FLOAT")
    shutil.copy(files[mp3[0]], files[mp3[1]])
    source = features.source_folder(folder, "audio")
    np.save(source / f"{ids[20]}.npy", np.full(512, np.nan))
    np.save(source / f"{ids[21]}.npy", np.ones(128))
    (source / f"{ids[22]}.npy").unlink()
    text = features.source_folder(folder, "text")
    np.save(text / f"{ids[23]}.npy", 2 * np.load(text / f"{ids[23]}.npy"))
    return [
        ("error", "row 2", ids[0], "'fx-d'", "column class", "second-level BST code"),
        ("error", "row 3", ids[1], "'504' is ss-s", "column class_idx"),
        ("error", "row 4", ids[2], "'9'", "column confidence", "1 to 5"),
        ("error", "row 6", f"duplicate sound_id '{ids[3]}'"),
        ("error", "row 7", "cannot be a file name", ids[5]),
        ("warning", "1 clip without a sound file", ids[6]),
        ("warning", "without a row in the table", f"999999{files[ids[7]].suffix}"),
        ("warning", "not readable as audio", f"{wav[0]}.wav"),
        ("warning", "the file is empty", f"{wav[1]}.wav"),
        (
            "warning",
            "2 unreadable sound files, the end of the file is missing",
            f"{wav[2]}.wav",
            f"{flac[0]}.flac",
        ),
        ("warning", "NaN", f"{wav[3]}.wav"),
        ("warning", "the same sound under 2 ids", mp3[0], mp3[1]),
        ("warning", "audio embedding not usable, values that are NaN", ids[20]),
        ("warning", "audio embedding not usable, shape (128,)", ids[21]),
        ("warning", "audio embedding without a file", ids[22]),
        ("note", "text embedding with a norm that is not 1", ids[23]),
    ]


def test_seventeen_planted_defects_are_all_named_in_one_run_and_nothing_else_is(real, tmp_path):
    folder = tmp_path / "mini"
    shutil.copytree(real / "mini_bst", folder)
    wanted = plant(folder)
    report = checkup.check(folder)
    text = checkup.format_report(report)
    missed = [words for words in wanted if not named(report, *words)]
    assert missed == [], text
    serious = [f for f in report.findings if f.level != "note"]
    assert len(serious) == 15, text
    assert not report.clean and text.splitlines()[-1].startswith("5 errors, 10 warnings")


def test_a_report_shows_ten_examples_and_counts_the_rest(copy):
    for path in sorted((copy / "audio").iterdir())[:30]:
        path.unlink()
    (finding,) = [f for f in checkup.check(copy, workers=1).findings if f.level == "warning"]
    assert finding.what.startswith("30 clips without a sound file: 500000,") and finding.what.endswith(
        "500009 and 20 more"
    )


@pytest.mark.parametrize("wrong", ["no table", "empty table", "no id column"])
def test_a_broken_table_does_not_stop_the_look_at_the_sounds(wrong, copy):
    table = copy / "metadata.csv"
    if wrong == "no table":
        table.unlink()
    else:
        table.write_text("" if wrong == "empty table" else "a,b\n1,2\n")
    report = checkup.check(copy, workers=1)
    assert len([f for f in report.findings if f.level == "error"]) >= 1 and report.counts["sound files"] == 46
    assert checkup.format_report(report)


def test_sounds_and_embeddings_of_another_data_set_are_errors(copy):
    frame = pd.read_csv(copy / "metadata.csv", dtype=str)
    frame.assign(sound_id=[str(796_088 + i) for i in range(len(frame))]).to_csv(copy / "metadata.csv", index=False)
    for kind in features.KINDS:
        source = features.source_folder(copy, kind)
        one = next(source.iterdir())
        for i in releases()["relabelled"]:
            shutil.copy(one, source / f"{i}.npy")
    report = checkup.check(copy, workers=1)
    assert named(report, "error", "none of the 46 sound_ids has a file")
    for kind in features.KINDS:
        assert named(
            report,
            "error",
            f"{kind} embeddings",
            "the table is BSD35k-CS, the embeddings are those of BSD10k",
        )


def test_v11_labels_under_the_name_v12_are_an_error_of_the_check(tmp_path):
    pairs = releases()["relabelled"]
    folder = tmp_path / "BSD10k-v1.2"
    folder.mkdir()
    pd.DataFrame({"sound_id": list(pairs), "class": [a for a, _ in pairs.values()]}).assign(
        title="t", tags="", description=""
    ).to_csv(folder / "metadata.csv", index=False)
    report = checkup.check(folder)
    assert named(report, "error", "v1.1 labels under the name v1.2", "58 of the 58")
    assert named(report, "note", "58 clips of 58 without an uploader") and named(report, "note", "without a confidence")


def test_a_folder_that_is_not_there_is_the_only_thing_that_raises(tmp_path):
    with pytest.raises(HacError, match="no such folder"):
        checkup.check(tmp_path / "absent")
    assert named(checkup.check(tmp_path), "error", "no metadata table")


def test_duplicates_need_the_same_bytes_to_the_end(copy):
    files = sorted((copy / "audio").glob("*.wav"))[:3]
    x = 0.1 * np.random.default_rng(1).normal(size=200_000)
    for k, path in enumerate(files):
        x[-1] = [0.2, 0.2, 0.3][k]
        sf.write(path, x, 8000)
    found = [f for f in checkup.check(copy, workers=1).findings if "same sound" in f.what]
    assert len(found) == 1 and f"under 2 ids: {files[0].stem}, {files[1].stem}" in found[0].what


def test_a_single_modality_is_a_warning_and_a_pack_without_its_sources_is_enough(copy):
    ids = checkup.read_dataset(copy).frame["sound_id"].tolist()
    features.load(copy, ids, "audio")
    shutil.rmtree(copy / "features")
    report = checkup.check(copy, workers=1)
    assert report.counts["audio embeddings"] == 46 and named(
        report, "warning", "no text embeddings, but those of the audio"
    )
    (copy / "packed" / "clap_audio.npy").write_bytes(b"")
    assert named(checkup.check(copy, workers=1), "error", "no audio embeddings here: the pack is damaged")


def test_wav_headers_that_are_off_by_the_length_of_the_riff_header_are_fine(copy):
    path = next((copy / "audio").glob("*.wav"))
    data = bytearray(path.read_bytes())
    data[4:8] = len(data).to_bytes(4, "little")
    path.write_bytes(data)
    assert checkup.check(copy, workers=1).clean


# show --------------------------------------------------------------------------------------------


def test_show_counts_classes_ratings_uploaders_texts_and_lengths(corpus):
    summary = checkup.show(corpus, workers=1)
    assert summary["classes"]["n"].tolist() == [2] * 23 and summary["clips"] == 46
    assert summary["confidence"] == {"1": 10, "2": 9, "3": 9, "4": 9, "5": 9, "none": 0}
    assert summary["uploaders"]["known"] == 12 and summary["uploaders"]["clips"] == 46
    assert summary["text"] == {"any": 46, "title": 46, "tags": 46, "description": 0}
    np.testing.assert_allclose(np.sort(summary["seconds"]), [(4000 + 400 * k) / 8000 for k in range(46)], rtol=1e-12)
    text = checkup.format_show(summary)
    assert text.startswith("mine: 46 clips") and "1: 10, 2: 9" in text and "0.50 to 2.75 s" in text


def test_the_figure_draws_classes_and_lengths_or_what_there_is(corpus):
    summary = checkup.show(corpus, workers=1)
    both = checkup.figure(summary).axes
    assert sum(p.get_height() for p in both[1].patches) == 46 and both[1].get_xlabel() == "Length (s)"
    assert len(checkup.figure(summary | {"classes": None}).axes) == 1
    with pytest.raises(HacError, match="neither labels nor sounds"):
        checkup.figure(summary | {"classes": None, "seconds": np.empty(0)})


def test_the_histogram_of_lengths_marks_the_median_and_refuses_lengths_that_are_none():
    ax = plotting.durations(np.array([0.5, 2.0, 8.0]), ax=plt.figure().subplots())
    assert ax.get_xscale() == "log" and ax.texts[0].get_text() == "median 2.00 s"
    assert plotting.durations(np.array([1.0]), ax=plt.figure().subplots()).patches
    with pytest.raises(HacError, match="1 lengths that are not above 0"):
        plotting.durations(np.array([0.0, 1.0]), ax=plt.figure().subplots())

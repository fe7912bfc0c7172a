"""Provided embeddings: packed once, noticed when stale, refused when they are someone else's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hac_utils import features
from hac_utils.errors import HacError
from hac_utils.metadata import releases

IDS = [str(i) for i in (30, 4, 200, 1000, 7)]


def vectors(n: int, seed: int = 0) -> np.ndarray:
    X = np.random.default_rng([seed, n]).normal(size=(n, 512))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def made(folder: Path, ids=IDS, kind="audio", seed=0) -> np.ndarray:
    source = features.source_folder(folder, kind)
    source.mkdir(parents=True)
    X = vectors(len(ids), seed)
    for i, x in zip(ids, X, strict=True):
        np.save(source / f"{i}.npy", x)
    return X


def at(folder: Path, sound_id: str) -> Path:
    return features.source_folder(folder, "audio") / f"{sound_id}.npy"


def reasons(failures) -> dict[str, str]:
    assert failures.columns.tolist() == ["sound_id", "stage", "reason"]
    assert set(failures["stage"]) <= {"audio embedding"}
    return dict(zip(failures["sound_id"], failures["reason"], strict=True))


# packing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["audio", "text"])
def test_the_vectors_come_back_in_the_order_asked_for_before_and_after_packing(kind, tmp_path):
    X = made(tmp_path, kind=kind)
    for _ in range(2):
        ids, got, failures = features.load(tmp_path, IDS, kind)
        assert ids == IDS and len(failures) == 0 and got.dtype == np.float32
        np.testing.assert_array_equal(got, X)
    assert sorted(p.name for p in (tmp_path / "packed").iterdir()) == [
        f"clap_{kind}.npy",
        f"clap_{kind}.parquet",
    ]
    subset, got, _ = features.load(tmp_path, ["7", "30"], kind)
    np.testing.assert_array_equal(got, X[[4, 0]])
    assert subset == ["7", "30"]


def test_the_second_reading_is_memory_mapped_and_read_only(tmp_path):
    made(tmp_path)
    features.load(tmp_path, IDS, "audio")
    _, X, _ = features.load(tmp_path, IDS, "audio")
    base = X
    while not isinstance(base, np.memmap) and base.base is not None:
        base = base.base
    assert isinstance(base, np.memmap) and not X.flags.writeable


def test_the_pack_is_used_where_the_single_files_are_gone_and_has_the_same_bytes_twice(tmp_path):
    X = made(tmp_path)
    features.pack(tmp_path, IDS, "audio")
    first = {p.name: p.read_bytes() for p in (tmp_path / "packed").iterdir()}
    features.pack(tmp_path, IDS, "audio")
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "packed").iterdir()}
    (tmp_path / "features").rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(features.load(tmp_path, IDS, "audio")[1], X)


def test_float64_float16_and_one_row_matrices_are_taken(tmp_path):
    X = made(tmp_path)
    np.save(at(tmp_path, "4"), X[1].astype(np.float64))
    np.save(at(tmp_path, "200"), X[2][None])
    np.save(at(tmp_path, "7"), X[4].astype(np.float16))
    ids, got, failures = features.load(tmp_path, IDS, "audio")
    assert ids == IDS and len(failures) == 0
    np.testing.assert_array_equal(got[:4], X[:4])
    np.testing.assert_allclose(got[4], X[4], atol=1e-4)


# what makes a pack stale or broken ---------------------------------------------------------------


def change(folder: Path) -> None:
    x = np.zeros(512, np.float32)
    x[0] = 1
    np.save(at(folder, "4"), x)
    os.utime(at(folder, "4"), ns=(1, 1))


def add(folder: Path) -> None:
    np.save(at(folder, "55"), vectors(1)[0])


def cut_array(folder: Path) -> None:
    path = folder / "packed" / "clap_audio.npy"
    path.write_bytes(path.read_bytes()[:-100])


def cut_index(folder: Path) -> None:
    path = folder / "packed" / "clap_audio.parquet"
    path.write_bytes(path.read_bytes()[:50])


def swap_rows(folder: Path) -> None:  # the array of another process, packed in another order
    path = folder / "packed" / "clap_audio.npy"
    np.save(path, np.load(path)[::-1])


def pickle_instead(folder: Path) -> None:
    np.save(folder / "packed" / "clap_audio.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("spoil", [change, add, cut_array, cut_index, swap_rows, pickle_instead])
def test_a_stale_or_broken_pack_is_made_again(spoil, tmp_path):
    made(tmp_path)
    features.load(tmp_path, IDS, "audio")
    assert not isinstance(features.read_pack(tmp_path, "audio"), str)
    spoil(tmp_path)
    assert isinstance(features.read_pack(tmp_path, "audio"), str)
    ids, X, _ = features.load(tmp_path, IDS, "audio")
    assert ids == IDS
    for i, x in zip(ids, X, strict=True):
        np.testing.assert_array_equal(x, np.load(at(tmp_path, i)))
    assert not isinstance(features.read_pack(tmp_path, "audio"), str)


def test_a_removed_file_is_noticed(tmp_path):
    made(tmp_path)
    features.load(tmp_path, IDS, "audio")
    at(tmp_path, "4").unlink()
    ids, _, failures = features.load(tmp_path, IDS, "audio")
    assert "4" not in ids and list(reasons(failures)) == ["4"]


def test_a_folder_that_cannot_be_written_still_gives_the_vectors(tmp_path, caplog):
    X = made(tmp_path)
    (tmp_path / "packed").write_text("a file is in the way")
    np.testing.assert_array_equal(features.load(tmp_path, IDS, "audio")[1], X)
    assert "not packed" in caplog.text


# bad files ---------------------------------------------------------------------------------------


def test_every_kind_of_bad_file_is_a_named_failure_and_stops_nothing(tmp_path):
    ids = [*IDS, *"abcdefghijk"]
    X = made(tmp_path, ids)
    x = X[0]
    at(tmp_path, "a").write_bytes(b"")
    at(tmp_path, "b").write_bytes(at(tmp_path, "30").read_bytes()[:-4])
    at(tmp_path, "c").write_text("not an array")
    np.save(at(tmp_path, "d"), x[:511])
    np.save(at(tmp_path, "e"), np.arange(512))
    np.save(at(tmp_path, "f"), np.where(np.arange(512) == 3, np.nan, x))
    np.save(at(tmp_path, "g"), np.full(512, 1e300))
    np.save(at(tmp_path, "h"), np.zeros(512, np.float32))
    np.save(at(tmp_path, "i"), np.array([{}] * 512, dtype=object), allow_pickle=True)
    np.save(at(tmp_path, "j"), np.zeros((500, 512)))
    at(tmp_path, "k").unlink()
    at(tmp_path, "k").mkdir()
    for _ in range(2):  # read, then from the pack
        good, got, failures = features.load(tmp_path, [*ids, "absent"], "audio")
        assert good == IDS
        np.testing.assert_array_equal(got, X[:5])
        why = reasons(failures)
        assert sorted(why) == sorted([*"abcdefghijk", "absent"])
        assert why["a"] == "the file is empty" and "not readable" in why["b"] and "not readable" in why["c"]
        assert "(511,)" in why["d"] and "int64" in why["e"] and "NaN" in why["f"] and "infinite" in why["g"]
        assert "zero" in why["h"] and "allow_pickle=False" in why["i"] and "too large" in why["j"]
        assert why["k"] == "not a regular file" and why["absent"] == "no file clap_audio_embeddings/absent.npy"


def test_no_pickle_is_ever_run(tmp_path):
    made(tmp_path)
    marker = tmp_path / "owned"

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(marker),))

    np.save(at(tmp_path, "4"), np.array([Evil()], dtype=object), allow_pickle=True)
    features.load(tmp_path, IDS, "audio")
    assert not marker.exists()


def test_a_norm_that_is_off_is_named_but_not_a_failure(tmp_path):
    X = made(tmp_path)
    np.save(at(tmp_path, "4"), X[1] * 1.002)
    np.save(at(tmp_path, "7"), X[4] * 1.0005)
    ids, got, failures = features.load(tmp_path, IDS, "audio")
    assert ids == IDS and len(failures) == 0
    assert features.off_norm(ids, got) == ["4"]


# wrong folders -----------------------------------------------------------------------------------


def test_no_embeddings_at_all_is_one_error_with_a_fix(tmp_path):
    with pytest.raises(HacError, match="no audio embeddings here") as e:
        features.load(tmp_path, IDS, "audio")
    assert "features.zip" in e.value.fix and "clap_audio_embeddings" in e.value.where
    with pytest.raises(HacError, match="kind 'video'"):
        features.load(tmp_path, IDS, "video")


def test_embeddings_that_are_all_bad_are_an_error(tmp_path):
    made(tmp_path, ["1", "2"])
    for i in "12":
        at(tmp_path, i).write_bytes(b"")
    with pytest.raises(
        HacError, match="none of the 2 clips has a usable audio embedding; the first: the file is empty"
    ):
        features.load(tmp_path, ["1", "2"], "audio")


def test_bsd35k_paths_that_point_at_bsd10k_features_are_refused_by_name(tmp_path):
    made(tmp_path / "BSD10k", sorted(releases()["relabelled"]))
    noisy = tmp_path / "BSD35k-CS"
    noisy.mkdir()
    (noisy / "features").symlink_to(tmp_path / "BSD10k" / "features")
    with pytest.raises(HacError) as e:
        features.load(noisy, ["796088", "800000", "843315"], "audio")
    assert "the table is BSD35k-CS, the embeddings are those of BSD10k" in e.value.what
    assert "796088" in e.value.what and "BSD35k-CS" in e.value.fix
    assert not (noisy / "packed").exists()


def test_features_of_another_data_set_are_refused_also_from_the_pack(tmp_path):
    made(tmp_path / "BSD10k", sorted(releases()["relabelled"]))
    features.load(tmp_path / "BSD10k", ["3090"], "audio")
    with pytest.raises(HacError, match="none of the 2 clips has one of the 58 audio embeddings"):
        features.load(tmp_path / "BSD10k", ["mine-1", "mine-2"], "audio")


def test_two_processes_that_pack_at_once_both_get_the_right_rows(tmp_path):
    X = made(tmp_path)
    code = (
        "import sys, numpy as np\nfrom hac_utils import features\n"
        "ids = sys.argv[2:]\nfor _ in range(15):\n"
        "    got, X, _ = features.pack(sys.argv[1], ids, 'audio')\n"
        "    got2, X2, _ = features.load(sys.argv[1], ids, 'audio')\n"
        "    want = np.stack([np.load(f'{sys.argv[1]}/features/clap_audio_embeddings/{i}.npy') for i in ids])\n"
        "    assert got == got2 == ids and np.array_equal(X, want) and np.array_equal(X2, want)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), *order]) for order in (IDS, IDS[::-1])]
    assert [p.wait() for p in running] == [0, 0]
    np.testing.assert_array_equal(features.load(tmp_path, IDS, "audio")[1], X)
    assert not [p for p in (tmp_path / "packed").iterdir() if p.name.startswith(".")]

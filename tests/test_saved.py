"""Heads on disk: the same bytes in another process, and a clear error for everything that is not a saved head."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")

from hac_utils import io
from hac_utils.baselines import LogisticHead, NeighboursHead, ZeroShot
from hac_utils.errors import HacError
from hac_utils.hatr import HATR
from hac_utils.heads import ConcatHead, GatedFusionHead, MLPHead
from hac_utils.saved import KNOWN, load_head, save_head
from hac_utils.taxonomy import CLASSES

SMALL = {"epochs": 2, "width": 8, "batch_size": 32}
HEADS = {
    "mlp": MLPHead(**SMALL, seed=3),
    "few-classes": MLPHead(**SMALL, classes=list(CLASSES[:4]), loss="hierarchical"),
    "concat": ConcatHead(**SMALL),
    "gated": GatedFusionHead(**SMALL, audio_dim=5),
    "hatr": HATR(epochs=1, batch_size=32),
    "hatr-audio": HATR(modalities=1, epochs=1, batch_size=32, init="torch"),
    "logistic": LogisticHead(C=0.3),
    "neighbours": NeighboursHead(k=3),
    "zero-shot": ZeroShot(np.random.default_rng(5).normal(size=(23, 12)), scale=20.0),
}


def data(classes=CLASSES, n=92, d=12, seed=0):
    rng = np.random.default_rng(seed)
    y = np.array(classes)[np.arange(n) % len(classes)]
    return rng.normal(size=(n, d)).astype(np.float32), y


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """folder, and name -> fitted head saved in folder/name."""
    folder, fitted = tmp_path_factory.mktemp("saved"), {}
    for name, head in HEADS.items():
        X, y = data(getattr(head, "classes", None) or CLASSES)
        fitted[name] = head.fit(X, y, val=(X[:46], y[:46]))
        save_head(head, folder / name)
    return folder, fitted


@pytest.fixture
def mlp(saved, tmp_path):
    """A fresh copy of a saved head, to be spoilt: (folder, change(config))."""
    save_head(saved[1]["mlp"], tmp_path)

    def change(**entries):
        config = io.read_json(tmp_path / "head.json")
        io.write_json(tmp_path / "head.json", {k: v for k, v in (config | entries).items() if v is not ...})
        return tmp_path

    return change


def test_every_kind_of_head_is_among_those_tested_here():
    assert {type(h).__name__ for h in HEADS.values()} == set(KNOWN)


@pytest.mark.parametrize("name", HEADS)
def test_a_loaded_head_has_the_parameters_facts_and_predictions_of_the_saved_one(saved, name):
    folder, fitted = saved
    head, back = fitted[name], load_head(folder / name)
    X = data(seed=9)[0]
    assert type(back) is type(head) and back.predict_proba(X).tobytes() == head.predict_proba(X).tobytes()
    assert back.predict(X).tolist() == head.predict(X).tolist()
    facts = ("classes_", "history_", "n_parameters_", "n_features_in_", "best_epoch_")
    for fact in facts:
        assert np.array_equal(getattr(back, fact, None), getattr(head, fact, None)), fact
    mine, theirs = back.get_params(), head.get_params()
    mine.pop("class_vectors", None), theirs.pop("class_vectors", None)
    assert mine == theirs
    if hasattr(head, "gate"):
        assert back.gate(X).tobytes() == head.gate(X).tobytes()


def test_a_fresh_process_predicts_the_same_bytes(saved):
    code = (
        "import sys, hashlib, numpy as np\n"
        "from hac_utils.saved import load_head\n"
        "X = np.random.default_rng(9).normal(size=(92, 12)).astype(np.float32)\n"
        "for name in sys.argv[2:]:\n"
        "    print(name, hashlib.sha256(load_head(f'{sys.argv[1]}/{name}').predict_proba(X).tobytes()).hexdigest())\n"
    )
    folder, fitted = saved
    done = subprocess.run([sys.executable, "-c", code, folder, *HEADS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    import hashlib

    X = data(seed=9)[0]
    mine = [f"{n} {hashlib.sha256(h.predict_proba(X).tobytes()).hexdigest()}" for n, h in fitted.items()]
    assert done.stdout.splitlines() == mine


def test_saving_twice_gives_the_same_bytes_and_a_folder_holds_one_head(saved, tmp_path):
    _, fitted = saved
    save_head(fitted["mlp"], tmp_path)
    first = {p.name: p.read_bytes() for p in sorted(tmp_path.iterdir())}
    save_head(fitted["gated"], tmp_path)
    assert type(load_head(tmp_path)).__name__ == "GatedFusionHead" and len(list(tmp_path.iterdir())) == 2
    save_head(load_head(save_head(fitted["mlp"], tmp_path).parent), tmp_path)
    assert {p.name: p.read_bytes() for p in sorted(tmp_path.iterdir())} == first
    assert sorted(first)[0] == "head.json" and sorted(first)[1].endswith(".safetensors")


def test_a_save_that_dies_before_the_end_leaves_the_old_head(saved, tmp_path, monkeypatch):
    from hac_utils import saved as module

    _, fitted = saved
    save_head(fitted["mlp"], tmp_path)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_json", die)
    with pytest.raises(KeyboardInterrupt):
        save_head(fitted["gated"], tmp_path)
    X = data(seed=9)[0]
    assert load_head(tmp_path).predict_proba(X).tobytes() == fitted["mlp"].predict_proba(X).tobytes()


def test_what_is_no_fitted_head_is_not_saved(tmp_path):
    class Own(MLPHead):
        pass

    for head, message in ((MLPHead(), "not fitted"), (Own(), "cannot save a Own"), (3, "cannot save a int")):
        with pytest.raises(HacError, match=message):
            save_head(head, tmp_path)
    assert list(tmp_path.iterdir()) == []


SPOILT = {
    "version": ({"format": 2}, "format version 2; this program reads 1"),
    "no version": ({"format": ...}, "format version None"),
    "unknown class": ({"class": "MLPHad"}, "unknown class of head 'MLPHad'[\\s\\S]*did you mean 'MLPHead'"),
    "another class": ({"class": "HATR"}, "unknown or missing parameters"),
    "missing": ({"history": ...}, "missing or of the wrong kind: 1 \\(history\\)"),
    "kind": ({"n_features": "12"}, "missing or of the wrong kind: 1 \\(n_features\\)"),
    "narrower": ({"n_features": 7}, "other shapes than the head's"),
    "no width": ({"n_features": 0}, "n_features is 0"),
    "classes": ({"classes": ["m-sp", "m-si"]}, "classes differ"),
    "unknown label": ({"classes": ["zz"]}, "classes differ"),
    "no hash": ({"weights_sha256": "../../x"}, "is not a SHA-256"),
    "other hash": ({"weights_sha256": "0" * 64}, "weights are not readable"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_json_is_one_clear_error(mlp, case):
    entries, message = SPOILT[case]
    with pytest.raises(HacError, match=message):
        load_head(mlp(**entries))


def test_spoilt_parameters_are_one_clear_error_and_cost_no_memory(mlp):
    params = io.read_json(mlp() / "head.json")["params"]
    for entries, message in (
        ({"width": 9}, "other shapes than the head's: 3 .*0|other shapes"),
        ({"width": 10**12}, "other shapes|no network"),
        ({"width": "8"}, "no network of these parameters"),
        ({"depth": 3}, "unknown or missing parameters 1 \\(depth\\)"),
        ({"classes": ["zz"]}, "unknown class 'zz'"),
    ):
        with pytest.raises(HacError, match=message):
            load_head(mlp(params=params | entries))


def test_spoilt_weights_are_one_clear_error(mlp):
    import hashlib

    from safetensors.numpy import load, save

    folder = mlp()
    weights = next(folder.glob("weights-*"))
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(HacError, match="the weights have SHA-256 .*, the head names"):
        load_head(folder)

    def swap(data):
        digest = hashlib.sha256(data).hexdigest()
        (folder / f"weights-{digest[:16]}.safetensors").write_bytes(data)
        return load_head(mlp(weights_sha256=digest))

    with pytest.raises(HacError, match="not readable as safetensors"):
        swap(b"no tensors")
    arrays = load(good)
    name = sorted(arrays)[0]
    for wrong in (
        {k: v for k, v in arrays.items() if k != name},
        arrays | {"extra": np.zeros(2)},
        arrays | {name: arrays[name].astype(np.float64)},
        arrays | {name: arrays[name][:1]},
    ):
        with pytest.raises(HacError, match="other shapes than the head's: 1"):
            swap(save(wrong))
    weights.unlink()
    with pytest.raises(HacError, match="not readable"):
        load_head(mlp(weights_sha256=hashlib.sha256(good).hexdigest()))


def test_labels_that_are_no_class_are_refused(saved, tmp_path):
    import hashlib

    from safetensors.numpy import load, save

    save_head(saved[1]["neighbours"], tmp_path)
    weights = next(tmp_path.glob("weights-*"))
    arrays = load(weights.read_bytes())
    arrays["target"] = arrays["target"] + 20
    data_ = save(arrays)
    digest = hashlib.sha256(data_).hexdigest()
    (tmp_path / f"weights-{digest[:16]}.safetensors").write_bytes(data_)
    io.write_json(tmp_path / "head.json", io.read_json(tmp_path / "head.json") | {"weights_sha256": digest})
    with pytest.raises(HacError, match="target holds numbers that are no class"):
        load_head(tmp_path)


def test_an_empty_folder_and_other_json_are_one_clear_error(tmp_path):
    with pytest.raises(HacError, match="no such file"):
        load_head(tmp_path)
    for text, message in (("[1]", "not a saved head"), ("{}", "format version None"), ("{", "not readable as JSON")):
        (tmp_path / "head.json").write_text(text)
        with pytest.raises(HacError, match=message):
            load_head(tmp_path)


def test_the_json_is_plain_and_names_its_weights(saved):
    folder, fitted = saved
    config = json.loads((folder / "hatr" / "head.json").read_text())
    assert config["class"] == "HATR" and config["params"]["modalities"] == 2
    assert config["n_parameters"] == fitted["hatr"].n_parameters_ and config["history"] == fitted["hatr"].history_
    assert (folder / "hatr" / f"weights-{config['weights_sha256'][:16]}.safetensors").is_file()

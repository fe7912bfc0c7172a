"""Model weights: fetched whole and verified, from a local server that can misbehave."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hac_utils import fetch, weights
from hac_utils.errors import HacError
from hac_utils.weights import WEIGHTS, WeightFile, Weights

DATA = {
    "/org/model/resolve/main/big.pt": bytes(range(256)) * 3000,
    "/org/model/resolve/main/small.json": b"{}\n",
}


class Hub:
    """Serves `files` by path. As the hub does, it redirects; `say` adds the hub's size and checksum."""

    def __init__(self):
        self.files, self.log, self.drop, self.say, self.status = dict(DATA), [], 0, True, 200
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                path, _, rest = self.path.partition("?")
                data = hub.files.get(path)
                if data is None or hub.status != 200:
                    hub.log.append((path, hub.status))
                    self.send_error(404 if data is None else hub.status)
                    return
                if not rest:
                    self.send_response(302)
                    self.send_header("Location", f"{path}?store=1")
                    if hub.say:
                        self.send_header("X-Linked-Size", str(len(DATA[path])))
                        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(DATA[path]).hexdigest()}"')
                    self.end_headers()
                    return
                start = int(self.headers.get("Range", "bytes=0-").split("=")[1].rstrip("-"))
                hub.log.append((path, start))
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                body, cut = data[start:], hub.drop and len(hub.asked(path)) > 1
                hub.drop -= bool(cut)
                try:
                    self.wfile.write(body[: len(body) // 2] if cut else body)
                except OSError:  # the client asked for size and checksum only
                    pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def asked(self, path):
        return [seen for seen in self.log if seen[0] == path]


BIG, SMALL = DATA


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "BACKOFF", 0.001)
    monkeypatch.setattr(fetch, "RETRIES", 2)
    files = {
        "big.pt": WeightFile(f"https://hub.example{BIG}"),
        "small.json": WeightFile(f"https://hub.example{SMALL}"),
    }
    monkeypatch.setitem(WEIGHTS, "toy", Weights("MIT", files))
    hub = Hub()
    monkeypatch.setenv("HAC_WEIGHTS_URL", hub.url + "/")
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
    thread.join()


def files_in(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_the_folder_is_complete_and_a_second_call_asks_for_nothing(hub):
    folder = weights.get("toy")
    assert folder == weights.folder("toy") and files_in(folder) == ["big.pt", "small.json"]
    assert (folder / "big.pt").read_bytes() == DATA[BIG] and (folder / "small.json").read_bytes() == DATA[SMALL]
    seen = len(hub.log)
    assert weights.get("toy") == weights.get("toy", offline=True) == folder and len(hub.log) == seen


def test_an_interrupted_download_resumes_where_it_stopped(hub):
    hub.drop = 2
    weights.get("toy")
    starts = [start for _, start in hub.asked(BIG)]
    assert starts[:2] == [0, 0] and 0 < starts[2] < starts[3] < len(DATA[BIG])  # the first only asks for size
    assert (weights.folder("toy") / "big.pt").read_bytes() == DATA[BIG]


def test_a_wrong_file_is_refused_after_a_second_try_and_not_kept(hub):
    hub.files[BIG] = DATA[BIG][:-1] + b"\0"
    with pytest.raises(HacError, match="wrong checksum, twice") as e:
        weights.get("toy")
    assert hub.url in e.value.where and len(hub.asked(BIG)) == 3
    assert files_in(weights.folder("toy")) == []


def test_without_a_published_checksum_the_first_one_is_pinned_said_and_held_to(hub, caplog):
    hub.say = False
    folder = weights.get("toy")
    sha256 = hashlib.sha256(DATA[BIG]).hexdigest()
    assert f"pinned at this download: sha256 {sha256}" in caplog.text
    assert weights.checked_sha256(folder / "big.pt") == sha256
    (folder / "big.pt").unlink()
    hub.files[BIG] = DATA[BIG][::-1]
    with pytest.raises(HacError, match="wrong checksum, twice") as e:
        weights.get("toy")
    assert "pins.json" in e.value.fix
    hub.files[BIG] = DATA[BIG]
    assert (weights.get("toy") / "big.pt").read_bytes() == DATA[BIG]


def test_the_registrys_size_and_checksum_come_first(hub, monkeypatch):
    def publish(**facts):
        monkeypatch.setitem(WEIGHTS["toy"].files, "big.pt", WeightFile(f"https://hub.example{BIG}", **facts))

    publish(size=5)
    with pytest.raises(HacError, match="offered with 768,000 bytes; published: 5"):
        weights.get("toy")
    publish(sha256="0" * 64)
    with pytest.raises(HacError, match="wrong checksum, twice"):
        weights.get("toy")
    publish(size=len(DATA[BIG]), sha256=hashlib.sha256(DATA[BIG]).hexdigest())
    assert weights.get("toy").is_dir()


def test_a_changed_file_is_noticed_fetched_again_and_not_loaded(hub):
    path = weights.get("toy") / "big.pt"
    path.write_bytes(DATA[BIG][:-1] + b"\0")
    with pytest.raises(HacError, match="big.pt is not the published file") as e:
        weights.checked_sha256(path)
    assert "hac weights get toy" in e.value.fix
    with pytest.raises(HacError, match="not the published file") as e:
        weights.get("toy", offline=True)
    assert e.value.fix == "hac weights get toy"
    assert (weights.get("toy") / "big.pt").read_bytes() == DATA[BIG] and weights.checked_sha256(path)


def test_offline_says_what_is_missing_and_how_to_get_it(hub):
    with pytest.raises(HacError, match="the toy weights are not here \\(big.pt\\)") as e:
        weights.get("toy", offline=True)
    assert e.value.fix == "hac weights get toy" and not hub.log and not weights.folder("toy").exists()


def test_files_brought_by_hand_are_taken_and_pinned(hub, caplog):
    weights.folder("toy").mkdir(parents=True)
    for path, data in DATA.items():
        (weights.folder("toy") / path.rsplit("/", 1)[1]).write_bytes(data)
    assert weights.get("toy", offline=True) and not hub.log
    assert "pinned as found" in caplog.text


@pytest.mark.parametrize("status, match", [(503, "gave up after 3 attempts"), (403, "says 403")])
def test_a_server_that_refuses_is_one_error_that_speaks_of_weights(hub, status, match):
    hub.status = status
    with pytest.raises(HacError, match=match) as e:
        weights.get("toy")
    assert "HAC_WEIGHTS_URL" in e.value.fix and "HAC_DATA_URL" not in e.value.fix
    assert "zenodo" not in e.value.fix


def test_a_mirror_may_be_named_in_the_call(hub, monkeypatch):
    monkeypatch.setenv("HAC_WEIGHTS_URL", "http://127.0.0.1:1")
    assert weights.get("toy", base=hub.url).is_dir()
    with pytest.raises(HacError, match="'ftp://x' is not a web address"):
        weights.get("clap", base="ftp://x")


def test_show_lists_every_file_with_what_is_known(hub):
    weights.get("toy")
    table = weights.show().set_index(["name", "file"])
    toy = table.loc[("toy", "big.pt")]
    assert toy["present"] and toy["size"] == len(DATA[BIG]) and toy["licence"] == "MIT"
    assert toy["sha256"] == hashlib.sha256(DATA[BIG]).hexdigest()
    assert toy["where"] == str(weights.folder("toy") / "big.pt")
    passt = table.loc[("passt", "passt-s-f128-p16-s10-ap.476-swa.pt")]
    assert not passt["present"] and passt["size"] == 344_665_734 and len(passt["sha256"]) == 64
    assert {"clap", "passt", "roberta"} <= set(table.index.get_level_values("name"))


def test_the_registry_names_what_the_libraries_themselves_fetch():
    hook = pytest.importorskip("importlib.util").find_spec("laion_clap")
    if hook is None:
        pytest.skip("laion-clap is not installed")
    source = open(hook.submodule_search_locations[0] + "/hook.py").read()
    address, _, name = WEIGHTS["clap"].files["630k-audioset-fusion-best.pt"].url.rpartition("/")
    assert f"'{address}/'" in source and f"'{name}'" in source


def test_an_unknown_name_is_an_error_with_the_nearest_known():
    with pytest.raises(HacError, match="no weights are called 'clapp'") as e:
        weights.get("clapp")
    assert "'clap'" in e.value.fix


def test_every_address_is_secure_and_every_checksum_whole():
    for entry in WEIGHTS.values():
        for name, file in entry.files.items():
            assert file.url.startswith("https://") and file.url.endswith("/" + name)
            assert file.sha256 == "" or (len(file.sha256) == 64 and int(file.sha256, 16))

import http.server
import io
import threading
import time
from functools import partial

import numpy as np
import pytest
import requests

from uvae_lib.__main__ import main
from uvae_lib.cubes import download
from uvae_lib.cubes.download import DownloadError, download_cmd, fetch
from uvae_lib.cubes.suite import open_cubes

CUBES = (np.random.default_rng(0).random((3, 16, 16, 16)) + 0.1).astype("f4")
GRIDS = "3D_grids/data/IllustrisTNG/Grids_Mcdm_IllustrisTNG_LH_128_z=0.0.npy"
PARAMS = "3D_grids/data/IllustrisTNG/params_LH_IllustrisTNG.txt"


class Server(http.server.ThreadingHTTPServer):
    """Files over HTTP on loopback; can cut connections."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests = files, []
        self.cuts = []  # bytes after which the next answers break off
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, path = self.server, self.path.lstrip("/")
        server.requests.append(path)
        if path not in server.files:
            return self.send_error(404)
        body = server.files[path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0) if server.cuts else len(body)])

    def log_message(self, *args):
        pass


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


CONTENT = npy(CUBES)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server({GRIDS: CONTENT, PARAMS: b"0.3 0.8 1 1 1 1\n" * 3, "page.npy": b"<html>log in</html>"})
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(download, "CMD_URL", running.url)
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_downloaded_suite_opens(tmp_path, server):
    path = download_cmd(tmp_path)
    assert names(tmp_path) == sorted([path.name, "params_LH_IllustrisTNG.txt"])
    with pytest.warns(UserWarning, match="says 128 voxels a side"):
        suite = open_cubes(tmp_path)
    np.testing.assert_allclose(suite.overdensity(1), CUBES[1] / CUBES[1].mean(), rtol=1e-5)
    assert suite.params.shape == (3, 6)


def test_what_is_there_is_not_fetched_again(tmp_path, server):
    first = fetch(f"{server.url}/{GRIDS}", tmp_path)
    assert fetch(f"{server.url}/{GRIDS}", tmp_path) == first
    assert len(server.requests) == 1


def test_a_connection_that_breaks_ends_in_a_sentence_and_leaves_nothing(tmp_path, server):
    server.cuts = [3000]
    with pytest.raises(DownloadError, match=r"found ChunkedEncodingError .*; expected the whole file"):
        fetch(f"{server.url}/{GRIDS}", tmp_path)
    assert names(tmp_path) == []
    assert fetch(f"{server.url}/{GRIDS}", tmp_path).read_bytes() == CONTENT


def test_a_login_page_is_no_array(tmp_path, server):
    with pytest.raises(DownloadError, match=r"found no readable array .*; expected a whole \.npy"):
        fetch(f"{server.url}/page.npy", tmp_path)
    assert names(tmp_path) == []


def test_a_body_shorter_than_its_header_is_refused_even_when_the_server_calls_it_whole(tmp_path, server):
    server.files[GRIDS] = CONTENT[:-100]
    with pytest.raises(DownloadError, match=r"found no readable array .*mmap.*; expected a whole"):
        fetch(f"{server.url}/{GRIDS}", tmp_path)
    assert names(tmp_path) == []


def test_a_name_that_the_server_does_not_know_ends_in_a_sentence(tmp_path, server):
    with pytest.raises(DownloadError, match=r"found HTTPError .404 .*; expected the whole file.*; check the names"):
        download_cmd(tmp_path, field="HI")
    assert names(tmp_path) == ["params_LH_IllustrisTNG.txt"]


def test_offline_ends_in_a_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    free = Server({})  # a port that nobody listens on once it is closed
    free.server_close()
    with pytest.raises(DownloadError, match=r"found ConnectionError.*check the names in it and go online"):
        fetch(f"{free.url}/{GRIDS}", tmp_path)
    assert names(tmp_path) == []


def test_a_server_that_says_nothing_times_out(tmp_path, server, monkeypatch):
    monkeypatch.setattr(download.pooch, "HTTPDownloader", partial(download.pooch.HTTPDownloader, timeout=0.2))
    monkeypatch.setattr(Handler, "do_GET", lambda self: time.sleep(1))
    with pytest.raises(DownloadError, match=r"found ReadTimeout"):
        fetch(f"{server.url}/{GRIDS}", tmp_path)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"suite": "Nbody_SIMBA", "field": "Mtot"}, "3D_grids/data/Nbody/Grids_Mtot_Nbody_SIMBA_LH_128_z=0.0.npy"),
        ({"grid": None}, "2D_maps/data/IllustrisTNG/Maps_Mcdm_IllustrisTNG_LH_z=0.00.npy"),
        ({"grid": 256, "set": "CV", "suite": "SIMBA"}, "3D_grids/data/SIMBA/Grids_Mcdm_SIMBA_CV_256_z=0.0.npy"),
    ],
)  # fmt: skip
def test_addresses_are_those_of_the_data_set(tmp_path, server, options, path):
    place = path.rpartition("/")[0]
    suite = options.get("suite", "IllustrisTNG")
    table = f"{place}/params_{options.get('set', 'LH')}_{suite}.txt"
    content = npy(np.ones((15, 8, 8), "f4")) if "Maps" in path else CONTENT
    server.files |= {path: content, table: b"1 2\n"}
    assert download_cmd(tmp_path, **options).name == path.split("/")[-1]


def test_the_command_line_downloads_and_says_what_to_do_next(tmp_path, server, capsys):
    words = "download cmd --field Mcdm --suite IllustrisTNG --set LH --grid 128".split()
    main([*words, "--folder", str(tmp_path)])
    path = tmp_path / GRIDS.split("/")[-1]
    assert f"python -m uvae_lib inspect {path}" in capsys.readouterr().out and path.read_bytes() == CONTENT


def test_the_command_line_ends_in_the_sentence_when_nothing_arrives(tmp_path, server):
    with pytest.raises(SystemExit, match=r"error: .* found HTTPError .404 .*; check the names"):
        main(["download", "cmd", "--suite", "SIMBA", "--folder", str(tmp_path)])


def test_the_server_of_these_tests_answers_only_on_loopback(server):
    assert requests.get(f"{server.url}/{PARAMS}", timeout=5).ok and server.server_address[0] == "127.0.0.1"

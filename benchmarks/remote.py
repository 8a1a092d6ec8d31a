"""Reading a plate at a URL, against bare downloads of the same images, as many at the same time.

The server is a process of its own, which waits before each answer as long as a bucket takes.
"""

import multiprocessing
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import obstore
import pandas as pd
import tifffile
from obstore.store import HTTPStore

from benchmarks import common
from benchmarks.crops import SHAPE
from hcsqc.core.parallel import in_order
from hcsqc.screens.images.read import read_field
from hcsqc.screens.images.remote import USUAL_CONNECTIONS, RemoteFolder, ahead

FIELDS, CHANNELS, THREADS = 64, 3, 2
WAITS_S = {"waits 20 ms": 0.02, "waits 100 ms": 0.1}


def main() -> None:
    """Read the flags, write the images, print a row per server."""
    args = common.parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plate = write_images(Path(folder))
        rows = [compare(Path(folder), plate, name, args.rounds) for name in WAITS_S]
    common.report(rows, args.json)


def write_images(folder: Path) -> pd.DataFrame:
    """Write the images of a plate; return the columns of its `fields` table that reading needs."""
    rng = np.random.default_rng(0)
    paths = [[f"s{field}w{index}.tif" for index in range(CHANNELS)] for field in range(FIELDS)]
    for path in sum(paths, []):
        tifffile.imwrite(folder / path, rng.integers(0, 4000, SHAPE).astype(np.uint16))
    return pd.DataFrame({"image_path": paths})


def compare(folder: Path, plate: pd.DataFrame, name: str, rounds: int) -> dict:
    """Return the row of a server that waits."""
    port = multiprocessing.Queue()  # type: ignore[var-annotated]
    server = multiprocessing.Process(target=serve, args=(folder, WAITS_S[name], port), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{port.get()}"
    count = FIELDS * CHANNELS
    times = common.seconds(
        {
            "ours": lambda: read_plate(RemoteFolder(url), plate),
            "baseline": lambda: download(url, sum(plate["image_path"], [])),
        },
        rounds,
    )
    server.terminate()
    return common.row(
        f"images by URL, server {name}",
        "images/s",
        {way: count / seconds for way, seconds in times.items()},
        f"{USUAL_CONNECTIONS} downloads at once, decoded and with digests",
    )


def read_plate(images: RemoteFolder, plate: pd.DataFrame) -> None:
    """Read the fields as a job does: downloaded ahead, decoded by its threads, in order."""
    rows = ahead(plate.itertuples(), images)
    fields = in_order(lambda row: read_field(images, row.image_path), rows, THREADS, 4)
    assert sum(len(field.planes) for field in fields) == FIELDS * CHANNELS


def download(url: str, paths: list[str]) -> None:
    """Download files with a pool of threads, and do nothing with them."""
    store = HTTPStore.from_url(url, client_options={"allow_http": True})
    with ThreadPoolExecutor(USUAL_CONNECTIONS) as pool:
        list(pool.map(lambda path: obstore.get(store, path).bytes(), paths))


class Waiting(SimpleHTTPRequestHandler):
    """Answers after a while, and logs nothing."""

    protocol_version = "HTTP/1.1"
    wait_s = 0.0

    def do_GET(self) -> None:
        """Wait, then send the file."""
        time.sleep(self.wait_s)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(folder: Path, wait_s: float, port) -> None:
    """Serve a folder on a free port, which is put into the queue `port`."""
    Waiting.wait_s = wait_s
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Waiting, directory=str(folder)))
    port.put(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()

"""A server of images in this process: S3 by moto, or plain files, with the faults of real ones."""

import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from werkzeug.serving import make_server

BUCKET = "gallery"
SLOW_S = 0.05


@dataclass
class Faults:
    """What goes wrong: by part of a path, how many requests for each such path fail, and how."""

    busy: dict[str, int] = field(default_factory=dict)  # answered 503
    broken: dict[str, int] = field(default_factory=dict)  # cut off in the middle
    forbidden: tuple[str, ...] = ()  # always answered 403
    slow: bool = False
    asked: Counter = field(default_factory=Counter)  # requests by method and path
    sent: Counter = field(default_factory=Counter)  # bytes of answers to GET, by path
    signed: int = 0  # requests with a signature
    at_once: int = 0  # the most requests that were answered at the same time
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wrap(self, app):
        """Return a WSGI application that behaves like `app`, but for these faults."""

        def faulty(environ, start_response):
            with self._lock:
                self._now += 1
                self.at_once = max(self.at_once, self._now)
            try:
                yield from self._answer(app, environ, start_response)
            finally:
                with self._lock:
                    self._now -= 1

        return faulty

    def _answer(self, app, environ, start_response):
        path = environ["PATH_INFO"]
        with self._lock:
            self.asked[environ["REQUEST_METHOD"], path] += 1
            self.signed += "HTTP_AUTHORIZATION" in environ
            busy = self._counts(self.busy, path)
            broken = not busy and environ["REQUEST_METHOD"] == "GET"
            broken = broken and self._counts(self.broken, path)
        if self.slow:
            time.sleep(SLOW_S)
        if any(part in path for part in self.forbidden):
            start_response("403 Forbidden", [("Content-Length", "0")])
            return
        if busy:
            start_response("503 Slow Down", [("Content-Length", "0")])
            return
        content = list(app(environ, start_response))
        if environ["REQUEST_METHOD"] == "GET":
            with self._lock:
                self.sent[path] += sum(map(len, content))
        if not broken:
            yield from content
            return
        whole = b"".join(content)
        yield whole[: len(whole) // 2]
        raise ConnectionError("the connection breaks off")

    def _counts(self, faults: dict[str, int], path: str) -> bool:
        for part, left in faults.items():
            if part in path and left:
                faults[part] -= 1
                return True
        return False


@contextmanager
def serving(app):
    """Serve a WSGI application while the block runs; yields its URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


def s3_app():
    """Return moto's S3 as a WSGI application."""
    from moto.server import DomainDispatcherApplication, create_backend_app

    return DomainDispatcherApplication(create_backend_app)


def upload(url: str, folder: Path, prefix: str, bucket: str = BUCKET) -> None:
    """Put all files below a folder into a bucket, which is made if need be."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    client.create_bucket(Bucket=bucket, ACL="public-read")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(folder).as_posix()}".lstrip("/")
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes(), ACL="public-read")


def files_app(folder: Path):
    """Return a plain web server of a folder as a WSGI application."""
    from werkzeug.exceptions import NotFound
    from werkzeug.utils import send_from_directory

    def app(environ, start_response):
        try:
            answer = send_from_directory(folder, environ["PATH_INFO"].lstrip("/"), environ)
        except NotFound as error:
            answer = error.get_response(environ)
        return answer(environ, start_response)

    return app

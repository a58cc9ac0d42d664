"""A local HTTP server that serves a folder and fails on request."""

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Fault(Enum):
    """What can go wrong with a download."""

    SERVER_ERROR = "answer with status 500"
    BREAK_OFF = "announce the whole file, send half of it and close the connection"
    WRONG_CONTENT = "send other bytes of the same length under the old hash"
    WRONG_SIZE = "send half of the file as if that were all"


class LocalServer(ThreadingHTTPServer):
    """Serve the files of `folder` for GET, HEAD and POST; paths in `faults` fail."""

    daemon_threads = True

    def __init__(self, folder: Path, faults: dict[str, Fault] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults = faults or {}
        self.requests: list[str] = []
        """Paths in the order in which they were asked for."""

    @property
    def url(self) -> str:
        """Address of the folder, without a slash at its end."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: LocalServer

    def do_GET(self) -> None:
        # The body of a POST must be read, or closing the connection resets it.
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.requests.append(path)
        fault = self.server.faults.get(path)
        file = self.server.folder / path
        if fault is Fault.SERVER_ERROR:
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        if not file.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content = file.read_bytes()
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        if fault is Fault.WRONG_CONTENT:
            content = bytes(byte ^ 255 for byte in content)
        if fault is Fault.WRONG_SIZE:
            content = content[: len(content) // 2]
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        # As Google's storage does, on which Kaggle keeps its files.
        self.send_header("x-goog-hash", f"md5={md5}")
        self.end_headers()
        if self.command != "HEAD":
            end = len(content) // 2 if fault is Fault.BREAK_OFF else len(content)
            self.wfile.write(content[:end])

    do_HEAD = do_GET
    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing; pytest would show it with every failure."""


@contextmanager
def serve(folder: Path, faults: dict[str, Fault] | None = None) -> Iterator[LocalServer]:
    """Run a `LocalServer` in a thread of its own."""
    with LocalServer(folder, faults) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

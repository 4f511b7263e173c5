"""A hub of our own on 127.0.0.1, for tests of the real download path.

It speaks as much of the Hugging Face protocol as ``hf_hub_download`` needs: ``HEAD`` and ``GET``
of ``/<repo>/resolve/<revision>/<file>`` with the commit and the hash in the headers, a redirect
to a second address for large files, ranges, and the errors of a missing file or repository.
Tests point ``HF_ENDPOINT`` at it, in a process of its own because that is read at import.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 4096  # files from this size on are kept apart and listed by sha256, as the hub's LFS


@dataclass
class FakeHub:
    """What it serves, how it misbehaves, and what it was asked."""

    endpoint: str
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """repository -> file name -> content"""
    gated: set[str] = field(default_factory=set)
    """Repositories that ask for a licence to be accepted."""
    cut_at: dict[str, int] = field(default_factory=dict)
    """file name -> break the next transfer of it after so many bytes"""
    damaged: set[str] = field(default_factory=set)
    """Files of which one byte is flipped on the way."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range header) of each request for a file, in order"""

    def add_folder(self, repo: str, folder: Path) -> None:
        """Serve every file of a folder."""
        self.files[repo] = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    def env(self, cache: Path) -> dict[str, str | None]:
        """The environment of a process that talks to this hub and keeps files in `cache`."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(cache),
            "HF_HUB_CACHE": None,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "HF_TOKEN": None,
        }

    def fetched(self, filename: str) -> list[str | None]:
        """The Range header of each request that asked for the content of a file."""
        return [
            range_
            for method, path, range_ in self.requests
            if method == "GET" and path.endswith("/" + filename)
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_args: object) -> None:  # the default writes to stderr
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        if "/resolve/" in self.path:
            self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        match = re.fullmatch(r"/(cdn/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if match is None:
            return self.refuse(404, "EntryNotFound")
        on_cdn, repo, _revision, filename = match.groups()
        if repo in self.hub.gated:
            return self.refuse(403, "GatedRepo")
        if repo not in self.hub.files:
            return self.refuse(404, "RepoNotFound")
        if filename not in self.hub.files[repo]:
            return self.refuse(404, "EntryNotFound")
        content = self.hub.files[repo][filename]
        if len(content) < LARGE:
            git_hash = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return self.send(filename, content, {"ETag": f'"{git_hash}"'}, body=body)
        sha256 = hashlib.sha256(content).hexdigest()
        if on_cdn:
            return self.send(filename, content, {"ETag": f'"{sha256[:32]}"'}, body=body)
        self.send_response(302)
        # Another host, as the hub's store is: the client reads the hash before it follows.
        store = self.hub.endpoint.replace("127.0.0.1", "localhost")
        self.send_header("Location", f"{store}/cdn{self.path}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{sha256}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, filename: str, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        start = 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(match[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send_response(206 if start else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return
        if filename in self.hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        cut = self.hub.cut_at.pop(filename, None)
        self.wfile.write(content[start:cut])
        if cut is not None:
            self.close_connection = True


@contextmanager
def serve() -> Iterator[FakeHub]:
    """A running hub; it stops when the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = FakeHub(endpoint=f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"hub": hub})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

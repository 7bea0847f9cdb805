"""A real HTTP server on loopback that misbehaves as it is told, one fault per request."""

import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Fault = str | tuple[str, Any]


@dataclass
class Site:
    """What is served, which faults come next, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0
    etag: str = '"one"'
    ranges: bool = True
    pace: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    base: str = ""

    def url(self, path: str) -> str:
        return f"{self.base}/{path}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        site = self.site
        path = self.path.partition("?")[0].lstrip("/")
        site.asked.append((self.path, dict(self.headers)))
        fault = site.faults.pop(0) if site.faults else "none"
        name, value = fault if isinstance(fault, tuple) else (fault, None)
        body = site.files.get(path)
        try:
            if name == "status":
                self._error(value)
            elif name == "redirect":
                self._head(302, 0, Location=value or f"/{path}")
            elif name == "page" and value is not None:
                self._page(value)
            elif body is None:
                self._error(404)
            else:
                self._file(body, name, value)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _error(self, value: Any) -> None:
        status, headers = value if isinstance(value, tuple) else (value, {})
        self._head(status, 0, **headers)

    def _page(self, value: tuple[str, bytes]) -> None:
        kind, body = value
        self._head(200, len(body), Content_Type=kind)
        self._send(body[:1])  # Servers that flush early send the first bytes singly.
        time.sleep(0.01)
        self._send(body[1:])

    def _head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        known = {} if length is None else {"Content_Length": str(length)}
        for key, text in {**known, **self.site.headers, **headers}.items():
            self.send_header(key.replace("_", "-"), text)
        self.end_headers()

    def _file(self, body: bytes, fault: str, value: Any) -> None:
        site = self.site
        if fault == "changed":
            site.etag = f'"{time.monotonic_ns()}"'
        if fault == "flipped":
            body = (
                body[: len(body) // 3]
                + bytes([body[len(body) // 3] ^ 1])
                + body[len(body) // 3 + 1 :]
            )
        elif fault == "truncated":
            body = body[:-7]
        elif fault == "appended":
            body = body + b"more"
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", site.etag) == site.etag
        if asked and site.ranges and same and fault != "no range":
            start = int(asked[1])
        if start >= len(body) > 0 and start:
            self._head(416, 0, Content_Range=f"bytes */{len(body)}")
            return
        length: int | None = len(body) - start
        headers = {"ETag": site.etag, "Content_Type": "application/octet-stream"}
        if start:
            told = (start, len(body) - 1, len(body))
            if fault == "wrong range":
                told = (start + 5, *told[1:])
            headers["Content_Range"] = "bytes {}-{}/{}".format(*told)
        if fault == "long length":
            length = (length or 0) + 100
            self.close_connection = True
        elif fault == "short length":
            length = (length or 0) // 2
        elif fault == "no length":
            length = None
            headers["Connection"] = "close"
            self.close_connection = True
        elif fault == "encoding":
            headers["Content_Encoding"] = value
        self._head(206 if start else 200, length, **headers)
        rest = body[start:] if fault != "short length" else body[start : start + (length or 0)]
        stop = len(rest)
        if fault in ("drop", "reset", "stall", "drip"):
            stop = int(len(rest) * (value if isinstance(value, float) else 0.5))
        self._send(rest[:stop])
        if fault == "drip":
            for byte in rest[stop : stop + 60]:
                self._send(bytes([byte]))
                time.sleep(0.05)
        if fault == "stall":
            time.sleep(0.6)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault in ("drop", "reset", "stall", "drip"):
            self.close_connection = True
            self.connection.close()

    def _send(self, data: bytes) -> None:
        for at in range(0, len(data), 1 << 16):
            self.wfile.write(data[at : at + (1 << 16)])
            self.site.sent += len(data[at : at + (1 << 16)])
            if self.site.pace:
                time.sleep(self.site.pace)


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[Site]:
    """Serve in threads of this process until the block ends; with a certificate, https."""
    site = Site()
    handler = type("Handler", (_Handler,), {"site": site})

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), handler)
    site.base = f"http://127.0.0.1:{server.server_port}"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        site.base = site.base.replace("http:", "https:")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield site
    server.shutdown()
    server.server_close()

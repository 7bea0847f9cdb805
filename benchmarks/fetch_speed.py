"""How fast is a fetch from loopback, hashed and published, beside ``curl`` and ``sha256sum``?

A server in a process of its own sends one file of random bytes. In turn, each round: curl
writes it and sha256sum reads it back; ours fetches it into an empty store, which hashes while
it writes, and brings it to the disk (fsync) before it gets its name. curl does not do the
latter, so another row syncs the file as well. Coreutils' sha256 may not use the processor's
instructions for it, so a last row hashes with Python's, which is OpenSSL's and ours.

    python benchmarks/fetch_speed.py [--megabytes 500] [--rounds 7]
"""

import argparse
import hashlib
import http.server
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from deeplab_zoo.zoo.weights.fetch import fetch_entry
from deeplab_zoo.zoo.weights.registry import load_registry
from deeplab_zoo.zoo.weights.work import Options

BOUND = 0.8
REGISTRY = """schema_version: 1
entries:
  - name: bench
    kind: dataset
    description: random bytes
    license: {{spdx: MIT}}
    homepage: none
    artifacts:
      - filename: bench.bin
        size: {size}
        digests: {{sha256: "{digest}"}}
        evidence: [{{grade: A, covers: [sha256, size], where: this script}}]
        sources: [{{url: "{url}"}}]
"""


def serve(folder: Path, told: Connection) -> None:
    """Serve a folder; send the port."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object, **more: object) -> None:
            super().__init__(*arguments, directory=str(folder), **more)  # type: ignore[arg-type]

        def copyfile(self, source: object, outputfile: object) -> None:  # noqa: ARG002
            self.wfile.flush()
            self.connection.sendfile(source)  # type: ignore[arg-type]

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.send(server.server_port)
    server.serve_forever()


def timed(function: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "served").mkdir()
        file = root / "served" / "bench.bin"
        with file.open("wb") as target:
            for _ in range(options.megabytes):
                target.write(os.urandom(1_000_000))
        with file.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        here, there = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve, args=(root / "served", there), daemon=True)
        server.start()
        url = f"http://127.0.0.1:{here.recv()}/bench.bin"
        size = file.stat().st_size
        (root / "registry.yaml").write_text(REGISTRY.format(size=size, digest=digest, url=url))
        entry = load_registry([root / "registry.yaml"]).find("bench")
        os.environ |= {
            "DEEPLAB_ZOO_CACHE": str(root / "cache"),
            "DEEPLAB_ZOO_LOCK": str(root / "cache" / "lock"),
        }
        out = root / "curl.bin"

        def curl() -> None:
            subprocess.run(["curl", "-s", "-o", str(out), url], check=True)
            found = subprocess.run(["sha256sum", str(out)], check=True, capture_output=True)
            if found.stdout.split()[0].decode() != digest:
                raise SystemExit("curl's file is damaged")

        def curl_and_sync() -> None:
            curl()
            subprocess.run(["sync", str(out)], check=True)

        def curl_and_openssl() -> None:
            subprocess.run(["curl", "-s", "-o", str(out), url], check=True)
            with out.open("rb") as source:
                hashlib.file_digest(source, "sha256")

        def ours() -> None:
            fetch_entry(entry, Options())

        order = [curl, curl_and_sync, curl_and_openssl, ours]
        rows: dict[str, list[float]] = {one.__name__: [] for one in order}
        for turn in range(options.rounds):
            for function in order[turn % 4 :] + order[: turn % 4]:
                shutil.rmtree(root / "cache", ignore_errors=True)
                out.unlink(missing_ok=True)
                os.sync()
                rows[function.__name__].append(timed(function))
        server.terminate()
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    print(f"{options.megabytes} MB, {options.rounds} rounds, medians; ratio of speeds by round\n")
    print("| | seconds | MB/s |\n|---|---:|---:|")
    words = {
        "curl": "curl, sha256sum",
        "curl_and_sync": "curl, sha256sum, sync",
        "curl_and_openssl": "curl, Python's sha256",
        "ours": "ours: hashed, on the disk, named",
    }
    for key, text in words.items():
        median = statistics.median(rows[key])
        print(f"| {text} | {median:.2f} | {options.megabytes / median:.0f} |")
    for key in list(words)[:-1]:
        pairs = zip(rows[key], rows["ours"], strict=True)
        ratio = statistics.median(theirs / own for theirs, own in pairs)
        print(f"\nours / {words[key]}: {ratio:.2f} (bound {BOUND})")


if __name__ == "__main__":
    main()

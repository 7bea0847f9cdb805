"""Several processes at one store, and processes that are killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deeplab_zoo.zoo.weights import staging

from .conftest import BODY, artifact, described, text_of
from .faulty_server import Site

BIG = BODY * 12
# One process that has imported everything and forks the others, since importing takes longer
# than fetching. "fetch" answers with the child's number, "wait" with how it ended.
FORKER = """
import os, sys, traceback
from deeplab_zoo.zoo.weights import fetch, work
import requests, filelock, http.client
entry = None
for line in sys.stdin:
    command, *words = line.split()
    entry = entry or fetch.load_registry([words[0]]).find("mine")
    if command == "wait":
        print(os.waitstatus_to_exitcode(os.waitpid(int(words[0]), 0)[1]), flush=True)
    elif child := os.fork():
        print(child, flush=True)
    else:
        try:
            fetch.fetch_entry(entry, work.Options(guard_wait=float(words[1])))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
"""


class Forker:
    """Starts fetches in processes of their own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, *words: object) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*words, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@pytest.fixture
def forker() -> Iterator[Forker]:
    found = Forker()
    yield found
    assert found.process.stdin is not None
    assert found.process.stdout is not None
    found.process.stdin.close()
    found.process.stdout.close()
    found.process.wait()


@pytest.fixture
def registry(site: Site, tmp_path: Path) -> Path:
    site.files["x.pth"] = BIG
    path = tmp_path / "registry.yaml"
    path.write_text(text_of(described(artifact(site.url("x.pth"), body=BIG))))
    return path


@pytest.mark.parametrize("guard_wait", [30.0, 0.0], ids=["guarded", "unguarded"])
def test_eight_processes_at_once_get_the_right_bytes(
    site: Site, registry: Path, home: Path, forker: Forker, guard_wait: float
) -> None:
    site.pace = 0.004
    running = [forker.ask("fetch", registry, guard_wait) for _ in range(8)]
    assert [forker.ask("wait", one) for one in running] == [0] * 8
    assert (home / "files" / "mine" / "x.pth").read_bytes() == BIG
    assert [*(home / "staging").iterdir()] == []
    if guard_wait:
        assert site.sent == len(BIG)


ROUNDS = [pytest.param(10, id="10"), pytest.param(100, id="100", marks=pytest.mark.slow)]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_kill_at_any_instant_costs_no_fresh_start(
    site: Site, registry: Path, home: Path, forker: Forker, rounds: int
) -> None:
    site.pace = 0.002
    dice = random.Random(rounds)
    final = home / "files" / "mine" / "x.pth"
    resumed = 0
    for _ in range(rounds):
        child = forker.ask("fetch", registry, 30)
        time.sleep(dice.uniform(0, 0.25))
        os.kill(child, signal.SIGKILL)
        assert forker.ask("wait", child) in (0, -signal.SIGKILL)
        if final.exists():  # Killed after the end: what has its name is whole.
            assert final.read_bytes() == BIG
        else:
            kept = sum(one.stat().st_size for one in (home / "staging").glob("*.partial*"))
            before = len(site.asked)
            assert forker.ask("wait", forker.ask("fetch", registry, 30)) == 0
            assert final.read_bytes() == BIG
            if 0 < kept < len(BIG):
                assert site.asked[-1][1]["Range"] == f"bytes={kept}-"
                resumed += 1
            assert len(site.asked) - before == (kept < len(BIG))
        assert [one for one in (home / "staging").iterdir() if one.suffix != ".json"] == []
        shutil.rmtree(home)
    assert resumed > rounds // 4


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_has_come_and_lets_go_of_it(
    site: Site, registry: Path, home: Path, kill: signal.Signals
) -> None:
    site.pace = 0.01
    code = "import sys; from deeplab_zoo.cli.main import main; main()"
    running = subprocess.Popen(
        [sys.executable, "-c", code, "fetch", "mine", "--registry", str(registry)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while site.sent < 500_000:
        time.sleep(0.01)
    running.send_signal(kill)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    (kept,) = (home / "staging").glob("*.partial*")
    assert kept.suffix == ".partial"
    assert kept.stat().st_size > 100_000


def test_an_interrupt_reaches_downloads_that_wait_for_their_servers(
    site: Site, tmp_path: Path
) -> None:
    site.files["y.pth"] = BIG[1:]
    site.files["x.pth"] = BIG
    site.pace = 20
    parts = [
        artifact(site.url("x.pth"), body=BIG),
        artifact(site.url("y.pth"), body=BIG[1:], filename="y.pth"),
    ]
    (tmp_path / "registry.yaml").write_text(text_of(described(*parts)))
    code = "import sys; from deeplab_zoo.cli.main import main; main()"
    running = subprocess.Popen(
        [sys.executable, "-c", code, "fetch", "mine", "--registry", "registry.yaml"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    begun = [0]
    while len(begun) < 2 or not all(begun):
        time.sleep(0.01)
        paths = (tmp_path / "cache" / "staging").glob("*.partial*")
        begun = [path.stat().st_size for path in paths]
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=10)  # The servers would take longer.
    assert running.returncode == 130, err
    assert len([*(tmp_path / "cache" / "staging").glob("*.partial")]) == 2


def test_what_another_machine_holds_is_left_alone_until_it_is_silent_for_long(
    tmp_path: Path,
) -> None:
    mine = staging.claim(tmp_path, "k")
    mine.path.write_bytes(b"abc")
    mine.describe("u", "v", 3)
    foreign = mine.path.with_name(mine.path.name.replace(staging._host(), "ffffffff"))
    mine.path.rename(foreign)
    assert staging.claim(tmp_path, "k").path.stat().st_size == 0
    os.utime(foreign, (1, 1))
    taken = staging.claim(tmp_path, "k")
    assert taken.path.read_bytes() == b"abc"
    assert taken.described() == ("u", "v", 3)
    assert not foreign.exists()


def test_a_claim_of_a_living_process_is_not_taken(tmp_path: Path) -> None:
    first = staging.claim(tmp_path, "k")
    first.path.write_bytes(b"abc")
    second = staging.claim(tmp_path, "k")
    assert second.path != first.path
    first.release()
    assert staging.claim(tmp_path, "k").path.read_bytes() == b"abc"

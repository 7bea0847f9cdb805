import json
import os
import pty
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deeplab_zoo.cli.main import main
from deeplab_zoo.cli.reporting import bars
from deeplab_zoo.zoo.weights.add import add, described, measure
from deeplab_zoo.zoo.weights.events import Event

BODY = bytes(range(256)) * 500
CODE = "import sys; from deeplab_zoo.cli.main import main; main()"
HEAVY = ("torch", "tensorflow", "lightning", "h5py", "cv2", "numpy", "pandas", "jinja2")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DEEPLAB_ZOO_CACHE": str(tmp_path / "cache"),
        "DEEPLAB_ZOO_LOCK": str(tmp_path / "deeplab-zoo.lock"),
        "DEEPLAB_ZOO_REGISTRY": "",
    }


class Shell:
    """The command line in processes of their own, in one folder with one store."""

    def __init__(self, cwd: Path, environment: dict[str, str]) -> None:
        self.cwd, self.environment = cwd, environment

    def __call__(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        found = subprocess.run(
            [sys.executable, "-c", CODE, *map(str, arguments)],
            check=False, capture_output=True, text=True, cwd=self.cwd, env=self.environment,
        )  # fmt: skip
        assert found.returncode == code, found.stderr
        assert "Traceback" not in found.stderr
        return found


@pytest.fixture
def shell(tmp_path: Path, environment: dict[str, str]) -> Shell:
    """With a zoo of one's own in the folder: ``ours``, a dataset, pinned."""
    (tmp_path / "ours.bin").write_bytes(BODY)
    made = Shell(tmp_path, environment)
    registry = tmp_path / "registry.yaml"
    place, size, digest, seen = measure(str(tmp_path / "ours.bin"), registry)
    about = {"description": "ours.bin", "license": {"spdx": "MIT"}, "homepage": "not stated"}
    kind = {"kind": "dataset", **about}
    add(registry, described("ours", place, size, digest, seen=seen, grade="A", **kind))
    return made


def test_a_zoo_of_ones_own_from_add_to_prune(shell: Shell, tmp_path: Path) -> None:
    own = ("--registry", "registry.yaml")
    (tmp_path / "more").write_bytes(b"more")
    added = shell("registry", "add", "more", "--name", "more", "--kind", "dataset").stdout
    assert added.startswith("registry.yaml: added more, pinned, sha256 ")
    assert "2 entries, no problems" in shell("registry", "lint", "registry.yaml").stdout
    fetched = shell("fetch", "ours", *own)
    path = tmp_path / "cache" / "files" / "ours" / "ours.bin"
    assert fetched.stdout == f"{path}\n"
    assert fetched.stderr == "ours.bin: verified sha256\n"
    assert path.read_bytes() == BODY
    again = shell("fetch", "ours", *own)
    assert (again.stdout, again.stderr) == (f"{path}\n", "")
    (row,) = json.loads(shell("list", "ours", *own, "--cached", "--json").stdout)
    assert row == {"name": "ours", "kind": "dataset", "description": "ours.bin", "state": "pinned",
                   "size": len(BODY), "cached": True, "loadable": False}  # fmt: skip
    shown = shell("show", "ours", *own).stdout
    for part in ("here           yes", "pinned", "computed from the file", "no: a dataset"):
        assert part in shown
    assert shell("verify", "ours", *own).stdout == "ours/ours.bin: verified sha256\n"
    path.write_bytes(BODY[:-1] + b"?")
    found = shell("verify", "--all", *own, code=3)
    assert "MISMATCH" in found.stdout
    assert "1 files are not what they should be" in found.stderr
    shell("fetch", "ours", *own)
    would = shell("prune", "ours", *own, "--dry-run")
    assert str(path) in would.stdout
    assert "would free 128.5 kB" in would.stderr
    assert path.exists()
    shell("prune")
    assert path.read_bytes() == BODY
    assert not [*(tmp_path / "cache" / "quarantine").iterdir()]
    assert "freed 128.5 kB" in shell("prune", "ours", "ours", *own).stderr
    assert not path.exists()
    assert not [*(tmp_path / "cache" / "blobs").glob("*/*/*")]


def test_json_lines_say_what_happens_and_end_with_the_path(shell: Shell, tmp_path: Path) -> None:
    lines = shell("fetch", "ours", "--registry", "registry.yaml", "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "start",
        "done",
        "result",
    ]
    assert events[-2]["state"] == "pinned"
    assert events[-1]["path"] == str(tmp_path / "cache" / "files" / "ours" / "ours.bin")


@pytest.mark.usefixtures("shell")
def test_a_terminal_sees_a_bar_and_standard_output_only_the_path(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    master, slave = pty.openpty()
    found = subprocess.run(
        [sys.executable, "-c", CODE, "fetch", "ours", "--registry", "registry.yaml"],
        check=True, stdout=subprocess.PIPE, stderr=slave, text=True, cwd=tmp_path,
        env={**environment, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(slave)
    seen = os.read(master, 1 << 16).decode()
    os.close(master)
    assert found.stdout == f"{tmp_path / 'cache' / 'files' / 'ours' / 'ours.bin'}\n"
    assert "ours.bin: verified sha256" in seen
    assert "128.0/128.0 kB" in seen


def test_a_bar_shows_the_rate_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with bars() as listen:
        listen(Event("start", "x.pth", {"url": "u", "offset": 0, "total": 90_000_000}))
        for done in range(1, 5):
            time.sleep(0.12)
            listen(Event("progress", "x.pth", {"done": done * 1_000_000, "total": 90_000_000}))
    seen = capsys.readouterr().err
    last = re.sub(r"\x1b\[[0-9;?]*\w", "", seen)
    assert re.search(r"4\.0/90\.0 MB \d+\.\d MB/s 0:00:\d\d", last)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("fetch", "deeplabv2-resnet-voc"), 2, "Did you mean 'deeplabv2-resnet101-voc'"),
        (("show", "nothing-like-it-at-all"), 2, "no such entry"),
        (("fetch", "deeplabv2-resnet101-voc"), 4, "--trust-on-first-use"),
        (("fetch", "sbd", "--locked"), 4, "--locked"),
        (("fetch", "sbd", "--offline"), 7, "--from-file FOLDER"),
        (
            ("fetch", "resnet101-imagenet-caffe", "--from-file", "ours.bin"),
            2,
            "expected the folder",
        ),
        (("fetch", "resnet101-imagenet-caffe"), 5, "https://github.com/KaimingHe"),
        (
            ("fetch", "vgg16-imagenet-caffe", "--convert"),
            1,
            "no native model of vgg vgg16",
        ),
        (("fetch", "ours", "--registry", "none.yaml"), 1, "none.yaml: no such registry file"),
        (("fetch", "a", "b", "--from-file", "x"), 2, "takes one NAME"),
        (("verify",), 2, "--all"),
        (("registry", "export"), 2, "--pooch"),
    ],
)
@pytest.mark.usefixtures("shell")
def test_a_refusal_is_one_message_and_an_exit_code(
    arguments: tuple[str, ...],
    code: int,
    words: str,
    tmp_path: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("CACHE", "LOCK", "REGISTRY"):
        monkeypatch.setenv(f"DEEPLAB_ZOO_{name}", environment[f"DEEPLAB_ZOO_{name}"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["deeplab-zoo", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code
    found = capsys.readouterr()
    assert words in found.err
    assert found.out == ""


def test_the_shipped_registry_passes_lint_and_a_planted_fault_does_not(
    shell: Shell, tmp_path: Path
) -> None:
    assert "no problems" in shell("registry", "lint").stdout
    path = tmp_path / "registry.yaml"
    path.write_text(path.read_text().replace("sha256:", "sha384:"))
    assert "sha384 of 64 characters" in shell("registry", "lint", path, code=3).stderr


def test_the_page_and_poochs_list_are_written(shell: Shell, tmp_path: Path) -> None:
    shell("registry", "html", "--registry", "registry.yaml")
    assert 'id="ours"' in (tmp_path / "registry.html").read_text()
    own = tmp_path / "registry.yaml"
    text = own.read_text().replace("filename: ours.bin", "filename: our s.bin")
    own.write_text(
        text.replace("- url: ours.bin", "- {url: gone.bin, dead: '2020'}\n      - url: ours.bin")
    )
    rows = shell("registry", "export", "--pooch", "--registry", "registry.yaml").stdout.splitlines()
    name, digest, url = shlex.split(rows[-1])  # As pooch reads it.
    assert name == "ours/our s.bin"
    assert digest.startswith("sha256:")
    assert url == (tmp_path / "ours.bin").as_uri()
    assert all(len(shlex.split(row)) == 3 for row in rows)


@pytest.mark.parametrize(
    "arguments",
    [("fetch", "--help"), ("list",), ("show", "sbd"), ("verify", "--all"), ("prune",),
     ("registry", "lint"), ("fetch", "ours", "--registry", "registry.yaml")],
)  # fmt: skip
def test_the_registrys_commands_import_nothing_heavy(
    shell: Shell, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    code = (
        "import sys; from deeplab_zoo.cli.main import main\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True, capture_output=True, text=True, cwd=shell.cwd, env=environment,
    )  # fmt: skip
    assert found.stderr.splitlines()[-1] == "[]"

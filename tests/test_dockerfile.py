"""The Dockerfile, as far as it can be judged without Docker."""

import json
import re
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    """Return the words that instructions begin with, and the rest of each."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    pairs = (line.split(None, 1) for line in text.splitlines() if line)
    return [(one[0], one[1]) for one in pairs]


def stages() -> dict[str, list[Instruction]]:
    """Return the instructions of each stage, those of the stages below it before."""
    found: dict[str, list[Instruction]] = {}
    for word, rest in instructions():
        if word == "FROM":
            below, _, name = rest.partition(" AS ")
            own = list(found.get(below, []))
            assert own or below.startswith("python:"), below
            found[name] = own
        own.append((word, rest))
    return found


def setup() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def commands(stage: str) -> list[str]:
    """Return a stage's shell commands, without Docker's own options."""
    runs = (rest for word, rest in stages()[stage] if word == "RUN")
    return [re.sub(r"^(--mount=\S+\s+)+", "", one) for one in runs]


def test_the_images_run_the_program_on_a_python_that_is_supported() -> None:
    (base,) = {rest.split()[0] for word, rest in instructions() if rest.startswith("python:")}
    version = base.removeprefix("python:").removesuffix("-slim")
    assert f"Programming Language :: Python :: {version}" in setup()["metadata"]["classifiers"]
    scripts = setup()["options.entry_points"]["console_scripts"].split("=")[0].strip()
    for name in ("cpu", "cuda"):
        image = dict(stages()[name])
        assert json.loads(image["ENTRYPOINT"]) == [scripts]
        assert image["WORKDIR"] == "/data"


def test_what_is_copied_exists_and_comes_from_stages_that_are_there() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for word, rest in instructions():
        if word == "COPY":
            source = rest.split()[0]
            assert (ROOT / source).exists()
            assert source not in ignored
    mounted = re.findall(r"from=(\w+)", (ROOT / "Dockerfile").read_text())
    assert set(mounted) == {"wheel"} <= set(stages())
    assert commands("wheel")[-1].endswith("--outdir /dist")


def test_what_is_installed_is_an_extra_of_ours_and_pinned() -> None:
    known = set(setup()["options.extras_require"])
    for name in ("cpu", "cuda"):
        installs = [one for one in commands(name) if one.startswith("pip install")]
        assert all(" -c constraints.txt " in one for one in installs)
        (extras,) = re.findall(r"\[([\w,]+)\]", " ".join(installs))
        assert set(extras.split(",")) <= known
    assert (ROOT / "constraints.txt").exists()


@pytest.mark.parametrize("stage", ["wheel", "cpu", "cuda"])
def test_every_command_is_shell(stage: str) -> None:
    for one in commands(stage):
        subprocess.run(["sh", "-n", "-c", one], check=True)


@pytest.mark.parametrize(
    ("index", "words"), [("", []), ("https://x/cpu", ["--index-url", "https://x/cpu"])]
)
def test_the_index_of_torch_is_an_option_or_nothing(index: str, words: list[str]) -> None:
    (install,) = (one for one in commands("cpu") if "TORCH_INDEX" in one)
    said = subprocess.run(
        ["sh", "-c", 'pip() { printf "%s\\n" "$@"; }\n' + install],
        check=True, capture_output=True, text=True, env={"TORCH_INDEX": index},
    ).stdout.split()  # fmt: skip
    assert said == ["install", "-c", "constraints.txt", *words, "torch"]

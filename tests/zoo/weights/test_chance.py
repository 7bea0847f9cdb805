"""Faults by chance: the right bytes or a named error, never a wrong file under the name."""

import random
from pathlib import Path
from typing import Any

import pytest

from deeplab_zoo.proto.errors import IntegrityError, NetworkError

from .conftest import BODY, Fetching, artifact, described, digest
from .faulty_server import Fault, Site

PAGES = (
    ("text/html", b"<!DOCTYPE html><html><body>Please wait</body></html>"),
    (
        "application/octet-stream",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    ),
    ("application/json", b'{"message": "rate limited"}'),
)


def drawn(dice: random.Random) -> Fault:
    """Draw one fault, or none."""
    return dice.choice(
        [
            "none",
            ("drop", dice.random()),
            ("reset", dice.random()),
            ("stall", dice.random()),
            "wrong range",
            "no range",
            "long length",
            "short length",
            "no length",
            ("status", dice.choice([408, 429, 500, 502, 503, 504])),
            ("status", (429, {"Retry_After": dice.choice(["0", "9", "soon"])})),
            ("status", dice.choice([403, 404, 410])),
            ("redirect", None),
            "changed",
            ("page", dice.choice(PAGES)),
            "truncated",
            "appended",
            "flipped",
            ("encoding", "gzip"),
        ]
    )


SEEDS = [pytest.param(seed, marks=[] if seed % 5 == 0 else pytest.mark.slow) for seed in range(200)]


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_by_chance_end_in_the_right_bytes_or_a_named_error(
    site: Site, fetching: Fetching, home: Path, seed: int
) -> None:
    dice = random.Random(seed)
    site.faults = [drawn(dice) for _ in range(dice.randint(1, 9))]
    site.ranges = dice.random() < 0.8
    urls = [site.url(f"x.pth?{i}") for i in range(dice.randint(1, 3))]
    known: dict[str, Any] = {
        "digests": {"sha256": digest(BODY)},
        "evidence": [{"grade": "A", "covers": ["sha256"], "where": "here"}],
    }
    pinned = artifact(*urls) if dice.random() < 0.6 else artifact(*urls, body=None, **known)
    final = home / "files" / "mine" / "x.pth"
    for _ in range(2):
        try:
            folder, _events = fetching(described(pinned))
        except (IntegrityError, NetworkError) as error:
            assert "x.pth" in str(error)
            assert not final.exists()
        else:
            assert folder / "x.pth" == final
            assert final.read_bytes() == BODY
    site.faults = []
    fetching(described(pinned))
    assert final.read_bytes() == BODY
    assert [*(home / "staging").iterdir()] == []

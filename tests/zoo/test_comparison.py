import json
from pathlib import Path

import numpy as np
import pytest

from deeplab_zoo.proto.errors import MismatchError
from deeplab_zoo.zoo.parity.comparison import compare
from deeplab_zoo.zoo.parity.report import ParityReport, write


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, 3, 4, 5)).astype(np.float32)


def test_distances_are_those_of_their_definitions() -> None:
    a, b = values(0), values(0)
    a[1, 2, 3, 4] += 0.5
    found = compare("x", a, b)
    assert found.worst == (1, 2, 3, 4)
    assert found.max_abs == pytest.approx(0.5, rel=1e-6)
    assert found.mean_abs == pytest.approx(0.5 / a.size, rel=1e-6)
    assert found.relative_l2 == pytest.approx(0.5 / np.linalg.norm(b), rel=1e-6)
    assert not found.passed


def test_equal_values_pass_and_agree_everywhere() -> None:
    found = compare("x", values(), values())
    assert (found.relative_l2, found.agreement, found.passed) == (0, 1, True)


def test_a_not_a_number_never_passes() -> None:
    bad = values()
    bad[0, 0, 0, 0] = np.nan
    assert not compare("x", bad, values()).passed


def test_other_shapes_are_refused() -> None:
    with pytest.raises(MismatchError, match=r"blob 'x': shape \(2, 3, 4, 5\) against"):
        compare("x", values(), values()[:1])


def test_the_report_says_the_same_as_json_and_as_markdown(tmp_path: Path) -> None:
    bad = values()
    bad[0, 0, 0, 0] += 1
    report = ParityReport(
        "a net",
        "Engine 1.0",
        {"net.prototxt": "00"},
        (2, 2),
        (compare("good", values(), values()), compare("bad", bad, values())),
    )
    as_json, as_markdown = write(report, tmp_path)
    fields = json.loads(as_json.read_text())
    assert fields["passed"] is False
    assert fields["verdict"].startswith("FAIL: 2 of 2 tensors bit-exact, 1 of 2 blobs within 1e-05")
    assert fields["verdict"] in as_markdown.read_text()
    assert "| bad | 2 x 3 x 4 x 5 |" in as_markdown.read_text()
    assert [one["blob"] for one in fields["comparisons"]] == ["good", "bad"]

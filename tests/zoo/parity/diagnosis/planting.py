"""What a check says of a model with a fault planted in a random layer.

Every fault must fail it, and seven of ten be explained.
"""

import pytest

from deeplab_zoo.converters.graph.engine import Graph
from deeplab_zoo.zoo.models.deeplab_v2 import DeepLabV2
from deeplab_zoo.zoo.parity import opencv
from deeplab_zoo.zoo.parity.cases import photo
from deeplab_zoo.zoo.parity.check import check
from deeplab_zoo.zoo.parity.comparison import tolerance
from deeplab_zoo.zoo.parity.engine import Case
from deeplab_zoo.zoo.parity.original import Original
from deeplab_zoo.zoo.parity.report import ParityReport

pytest.importorskip("cv2")

SIZE = (68, 100)  # Even twice, so that roundings differ; the branches of a Caffe net meet.
# Of which layer, which filter, which bit.
SEEDS = (1, pytest.param(2, marks=pytest.mark.slow))

Planted = tuple[str, str]  # The layer in Caffe's terms, and the convention it is about.


def proven(model: DeepLabV2 | Graph, original: Original) -> ParityReport:
    case = Case("photo", photo(*SIZE, 3))
    return check(
        model,
        original,
        opencv.engine(original),
        [case],
        tolerance("fp32"),
        exact=False,
        diagnose=True,
    )


def told(report: ParityReport, planted: Planted) -> None:
    layer, convention = planted
    assert not report.passed
    found = report.diagnosis
    assert found is not None
    if not convention:
        assert found.convention is None
        assert "no known convention explains it" in found.sentence
        assert report.weights is not None
        assert len(report.weights.differences) >= 1
        return
    assert (found.convention, found.layer) == (convention, layer), found
    assert found.reference == found.stated != found.ours

"""Our protobuf messages beside those of TensorFlow and OpenCV in one process."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

OURS = "from deeplab_zoo.proto import caffemodel; net = caffemodel.read(Path(sys.argv[1]))"
OTHERS = {"tensorflow": "import tensorflow", "cv2": "import cv2"}


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("other", OTHERS)
def test_a_caffemodel_is_read_whichever_is_imported_first(
    golden: Path, other: str, first: str
) -> None:
    if find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    steps = [OURS, OTHERS[other]] if first == "ours" else [OTHERS[other], OURS]
    code = "import sys; from pathlib import Path\n" + "\n".join(steps) + "\nprint(len(net.layers))"
    path = str(golden / "caffe" / "fmt_new.caffemodel")
    found = subprocess.run(
        [sys.executable, "-c", code, path], check=True, capture_output=True, text=True
    )
    assert int(found.stdout) > 5

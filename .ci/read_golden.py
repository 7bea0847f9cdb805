"""Read every golden Caffe file with the protobuf on the path; warnings are errors.

python .ci/read_golden.py EXPECTED_PROTOBUF_VERSION
"""

import sys
import warnings
from pathlib import Path

import google.protobuf

from deeplab_zoo.proto import caffemodel, prototxt

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "caffe"


def main() -> None:
    """Read, write as text, read again."""
    version = google.protobuf.__version__
    if version != sys.argv[1]:
        sys.exit(f"protobuf {version} is imported, expected {sys.argv[1]}")
    warnings.simplefilter("error")
    count = 0
    for path in sorted(GOLDEN.glob("*.caffemodel")):
        caffemodel.read(path)
        count += 1
    for path in sorted(GOLDEN.glob("*.prototxt")):
        net = prototxt.read(path)
        again = prototxt.parse_net(prototxt.format_net(net), path.name)
        if [layer.params for layer in net.layers] != [layer.params for layer in again.layers]:
            sys.exit(f"{path}: reads back otherwise")
        count += 1
    print(f"protobuf {version}: {count} files read")


main()

"""onnxruntime as an independent reference, for a network that is at hand as ONNX."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...proto.errors import FormatError, MismatchError, MissingDependencyError
from .engine import Arrays, Engine

# What `export_onnx` calls a native model's input and output.
IMAGE, SCORES = "image", "scores"


def engine(path: Path, inputs: Sequence[str], scores: str) -> tuple[Engine, tuple[int, int] | None]:
    """Open an ONNX file of a network with these inputs, or one that a native model's picture is.

    ``scores`` is the blob that a native model gives.

    Returns the engine, and the one height and width that it takes; None where it takes any.

    Raises
    ------
    MissingDependencyError
        onnxruntime is not installed.
    FormatError
        It cannot read the file.
    MismatchError
        The file's inputs are others.

    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError(
            "onnxruntime is not installed. Install it: pip install onnxruntime."
        ) from None
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        # Its exceptions have no common class of their own.
        raise FormatError(f"{path}: onnxruntime cannot read it ({error}).") from None
    outputs = [one.name for one in session.get_outputs()]
    read = {one.name: one for one in session.get_inputs()}
    blobs = dict(zip(read, inputs, strict=False)) if [*read] == [IMAGE] else {n: n for n in read}
    if set(blobs.values()) != set(inputs):
        raise MismatchError(
            f"{path}: reads {', '.join(read)}; expected {IMAGE}, or {', '.join(inputs)}."
        )

    def run(given: Arrays) -> Arrays:
        renamed = {name: given[blob] for name, blob in blobs.items()}
        for name, value in renamed.items():
            shape = read[name].shape
            sizes = [size if isinstance(size, int) else None for size in shape]
            if len(sizes) != value.ndim or any(
                want not in (None, have) for want, have in zip(sizes, value.shape, strict=True)
            ):
                raise MismatchError(
                    f"{path}: input {name!r} takes {shape}, found {list(value.shape)}. "
                    "Give --size, or export it with --dynamic."
                )
        try:
            values = session.run(outputs, renamed)
        except Exception as error:
            raise MismatchError(f"{path}: onnxruntime cannot run it ({error}).") from None
        return {
            scores if name == SCORES else name: np.asarray(value)
            for name, value in zip(outputs, values, strict=True)
        }

    sizes = [one.shape[2:] for one in read.values() if len(read) == 1 and len(one.shape) == 4]
    size = next(((h, w) for h, w in sizes if isinstance(h, int) and isinstance(w, int)), None)
    return Engine("onnxruntime", str(onnxruntime.__version__), run), size

"""onnxruntime as an independent reference, for a network that is at hand as ONNX."""

from pathlib import Path

import numpy as np

from ...proto.errors import FormatError, MismatchError, MissingDependencyError
from .engine import Arrays, Engine

# What `export_onnx` calls a native model's input and output.
IMAGE, SCORES = "image", "scores"


def engine(path: Path, image: str, scores: str) -> tuple[Engine, tuple[int, int] | None]:
    """Open an ONNX file; ``image`` and ``scores`` are the blobs of a native model's names.

    Returns the engine, and the one height and width that it takes; None where it takes any.

    Raises
    ------
    MissingDependencyError
        onnxruntime is not installed.
    FormatError
        It cannot read the file.

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

    def run(inputs: Arrays) -> Arrays:
        renamed = {}
        for one in session.get_inputs():
            value = inputs[image if one.name == IMAGE else one.name]
            wanted = [size if isinstance(size, int) else None for size in one.shape]
            if any(
                want not in (None, have) for want, have in zip(wanted, value.shape, strict=True)
            ):
                raise MismatchError(
                    f"{path}: input {one.name!r} takes {one.shape}, found {list(value.shape)}. "
                    "Give --size, or export it with --dynamic."
                )
            renamed[one.name] = value
        values = session.run(outputs, renamed)
        return {
            scores if name == SCORES else name: np.asarray(value)
            for name, value in zip(outputs, values, strict=True)
        }

    height, width = (*session.get_inputs()[0].shape, None, None)[2:4]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return Engine("onnxruntime", str(onnxruntime.__version__), run), size

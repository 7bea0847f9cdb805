"""DeepLab weights from Caffe and TensorFlow, brought to PyTorch and proven unchanged.

The public names are imported when they are first used, so that ``import deeplab_zoo`` and
the command line's help do not pay for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "DeepLabV2": ".zoo.models.deeplab_v2",
    "DeepLabV2Config": ".converters.deeplab_v2",
    "DenseCRF": ".zoo.crf.dense",
    "DenseCRFLoss": ".zoo.losses.densecrf",
    "PermutohedralLattice": ".zoo.lattice.permutohedral",
    "ZooError": ".proto.errors",
    "compare": ".converters.compare",
    "convert_caffe": ".converters.convert",
    "convert_legacy": ".converters.convert",
    "convert_tensorflow": ".converters.convert",
    "export": ".converters.export",
    "export_onnx": ".zoo.models.onnx",
    "load": ".zoo.models.load",
    "load_caffe": ".converters.graph.build",
    "open_checkpoint": ".proto.checkpoint",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from .converters.compare import compare as compare
    from .converters.convert import convert_caffe as convert_caffe
    from .converters.convert import convert_legacy as convert_legacy
    from .converters.convert import convert_tensorflow as convert_tensorflow
    from .converters.deeplab_v2 import DeepLabV2Config as DeepLabV2Config
    from .converters.export import export as export
    from .converters.graph.build import load_caffe as load_caffe
    from .proto.checkpoint import open_checkpoint as open_checkpoint
    from .proto.errors import ZooError as ZooError
    from .zoo.crf.dense import DenseCRF as DenseCRF
    from .zoo.lattice.permutohedral import PermutohedralLattice as PermutohedralLattice
    from .zoo.losses.densecrf import DenseCRFLoss as DenseCRFLoss
    from .zoo.models.deeplab_v2 import DeepLabV2 as DeepLabV2
    from .zoo.models.load import load as load
    from .zoo.models.onnx import export_onnx as export_onnx


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

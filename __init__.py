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
    "DeepLabV3": ".zoo.models.deeplab_v3",
    "DeepLabV3Config": ".converters.deeplab_v3",
    "LargeFOV": ".zoo.models.largefov",
    "LargeFOVConfig": ".converters.largefov",
    "LovaszHingeLoss": ".zoo.losses.lovasz",
    "LovaszSoftmaxLoss": ".zoo.losses.lovasz",
    "DenseCRF": ".zoo.crf.dense",
    "DenseCRFLoss": ".zoo.losses.densecrf",
    "PermutohedralLattice": ".zoo.lattice.permutohedral",
    "TrainConfig": ".zoo.training.config",
    "ZooError": ".proto.errors",
    "compare": ".converters.compare",
    "convert_caffe": ".converters.convert",
    "convert_legacy": ".converters.convert",
    "convert_graph": ".zoo.models.graph",
    "convert_tensorflow": ".converters.convert",
    "evaluate": ".zoo.evaluation.evaluate",
    "export": ".converters.export",
    "export_onnx": ".zoo.models.onnx",
    "fold_batch_norm": ".converters.graph.fold",
    "fetch": ".zoo.weights.fetch",
    "finetune": ".zoo.training.job",
    "load": ".zoo.models.load",
    "load_caffe": ".converters.graph.build",
    "lovasz_hinge": ".zoo.losses.lovasz",
    "lovasz_softmax": ".zoo.losses.lovasz",
    "open_checkpoint": ".proto.checkpoint",
    "open_dataset": ".zoo.data.layouts",
    "parity": ".zoo.parity.job",
    "prox_lovasz_hinge": ".zoo.losses.proximal",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from .converters.compare import compare as compare
    from .converters.convert import convert_caffe as convert_caffe
    from .converters.convert import convert_legacy as convert_legacy
    from .converters.convert import convert_tensorflow as convert_tensorflow
    from .converters.deeplab_v2 import DeepLabV2Config as DeepLabV2Config
    from .converters.deeplab_v3 import DeepLabV3Config as DeepLabV3Config
    from .converters.export import export as export
    from .converters.graph.build import load_caffe as load_caffe
    from .converters.graph.fold import fold_batch_norm as fold_batch_norm
    from .converters.largefov import LargeFOVConfig as LargeFOVConfig
    from .proto.checkpoint import open_checkpoint as open_checkpoint
    from .proto.errors import ZooError as ZooError
    from .zoo.crf.dense import DenseCRF as DenseCRF
    from .zoo.data.layouts import open_dataset as open_dataset
    from .zoo.evaluation.evaluate import evaluate as evaluate
    from .zoo.lattice.permutohedral import PermutohedralLattice as PermutohedralLattice
    from .zoo.losses.densecrf import DenseCRFLoss as DenseCRFLoss
    from .zoo.losses.lovasz import LovaszHingeLoss as LovaszHingeLoss
    from .zoo.losses.lovasz import LovaszSoftmaxLoss as LovaszSoftmaxLoss
    from .zoo.losses.lovasz import lovasz_hinge as lovasz_hinge
    from .zoo.losses.lovasz import lovasz_softmax as lovasz_softmax
    from .zoo.losses.proximal import prox_lovasz_hinge as prox_lovasz_hinge
    from .zoo.models.deeplab_v2 import DeepLabV2 as DeepLabV2
    from .zoo.models.deeplab_v3 import DeepLabV3 as DeepLabV3
    from .zoo.models.graph import convert_graph as convert_graph
    from .zoo.models.largefov import LargeFOV as LargeFOV
    from .zoo.models.load import load as load
    from .zoo.models.onnx import export_onnx as export_onnx
    from .zoo.parity.job import parity as parity
    from .zoo.training.config import TrainConfig as TrainConfig
    from .zoo.training.job import finetune as finetune
    from .zoo.weights.fetch import fetch as fetch


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

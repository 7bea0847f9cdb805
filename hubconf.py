"""Entries for ``torch.hub.load``: every entry of the registry that makes a native model.

    model = torch.hub.load("<owner>/deeplab-zoo", "deeplabv2-resnet101-voc")

Under torch.hub the checkout is the package, whatever its folder is called.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

dependencies = [
    "cramjam", "filelock", "google_crc32c", "h5py", "numpy", "platformdirs", "google.protobuf",
    "requests", "safetensors", "torch", "yaml",
]  # fmt: skip


def _package():
    """Import the checkout under the name that it has when installed."""
    if "deeplab_zoo" not in sys.modules:
        here = Path(__file__).resolve().parent
        spec = spec_from_file_location(
            "deeplab_zoo", here / "__init__.py", submodule_search_locations=[str(here)]
        )
        module = module_from_spec(spec)
        sys.modules["deeplab_zoo"] = module
        spec.loader.exec_module(module)
    return sys.modules["deeplab_zoo"]


def _entry(name, description):
    def entry(**options):
        return _package().load(name, **options)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = description
    return entry


def _entries():
    from importlib import import_module

    _package()
    registry = import_module("deeplab_zoo.zoo.weights.registry").load_registry()
    obstacle = import_module("deeplab_zoo.zoo.weights.recipe").obstacle
    return {
        name: _entry(name, entry.description)
        for name, entry in registry.entries.items()
        if obstacle(entry) is None
    }


globals().update(_entries())

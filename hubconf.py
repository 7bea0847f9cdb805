"""For ``torch.hub.load``: every entry of the registry that makes a native model.

model = torch.hub.load("<owner>/deeplab-zoo", "deeplabv2-resnet101-voc")

Under torch.hub the checkout is the package, whatever its folder is called.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

dependencies = [
    "cramjam", "filelock", "google_crc32c", "h5py", "numpy", "platformdirs", "google.protobuf",
    "requests", "safetensors", "torch", "yaml",
]  # fmt: skip


def _import_checkout() -> None:
    """Import the checkout under the name that it has when it is installed."""
    if "deeplab_zoo" in sys.modules:
        return
    here = Path(__file__).resolve().parent
    spec = spec_from_file_location(
        "deeplab_zoo", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{here}: cannot be imported as deeplab_zoo.")
    sys.modules["deeplab_zoo"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


def _loader(name: str, description: str) -> Callable[..., Any]:
    def entry(**options: Any) -> Any:
        return import_module("deeplab_zoo").load(name, **options)

    entry.__name__, entry.__doc__ = name, description
    return entry


def _loaders() -> dict[str, Callable[..., Any]]:
    """Return a function for each entry that can be loaded, by its name."""
    _import_checkout()
    weights = "deeplab_zoo.zoo.weights"
    entries = import_module(f"{weights}.registry").load_registry().entries
    obstacle = import_module(f"{weights}.recipe").obstacle
    return {
        name: _loader(name, entry.description)
        for name, entry in entries.items()
        if obstacle(entry) is None
    }


globals().update(_loaders())

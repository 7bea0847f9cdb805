"""``deeplab-zoo doctor``: is everything here that deeplab-zoo can use?"""

import platform
from importlib import metadata

import click

from ..zoo.weights.store import cache_folder
from .show import as_json

REQUIRED = ("torch", "numpy", "h5py", "protobuf", "safetensors", "pillow", "click")
OPTIONAL = {
    "opencv-python-headless": "for demo and parity: pip install 'deeplab-zoo[parity]'",
    "onnx": "for export --to onnx: pip install 'deeplab-zoo[onnx]'",
    "onnxscript": "for export --to onnx: pip install 'deeplab-zoo[onnx]'",
    "scipy": "for .mat masks and scribbles: pip install 'deeplab-zoo[sbd,scribbles]'",
    "tensorflow": "to compare with TensorFlow itself: pip install 'deeplab-zoo[tensorflow]'",
}
SAME = {"opencv-python-headless": ("opencv-python",), "tensorflow": ("tensorflow-cpu",)}


@click.command()
@click.option("--json", "json_", is_flag=True, help="Print as JSON.")
def doctor(json_: bool) -> None:
    """Show versions, devices, the cache folder and optional parts."""
    found = {
        "deeplab-zoo": _version("deeplab-zoo"),
        "python": platform.python_version(),
        "system": platform.platform(),
        **{name: _version(name) for name in REQUIRED},
        **{name: _version(name, *SAME.get(name, ())) for name in OPTIONAL},
        "devices": _devices(),
        "cache folder": str(cache_folder()),
    }
    if json_:
        click.echo(as_json(found))
        return
    for name, value in found.items():
        shown = value if isinstance(value, str) else ", ".join(value) if value else "not installed"
        cure = f" ({OPTIONAL[name]})" if name in OPTIONAL and value is None else ""
        click.echo(f"{name:<24} {shown}{cure}")


def _version(*names: str) -> str | None:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _devices() -> list[str]:
    try:
        import torch
    except ImportError:
        return []
    cpu = f"cpu ({torch.get_num_threads()} threads)"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [cpu, *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]

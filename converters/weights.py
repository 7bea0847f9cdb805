"""Native weights on disk: ``.safetensors``, ``.pth``, or the archive they came from.

A weights file says what model it is (config, numerics profile, origin). Safetensors keep
that in their header; a ``.pth`` stays a plain state dict that any ``torch.load`` reads, and
keeps it in the ``_metadata`` that PyTorch attaches to state dicts anyway.
"""

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..proto.checkpoint_records import widened
from ..proto.errors import FormatError, MismatchError, UsageError, listing
from ..proto.source import head, sniff, wrong_kind
from . import families, pth, rename
from .archive import Float32, Origin, contiguous
from .family import Config, Family
from .files import replacing
from .kinds import COMMANDS, kind_of
from .naming.scheme import DROPPED
from .numerics import PROFILES, Numerics, profile

KEY = "deeplab_zoo"
FORMAT_VERSION = 1
SUFFIXES = (".safetensors", ".pth", ".h5")


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A model's state under canonical names, with what is needed to rebuild the model."""

    state: dict[str, Float32] = field(repr=False)
    config: Config
    numerics: Numerics
    origin: Origin


def write(weights: Weights, path: Path, *, layout: str = "canonical") -> None:
    """Write ``.safetensors`` or ``.pth`` by the suffix, the names in a given layout.

    Raises
    ------
    UsageError
        An unknown suffix or layout.
    StorageError
        The disk does not let us; what was there before is untouched.

    """
    family = families.of_config(weights.config)
    layouts = family.layouts(weights.config)
    if layout not in layouts:
        raise UsageError(f"layout {layout!r}: {family.title} has {', '.join(layouts)}.")
    if path.suffix not in (".safetensors", ".pth"):
        raise UsageError(f"{path}: suffix {path.suffix!r}, expected .safetensors or .pth.")
    context = family.context(weights.config)
    state = {}
    for name in family.parameters(weights.config):
        module, _, parameter = name.rpartition(".")
        spelled = f"{family.naming.from_canonical(layout, module, context)}.{parameter}"
        state[spelled] = weights.state[name]
        if alias := family.naming.alias_of(layout, spelled):
            state[alias] = weights.state[name]
    described = json.dumps(_describe(weights, family, layout), sort_keys=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        if path.suffix == ".safetensors":
            write_safetensors(state, {"format": "pt", KEY: described}, file)
        else:
            _write_pth(state, described, file)


def _describe(weights: Weights, family: Family, layout: str) -> dict[str, Any]:
    return {
        "version": FORMAT_VERSION,
        "family": family.name,
        "config": weights.config.to_json(),
        "numerics": weights.numerics.name,
        "layout": layout,
        "origin": {**asdict(weights.origin), "files": dict(weights.origin.files)},
    }


def write_safetensors(
    state: Mapping[str, Float32], metadata: Mapping[str, str], file: BinaryIO
) -> None:
    """Write tensors one after the other, from where they are.

    The safetensors library's own writer orders the metadata at random, so equal input would
    not give equal files. Format: https://github.com/huggingface/safetensors#format
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name in sorted(state):
        size = state[name].nbytes
        header[name] = {
            "dtype": "F32",
            "shape": list(state[name].shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in sorted(state):
        file.write(contiguous(state[name]).data)


def _write_pth(state: Mapping[str, Float32], described: str, file: BinaryIO) -> None:
    import torch

    # What has two names is one tensor, as in its program's own files.
    made = {id(data): torch.from_numpy(np.array(data)) for data in state.values()}
    tensors = OrderedDict((name, made[id(data)]) for name, data in state.items())
    tensors._metadata = OrderedDict({"": {"version": 1, KEY: described}})  # type: ignore[attr-defined]
    torch.save(tensors, file)


def read(path: Path, *, numerics: str | None = None) -> Weights:
    """Read a ``.safetensors`` or ``.pth`` in any layout of ours.

    ``numerics`` names the profile of a file that does not record one (written elsewhere);
    for a file that does, it must be the same.

    Raises
    ------
    FormatError
        The file is damaged or not a weights file.
    MismatchError
        Names or shapes are not those of the model, or the numerics are unknown.

    """
    named, described = read_named(path)
    fields = parsed(described, path)
    if fields.get("family") == "graph":
        raise MismatchError(
            f"{path}: is a graph, a net without a native model. It can be loaded, inspected, "
            "compared, and exported --to onnx."
        )
    found = _described(fields, numerics, path) if fields else None
    family, layout, state = _canonical(named, str(path))
    if found is None and numerics is None:
        raise MismatchError(
            f"{path}: was not written by deeplab-zoo and records no numerics profile, so the "
            "right preprocessing and resizing are not known. Name it: numerics='caffe-v2'."
        )
    if found is None:
        shapes = {name: data.shape for name, data in state.items()}
        sizes = family.infer(shapes, **family.told_by_layout(layout))
        found = sizes, profile(str(numerics)), Origin("unknown", {}, "unknown")
    config, rules, origin = found
    rename.check(state, families.of_config(config).parameters(config))
    return Weights(state, config, rules, origin)


def read_named(path: Path) -> tuple[dict[str, Float32], str]:
    """Read a state dict as it is: arrays by name, and our description (JSON) or ``""``."""
    kind = sniff(head(path))
    if kind == "a safetensors file":
        return _read_safetensors(path)
    if kind in ("a zip archive (PyTorch's .pth is one)", "a pickle"):
        return _read_pth(path)
    told = wrong_kind(path, kind, "a .safetensors or .pth weights file")
    with suppress(FormatError):
        if kind != "text":  # Which may be anything.
            told += f" To convert it: `deeplab-zoo {COMMANDS[kind_of(path)]}`."
    raise FormatError(told)


def _described(
    fields: Mapping[str, Any], numerics: str | None, path: Path
) -> tuple[Config, Numerics, Origin]:
    family = families.named(fields.get("family"), str(path))
    if fields.get("version") != FORMAT_VERSION:
        raise FormatError(
            f"{path}: {family.name} version {fields.get('version')!r}, expected version "
            f"{FORMAT_VERSION}. Is it from a newer deeplab-zoo?"
        )
    with sound(path):
        config, origin = family.config.from_json(fields["config"]), origin_of(fields)
        trained = str(fields["numerics"])
    if trained not in PROFILES:
        known = ", ".join(PROFILES)
        raise FormatError(
            f"{path}: numerics profile {trained!r}, expected one of {known}. Is it from a newer "
            "deeplab-zoo?"
        )
    if numerics and numerics != trained:
        raise MismatchError(f"{path}: was trained under {trained!r}, asked for {numerics!r}.")
    return config, PROFILES[trained], origin


def parsed(described: str, path: Path) -> Mapping[str, Any]:
    """Parse our description of a file; one that is absent is empty."""
    with sound(path):
        return dict(json.loads(described or "{}").items())


def origin_of(fields: Mapping[str, Any]) -> Origin:
    """Read where a file's weights came from."""
    found = fields["origin"]
    files = {str(name): str(digest) for name, digest in found["files"].items()}
    return Origin(str(found["framework"]), files, str(found["tool"]))


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Refuse a description that lacks what it must have, or has something else in its place."""
    try:
        yield
    except (MismatchError, UsageError) as error:
        raise FormatError(f"{path}: {error}") from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: what it says of itself is damaged ({type(error).__name__}: {error})."
        ) from None


def read_header(path: Path) -> str:
    """Return our description in a safetensors file, ``""`` where it has none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return str((file.metadata() or {}).get(KEY, ""))
    except SafetensorError as error:
        raise FormatError(f"{path}: not a sound safetensors file ({error}).") from None


def _read_safetensors(path: Path) -> tuple[dict[str, Float32], str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            described = (file.metadata() or {}).get(KEY, "")
            named = {
                name: file.get_tensor(name)
                if file.get_slice(name).get_dtype() != "BF16"
                else _bfloat16(path, name)
                for name in file.keys()  # noqa: SIM118
            }
            return named, described
    except (SafetensorError, AttributeError) as error:  # Types of numbers that NumPy lacks.
        raise FormatError(f"{path}: not a sound safetensors file ({error}).") from None


def _bfloat16(path: Path, name: str) -> Float32:
    """Read one tensor of a type that NumPy does not have, widened to float32."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(size))[name]
        start, stop = entry["data_offsets"]
        file.seek(8 + size + start)
        bits = np.frombuffer(file.read(stop - start), "<u2")
    return widened(bits).reshape(entry["shape"])


def _read_pth(path: Path) -> tuple[dict[str, Float32], str]:
    """Load a state dict without executing anything that the file says."""
    import torch

    found = pth.load(path)
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and torch.is_tensor(one) and one.layout is torch.strided
        for name, one in found.items()
    ):
        keys = f"; its keys begin {[*found][:5]}" if isinstance(found, dict) else ""
        raise FormatError(
            f"{path}: holds {type(found).__name__}, expected a state dict of tensors by name, "
            f"alone or under 'state_dict'{keys}."
        )
    with sound(path):
        described = str(getattr(found, "_metadata", {}).get("", {}).get(KEY, ""))
    named = {
        name.removeprefix("module."): pth.array(one, path, name) for name, one in found.items()
    }
    if len(named) < len(found):
        twice = [name for name in named if name in found and f"module.{name}" in found]
        raise FormatError(
            f"{path}: names with and without 'module.' before them:\n{listing(twice)}"
        )
    return named, described


def _canonical(named: Mapping[str, Float32], place: str) -> tuple[Family, str, dict[str, Float32]]:
    """Bring a state dict of any layout to canonical names, and tell whose they are."""
    found = families.of_state(named)
    if found is None:
        raise MismatchError(
            f"{place}: none of its {len(named)} names is a DeepLab's in any layout "
            f"({', '.join(families.LAYOUTS)}); it begins {listing(list(named)[:3])}"
        )
    family, layout = found
    single, _ = rename.without_aliases(named, family.naming, layout, place)
    state: dict[str, Float32] = {}
    problems = []
    for name, data in single.items():
        module, _, parameter = name.rpartition(".")
        if parameter in DROPPED:
            continue
        known = family.naming.to_canonical(layout, module)
        if known is None:
            problems.append(f"{name}: not a name of layout {layout}")
        elif data.dtype != np.float32:
            problems.append(f"{name}: {data.dtype}, expected float32")
        else:
            state[f"{known[0]}.{parameter}"] = data
    if problems:
        raise MismatchError(f"{place}: {len(problems)} tensors do not fit:\n{listing(problems)}")
    return family, layout, state

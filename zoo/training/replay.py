"""Steps that the real Caffe solver did, done again: a folder enters, differences leave.

The folder holds ``solver.prototxt``, its net, ``init.caffemodel``, ``data.h5`` (the samples,
in order, under the names of the net's inputs) and ``golden.npz``: ``lr`` (steps,), ``loss``
(steps, iter_size, losses) before each update, ``loss_names``, and the weights
``wN/LAYER/BLOB`` after N updates. It is run by the generic graph and `CaffeSGD`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from ...converters.files import replacing
from ...converters.graph.build import load_caffe
from ...converters.graph.engine import Graph
from ...proto.errors import FormatError, UsageError
from ..devices import device_called, plain_float32
from ..strict_json import dumps
from .schedule import Schedule, rate
from .solver import CaffeSGD

LOSS_LIMIT = 5e-6  # Relative. Two float32 engines differ by 8e-7 here.
WEIGHT_LIMIT = 1e-5  # Relative L2; float32 engines drift apart by 6e-6 in five updates.


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob after an update: how far it is from Caffe's, and how far it has moved.

    ``distance`` is the norm of the difference over the norm of Caffe's; ``moved`` the norm of
    Caffe's change since the start over the same.
    """

    blob: str
    distance: float
    moved: float


@dataclass(frozen=True, slots=True)
class Step:
    """One update: the rates, the losses before it, every recorded blob after it."""

    number: int
    rate: tuple[float, float]
    losses: Mapping[str, tuple[tuple[float, float], ...]]
    layers: tuple[Layer, ...]

    @property
    def loss_error(self) -> float:
        """The largest relative difference of a loss; NaN if one is."""
        pairs = (pair for each in self.losses.values() for pair in each)
        apart = [abs(ours - theirs) / max(abs(theirs), 1e-12) for ours, theirs in pairs]
        return float(np.max(apart))

    @property
    def weight_error(self) -> float:
        """The largest distance of a blob; NaN if one is."""
        return float(np.max([one.distance for one in self.layers]))

    @property
    def passed(self) -> bool:
        """Whether losses, weights and rate are Caffe's."""
        same = self.rate[0] == self.rate[1]
        return same and self.loss_error <= LOSS_LIMIT and self.weight_error <= WEIGHT_LIMIT


def replay(folder: Path, device: str = "cpu") -> list[Step]:
    """Do a recorded run's updates again, on a device, and compare after each.

    Raises
    ------
    UsageError
        A file is missing, or the device.
    FormatError
        A solver of another kind, or a setting that is not known or missing.

    """
    place = device_called(device)
    settings = read_solver(folder / "solver.prototxt")
    recorded = dict(np.load(_there(folder / "golden.npz")))
    with h5py.File(_there(folder / "data.h5")) as file:
        samples = {name: torch.from_numpy(np.asarray(file[name])).to(place) for name in file}
    shapes = {name: (1, *data.shape[1:]) for name, data in samples.items()}
    net = load_caffe(
        _there(folder / settings["net"]), _there(folder / "init.caffemodel"), "TRAIN", shapes=shapes
    )
    with plain_float32():
        return list(_steps(net.to(place), settings, recorded, samples))


def _steps(
    net: Graph, settings: Mapping[str, Any], recorded: dict[str, Any], samples: dict[str, Tensor]
) -> Iterator[Step]:
    solver = CaffeSGD(
        _groups(net, settings["weight_decay"]), settings["base_lr"], settings["momentum"]
    )
    way = Schedule(
        settings["lr_policy"], settings["base_lr"], settings.get("max_iter", 1),
        settings.get("power", 1.0), settings.get("stepsize", 1), settings.get("gamma", 1.0),
    )  # fmt: skip
    names = [str(one) for one in recorded["loss_names"]]
    size = settings.get("iter_size", 1)
    for number in range(len(recorded["lr"])):
        now = rate(way, number)
        for group in solver.param_groups:
            group["lr"] = float(np.float32(now) * np.float32(group["factor"]))
        losses: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for part in range(size):
            at = number * size + part
            inputs = {name: data[at : at + 1] for name, data in samples.items()}
            found = net(inputs, names)
            total = torch.stack([found[name] for name in names]).sum() / size
            total.backward()
            for column, name in enumerate(names):
                theirs = float(recorded["loss"][number, part, column])
                losses[name].append((float(found[name].detach()), theirs))
        solver.step()
        solver.zero_grad()
        told = {name: tuple(pairs) for name, pairs in losses.items()}
        layers = tuple(_compared(net, recorded, number + 1))
        yield Step(number + 1, (now, float(recorded["lr"][number])), told, layers)


def _groups(net: Graph, weight_decay: float) -> list[dict[str, Any]]:
    """Return a group for each weight, by its layer's lr_mult and decay_mult."""
    groups = []
    seen: set[int] = set()
    for step in net.steps:
        specs = step.layer.params.param
        for index, weight in enumerate(step.parameters(recurse=False)):
            spec = specs[index] if index < len(specs) else None
            factor, decay = (spec.lr_mult, spec.decay_mult) if spec else (1.0, 1.0)
            if factor and id(weight) not in seen:  # Branches share weights.
                groups.append(
                    {"params": [weight], "factor": factor, "weight_decay": weight_decay * decay}
                )
            seen.add(id(weight))
    return groups


def _compared(net: Graph, recorded: Mapping[str, Any], number: int) -> Iterator[Layer]:
    """Compare every recorded blob but BatchNorm's statistics, which nothing trains."""
    for step in net.steps:
        for index, weight in enumerate(step.parameters(recurse=False)):
            blob = f"{step.layer.name}/{index}"
            if f"w{number}/{blob}" not in recorded:
                continue
            theirs = recorded[f"w{number}/{blob}"].astype(np.float64)
            ours = weight.detach().double().cpu().numpy().reshape(theirs.shape)
            norm = max(float(np.linalg.norm(theirs)), 1e-12)
            yield Layer(
                blob,
                float(np.linalg.norm(ours - theirs)) / norm,
                float(np.linalg.norm(theirs - recorded[f"w0/{blob}"])) / norm,
            )


_KNOWN = {
    "net": str, "lr_policy": str, "type": str, "solver_mode": str, "snapshot_prefix": str,
    "base_lr": float, "power": float, "momentum": float, "weight_decay": float, "gamma": float,
    "iter_size": int, "max_iter": int, "stepsize": int, "display": int, "average_loss": int,
    "snapshot": int, "random_seed": int, "snapshot_after_train": str,
}  # fmt: skip
_LINE = re.compile(r'\s*(\w+)\s*:\s*"?([^"#\s]*)"?\s*(?:#.*)?')


def read_solver(path: Path) -> dict[str, Any]:
    """Read a solver's text; raise `FormatError` for what is not known or not SGD."""
    settings: dict[str, Any] = {"momentum": 0.0, "weight_decay": 0.0}
    for number, line in enumerate(_there(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.partition("#")[0].strip():
            continue
        found = _LINE.fullmatch(line)
        try:
            if found is None or found[1] not in _KNOWN:
                raise ValueError
            settings[found[1]] = _KNOWN[found[1]](found[2])
        except ValueError:
            raise FormatError(
                f"{path}:{number}: {line.strip()!r}, expected a solver's setting."
            ) from None
    if settings.get("type", "SGD") != "SGD":
        raise FormatError(f"{path}: solver {settings['type']}, expected SGD.")
    if missing := [one for one in ("net", "lr_policy", "base_lr") if one not in settings]:
        raise FormatError(f"{path}: says no {', '.join(missing)}, which a solver needs.")
    return settings


def _there(path: Path) -> Path:
    if not path.is_file():
        raise UsageError(f"{path}: no such file; `deeplab-zoo parity --solver` needs it.")
    return path


def write_report(steps: list[Step], source: Path, folder: Path) -> None:
    """Write ``solver.json`` and ``solver.md``: each update, each blob."""
    limits = {"loss": LOSS_LIMIT, "weight": WEIGHT_LIMIT}
    fields = {
        "format": "deeplab-zoo solver report",
        "version": 1,
        "source": str(source),
        "passed": all(one.passed for one in steps),
        "limits": limits,
        "steps": [asdict(one) | {"passed": one.passed} for one in steps],
    }
    lines = [
        f"# {source.name}: {len(steps)} updates of the Caffe solver",
        "",
        "| update | rate | losses differ by | weights differ by | the worst blob | passed |",
        "|---|---|---|---|---|---|",
    ]
    for one in steps:
        worst = max(one.layers, key=lambda layer: (math.isnan(layer.distance), layer.distance))
        lines.append(
            f"| {one.number} | {one.rate[0]:.6g} | {one.loss_error:.1e} | {one.weight_error:.1e} | "
            f"{worst.blob} | {'yes' if one.passed else '**no**'} |"
        )
    lines += ["", "| blob | " + " | ".join(f"after {one.number}" for one in steps) + " | moved |"]
    lines.append("|---" * (len(steps) + 2) + "|")
    for rows in zip(*(one.layers for one in steps), strict=True):
        cells = " | ".join(f"{one.distance:.1e}" for one in rows)
        lines.append(f"| {rows[0].blob} | {cells} | {rows[-1].moved:.1e} |")
    for name, text in (
        ("solver.json", dumps(fields) + "\n"),
        ("solver.md", "\n".join(lines) + "\n"),
    ):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

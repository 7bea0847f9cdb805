"""Steps that the real Caffe solver did, done again: a folder enters, differences leave.

The folder holds ``solver.prototxt``, its net, ``init.caffemodel``, ``data.h5`` (the samples,
in order, under the names of the net's inputs) and ``golden.npz``: ``lr`` (steps,), ``loss``
(steps, iter_size, losses) before each update, ``loss_names``, and the weights
``wN/LAYER/BLOB`` after N updates, from 0 on, all or some of the net's. It is run by the
generic graph and `CaffeSGD`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...converters.files import write_text
from ...converters.graph.build import load_caffe
from ...converters.graph.engine import Graph
from ...proto.errors import FormatError, UsageError, listing
from ...proto.hdf5 import floats, opened
from ...proto.source import read_text
from ..devices import device_called, plain_float32
from ..markdown import row, text
from ..parity.recorded import read_npz
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
    """One update: the rates, the losses before it, every recorded blob after it.

    ``trained`` is how many blobs the solver changes, whether they are recorded or not.
    """

    number: int
    rate: tuple[float, float]
    losses: Mapping[str, tuple[tuple[float, float], ...]]
    layers: tuple[Layer, ...]
    trained: int = 0

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
        A solver of another kind, a setting that is not known or missing, or files that are
        damaged or lack something of the run.

    """
    place = device_called(device)
    settings = read_solver(folder / "solver.prototxt")
    recorded: dict[str, Any] = read_npz(_there(folder / "golden.npz"))
    with opened(_there(folder / "data.h5"), "samples (.h5)") as file:
        samples = {name: torch.from_numpy(floats(file, name)).float().to(place) for name in file}
    shapes = {name: (1, *data.shape[1:]) for name, data in samples.items()}
    net = load_caffe(
        _there(folder / settings["net"]), _there(folder / "init.caffemodel"), "TRAIN", shapes=shapes
    )
    _check_recorded(folder, net, settings, recorded, samples)
    with plain_float32():
        return list(_steps(net.to(place), settings, recorded, samples))


def _check_recorded(
    folder: Path,
    net: Graph,
    settings: Mapping[str, Any],
    recorded: Mapping[str, Any],
    samples: Mapping[str, Tensor],
) -> None:
    """Raise `FormatError` for all that a run's files lack to be compared with."""
    if missing := [name for name in ("lr", "loss", "loss_names") if name not in recorded]:
        raise FormatError(f"{folder / 'golden.npz'}: holds no {', '.join(missing)}.")
    updates, parts = len(recorded["lr"]), settings.get("iter_size", 1)
    losses = updates, parts, len(recorded["loss_names"])
    problems = [] if min(losses) > 0 else ["no update or no loss to compare"]
    if recorded["loss"].shape != losses:
        problems.append(f"loss has shape {list(recorded['loss'].shape)}, expected {list(losses)}")
    problems += [
        f"{len(samples.get(name, ()))} samples of {name!r}, expected {updates * parts}"
        for name in net.inputs
        if len(samples.get(name, ())) < updates * parts
    ]
    known = {blob: weight for blob, weight in _weights(net) if f"w0/{blob}" in recorded}
    if not known:
        problems.append("no weights before the first update, w0/LAYER/BLOB")
    for number in range(updates + 1):
        for blob, weight in known.items():
            found = recorded.get(f"w{number}/{blob}")
            if found is None:
                problems.append(f"w{number}/{blob} is missing")
            elif found.size != weight.numel():
                problems.append(f"w{number}/{blob} has shape {list(found.shape)}")
    layers = {step.layer.name for step in net.steps}
    for key in recorded:
        one = re.fullmatch(r"w\d+/((.*)/\d+)", key)
        if one and one[2] not in layers:
            problems.append(f"{key} is of no layer of the net")
        elif one and f"w0/{one[1]}" not in recorded:
            problems.append(f"{key} is there, w0/{one[1]} is not")
    if problems:
        raise FormatError(f"{folder}: cannot be replayed:\n{listing(problems)}")


def _steps(
    net: Graph, settings: Mapping[str, Any], recorded: dict[str, Any], samples: dict[str, Tensor]
) -> Iterator[Step]:
    solver = CaffeSGD(
        _groups(net, settings["weight_decay"]), settings["base_lr"], settings["momentum"]
    )
    way = Schedule(
        POLICIES[settings["lr_policy"]], settings["base_lr"], settings.get("max_iter", 1),
        settings.get("power", 1.0), settings.get("stepsize", 1), settings.get("gamma", 1.0),
    )  # fmt: skip
    names = [str(one) for one in recorded["loss_names"]]
    size = settings.get("iter_size", 1)
    for number in range(len(recorded["lr"])):
        now = float(np.float32(rate(way, number)))
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
        rates = now, float(recorded["lr"][number])
        yield Step(number + 1, rates, told, layers, len(solver.param_groups))


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
    for blob, weight in _weights(net):
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


def _weights(net: Graph) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every parameter with Caffe's name for it, layer and index; shared ones with each."""
    for step in net.steps:
        for index, weight in enumerate(step.parameters(recurse=False)):
            yield f"{step.layer.name}/{index}", weight


_KNOWN = {
    "net": str, "lr_policy": str, "type": str, "solver_mode": str, "snapshot_prefix": str,
    "base_lr": float, "power": float, "momentum": float, "weight_decay": float, "gamma": float,
    "iter_size": int, "max_iter": int, "stepsize": int, "display": int, "average_loss": int,
    "snapshot": int, "random_seed": int, "snapshot_after_train": str,
}  # fmt: skip
_LINE = re.compile(r"""\s*(\w+)\s*:\s*(?:"([^"]*)"|'([^']*)'|([^"'#\s]+))\s*(?:#.*)?""")
POLICIES = {"fixed": "constant", "poly": "poly", "step": "step"}  # Caffe's names for ours.


def read_solver(path: Path) -> dict[str, Any]:
    """Read a solver's text; raise `FormatError` for what is not known or not SGD."""
    settings: dict[str, Any] = {"momentum": 0.0, "weight_decay": 0.0}
    for number, line in enumerate(read_text(_there(path), "a solver (text)").splitlines(), 1):
        if not line.partition("#")[0].strip():
            continue
        found = _LINE.fullmatch(line)
        try:
            if found is None or found[1] not in _KNOWN:
                raise ValueError
            settings[found[1]] = _KNOWN[found[1]](found[2] or found[3] or found[4])
        except ValueError:
            raise FormatError(
                f"{path}:{number}: {line.strip()!r}, expected a solver's setting."
            ) from None
    if settings.get("type", "SGD") != "SGD":
        raise FormatError(f"{path}: solver {settings['type']}, expected SGD.")
    if missing := [one for one in ("net", "lr_policy", "base_lr") if one not in settings]:
        raise FormatError(f"{path}: says no {', '.join(missing)}, which a solver needs.")
    if settings["lr_policy"] not in POLICIES:
        raise FormatError(
            f"{path}: lr_policy {settings['lr_policy']!r}, expected one of {', '.join(POLICIES)}."
        )
    for name in ("iter_size", "max_iter", "stepsize"):
        if settings.get(name, 1) < 1:
            raise FormatError(f"{path}: {name} {settings[name]}, expected 1 or more.")
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
        f"# {text(source.name)}: {len(steps)} updates of the Caffe solver",
        "",
        f"Blobs compared: {len(steps[0].layers)}; the solver trains {steps[0].trained}.",
        "",
        "| update | rate | losses differ by | weights differ by | the worst blob | passed |",
        "|---|---|---|---|---|---|",
    ]
    for one in steps:
        worst = max(one.layers, key=lambda layer: (math.isnan(layer.distance), layer.distance))
        lines.append(
            f"| {one.number} | {one.rate[0]:.6g} | {one.loss_error:.1e} | {one.weight_error:.1e} | "
            f"{text(worst.blob)} | {'yes' if one.passed else '**no**'} |"
        )
    lines += ["", "| blob | " + " | ".join(f"after {one.number}" for one in steps) + " | moved |"]
    lines.append("|---" * (len(steps) + 2) + "|")
    for rows in zip(*(one.layers for one in steps), strict=True):
        cells = (f"{one.distance:.1e}" for one in rows)
        lines.append(row(rows[0].blob, *cells, f"{rows[-1].moved:.1e}"))
    write_text(folder / "solver.json", dumps(fields) + "\n")
    write_text(folder / "solver.md", "\n".join(lines) + "\n")

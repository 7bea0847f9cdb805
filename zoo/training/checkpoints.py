"""Checkpoints: what a run needs to go on, on the disk whole or not at all.

A checkpoint is two files in the run's folder, ``step-00001000.safetensors``, weights that
`deeplab_zoo.load` loads, and ``step-00001000.pt``, the solver's state. The second is written
last: a checkpoint without it does not exist. Data order and random numbers are functions of
the step and need no place here.
"""

import errno
import fcntl
import io
import os
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ...converters import weights as weights_file
from ...converters.files import replacing
from ...converters.weights import Weights
from ...proto.errors import FormatError, MismatchError, UsageError, ZooError, listing

VERSION = 1
_NAME = re.compile(r"step-(\d{8})\.pt")
_HALF = re.compile(r"\.(step-\d{8}|model|best)\.(pt|safetensors)\.\w+\.part")  # Of `replacing`.

# What torch raises for files that are damaged, or another program's.
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError,
               OSError)  # fmt: skip

State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Saved:
    """A run between two updates.

    Attributes
    ----------
    step
        Updates done.
    model
        Weights and statistics by canonical name.
    solver
        What the optimizer's ``state_dict`` says.
    mean
        The running mean of the weights, which is what the weights file then holds.
    best
        The best mIoU so far; less than 0 for none.
    config
        As YAML.
    precision
        The loss scaler's state, of fp16.
    numerics
        Name of the profile that the weights file records; none before it is written.

    """

    step: int
    model: State
    solver: dict[str, Any]
    config: str
    mean: State = field(default_factory=dict)
    best: float = -1.0
    precision: dict[str, Any] = field(default_factory=dict)
    numerics: str = ""


def write_weights(like: Weights, state: State, path: Path) -> None:
    """Write a model's state as a weights file, with the config and origin of another.

    Raises
    ------
    ZooError
        Weights are not finite numbers, from which nothing could go on; nothing is written.

    """
    arrays = {
        name: np.ascontiguousarray(one.detach().float().cpu().numpy()) for name, one in _kept(state)
    }
    if bad := [name for name, one in arrays.items() if not np.isfinite(one).all()]:
        raise ZooError(
            f"{path}: not written, for {len(bad)} of {len(arrays)} tensors hold what is no finite "
            f"number:\n{listing(bad, 5)}\nFiles written before are untouched. Lower the rate "
            "(--lr), or clip the gradients (--clip 1)."
        )
    made = Weights(arrays, like.config, like.numerics, like.origin)
    weights_file.write(made, path)


def save(folder: Path, saved: Saved, like: Weights, keep: int = 0) -> Path:
    """Write a checkpoint, then remove all but the newest ``keep`` (0: none is removed).

    Raises
    ------
    StorageError
        The disk does not let us; the checkpoints before are untouched.

    """
    stem = folder / f"step-{saved.step:08d}"
    write_weights(like, saved.mean or saved.model, stem.with_suffix(".safetensors"))
    content = {
        "version": VERSION,
        "step": saved.step,
        "solver": saved.solver,
        "best": saved.best,
        "config": saved.config,
        "precision": saved.precision,
        # The weights file has the mean where there is one.
        "model": dict(saved.model) if saved.mean else {},
    }
    # Not straight into the file: torch's own writer does not say why a disk refuses.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        with replacing(stem.with_suffix(".pt"), buffer.tell()) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    except ZooError:
        if saved.step not in steps(folder):
            remove(folder, saved.step)
        raise
    if keep:
        for old in steps(folder)[:-keep]:
            remove(folder, old)
    return stem.with_suffix(".pt")


def remove(folder: Path, step: int) -> None:
    """Remove a checkpoint; it ceases to exist first."""
    for suffix in (".pt", ".safetensors"):
        (folder / f"step-{step:08d}{suffix}").unlink(missing_ok=True)


def steps(folder: Path) -> list[int]:
    """Return the steps that a folder has checkpoints of, in order."""
    found = (_NAME.fullmatch(one.name) for one in folder.glob("step-*.pt"))
    return sorted(int(one[1]) for one in found if one)


def read(path: Path) -> Saved:
    """Read a checkpoint by its ``.pt``.

    Raises
    ------
    UsageError
        There is no such file.
    FormatError
        It is damaged, or no checkpoint of ours.

    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file, expected a checkpoint's .pt (--resume auto|FILE).")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        if content["version"] != VERSION:
            raise FormatError(
                f"{path}: version {content['version']}, expected {VERSION}. Is it from a newer "
                "deeplab-zoo?"
            )
        held = weights_file.read(path.with_suffix(".safetensors"))
        state = {name: torch.from_numpy(np.array(one)) for name, one in held.state.items()}
        model = content["model"]
        return Saved(
            content["step"], model or state, content["solver"], content["config"],
            state if model else {}, content["best"], content["precision"], held.numerics.name,
        )  # fmt: skip
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FormatError(
            f"{path}: cannot be read as a checkpoint ({reason}). Is it whole, and a run's own?"
        ) from None


_locks: set[IO[str]] = set()
# A process that decodes has its parent's files, and would hold the lock of one that was killed.
os.register_at_fork(after_in_child=lambda: [one.close() for one in _locks])


def demand_same_net(saved: Saved, start: Weights) -> None:
    """Raise `MismatchError` if a checkpoint is of another net than the weights to begin with."""
    if saved.numerics != start.numerics.name:
        raise MismatchError(
            f"the weights: run under {start.numerics.name}, the checkpoint's under "
            f"{saved.numerics}. Say the --numerics that the run began with."
        )
    held = {name: tuple(one.shape) for name, one in _kept(saved.model)}
    if held != {name: one.shape for name, one in start.state.items()}:
        raise MismatchError(
            "the weights: of another net than the checkpoint's. Name those that the run began with."
        )


def _kept(state: State) -> Iterator[tuple[str, Tensor]]:
    """Yield what a weights file has of a module's state."""
    return ((name, one) for name, one in state.items() if not name.endswith("num_batches_tracked"))


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold a run's folder, so that no second run writes into it; raise `UsageError` if held.

    On a file system without locks, as some of clusters', it is not held. What a run that was
    killed had half written is removed.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{folder}: another run is writing into it. Wait for it, or name another folder."
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
        for one in folder.glob(".*.part"):
            if _HALF.match(one.name):
                one.unlink(missing_ok=True)
        _locks.add(file)
        try:
            yield
        finally:
            _locks.discard(file)

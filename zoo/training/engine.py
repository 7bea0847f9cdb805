"""Where a run computes: this process and one device, or Lightning Fabric's many.

`Solo` has the part of Fabric's interface that the loop uses, so that there is one loop, and a
run that needs no more than one device in float32 does not wait seconds for Lightning's import.
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...proto.errors import MissingDependencyError, UsageError, listing
from .config import TrainConfig
from .sharding import shard

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


class Engine(Protocol):
    """What the loop asks of Fabric."""

    device: torch.device
    global_rank: int
    world_size: int

    def setup_module(self, module: nn.Module) -> Any:
        """Move a module to the device, wrapped for several processes."""

    def setup_optimizers(self, optimizer: Optimizer) -> Any:
        """Return an optimizer of such a module's parameters, wrapped too."""

    def backward(self, tensor: Tensor) -> None:
        """Add the gradients of a loss."""

    def no_backward_sync(
        self, module: nn.Module, enabled: bool = True
    ) -> AbstractContextManager[None]:
        """Keep gradients to this process for a while."""

    def clip_gradients(
        self, module: nn.Module, optimizer: Optimizer, *, max_norm: float, error_if_nonfinite: bool
    ) -> Any:
        """Scale the gradients down to a norm."""

    def all_reduce(self, data: Tensor, reduce_op: str = "mean") -> Any:
        """Return the mean or the sum of a tensor over the processes."""

    def broadcast(self, obj: Any) -> Any:
        """Return the first process's object."""

    def barrier(self) -> None:
        """Wait for all processes."""


class Solo:
    """One process, one device, float32."""

    global_rank = 0
    world_size = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def setup_module(self, module: nn.Module) -> nn.Module:
        """Move a module to the device."""
        return module.to(self.device)

    def setup_optimizers(self, optimizer: Optimizer) -> Optimizer:
        """Return the optimizer."""
        return optimizer

    def backward(self, tensor: Tensor) -> None:
        """Add the gradients of a loss."""
        tensor.backward()  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def no_backward_sync(self, module: nn.Module, enabled: bool = True) -> Iterator[None]:  # noqa: ARG002
        """Do nothing: there is no one to wait for."""
        yield

    def clip_gradients(
        self,
        module: nn.Module,
        optimizer: Optimizer,  # noqa: ARG002
        *,
        max_norm: float,
        error_if_nonfinite: bool,
    ) -> Any:
        """Scale the gradients down to a norm."""
        return nn.utils.clip_grad_norm_(
            module.parameters(), max_norm, error_if_nonfinite=error_if_nonfinite
        )

    def all_reduce(self, data: Tensor, reduce_op: str = "mean") -> Tensor:  # noqa: ARG002
        """Return the tensor: it is all there is."""
        return data

    def broadcast(self, obj: Any) -> Any:
        """Return the object."""
        return obj

    def barrier(self) -> None:
        """Wait for no one."""


def make_engine(config: TrainConfig) -> Engine:
    """Return the engine that a config needs; of several processes, start the others.

    Raises
    ------
    UsageError
        A device that is not there, or settings that it cannot do.
    MissingDependencyError
        Lightning is needed and not installed.

    """
    kind = config.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    _demand_possible(config, kind)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    if config.devices * config.nodes == 1 and config.precision == "32":
        return Solo(torch.device(kind))
    return _fabric(config, kind)


def _demand_possible(config: TrainConfig, kind: str) -> None:
    """Raise `UsageError` with everything that this machine, or a strategy, cannot do."""
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"device {kind!r}: expected auto, cpu or cuda.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda: this machine, or this torch, has none. Say --device cpu.")
    count = config.devices * config.nodes
    started = int(os.environ.get("WORLD_SIZE", "1"))  # By torchrun, or by Fabric before.
    cpu, spread = kind == "cpu", count > 1 and config.strategy == "fsdp"
    problems = {
        f"devices: {config.devices}, this machine has {torch.cuda.device_count()}": (
            not cpu and config.devices > torch.cuda.device_count()
        ),
        f"devices x nodes: {config.devices} x {config.nodes}, but torchrun started {started} "
        "processes; say --devices (on each machine) and --nodes as torchrun was told": (
            started not in (1, count)
        ),
        "batch_norm sync: torch has it on GPUs only; say --batch-norm trained": (
            cpu and count > 1 and config.batch_norm == "sync"
        ),
        "precision fp16: on the CPU expected 32 or bf16": cpu and config.precision == "fp16",
        "precision fp16: with strategy fsdp expected 32 or bf16": (
            spread and config.precision == "fp16"
        ),
        "compile: does not go with strategy fsdp; say --strategy ddp": spread and config.compile,
    }
    if found := [text for text, holds in problems.items() if holds]:
        raise UsageError(f"this run cannot be done here:\n{listing(found)}")


def _fabric(config: TrainConfig, kind: str) -> Engine:
    """Return Lightning Fabric, once all its processes are there."""
    try:
        from lightning.fabric import Fabric
        from lightning.fabric.strategies.model_parallel import ModelParallelStrategy
    except ImportError:
        raise MissingDependencyError(
            "several devices, nodes and half precision need Lightning: "
            "pip install 'deeplab-zoo[train]'."
        ) from None
    count = config.devices * config.nodes
    strategy: Any = "ddp" if count > 1 else "auto"
    if count > 1 and config.strategy == "fsdp":
        # Fabric's own "fsdp" is torch's older one, which refuses the CPU.
        strategy = ModelParallelStrategy(cast(Any, shard), count, tensor_parallel_size=1)
    fabric = Fabric(
        accelerator=kind,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=strategy,
        precision=cast(Any, PRECISIONS[config.precision]),
    )
    fabric.launch()
    return cast(Engine, fabric)


def precision_state(engine: Engine, state: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the loss scaler's state (fp16), or give it one; others have none."""
    if isinstance(engine, Solo):
        return {}
    precision = cast(Any, engine).strategy.precision
    if state:
        precision.load_state_dict(state)
    return dict(precision.state_dict())

"""A model whose weights are spread over the processes (FSDP), and made whole again for files.

Each process keeps a part of every weight, gradient and momentum; a block's weights come
together while it computes. What is saved is whole, as of a run on one device.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from ..models.deeplab_v2 import Bottleneck
from ..models.deeplab_v3 import DeepLabV3
from ..models.largefov import LargeFOV
from ..models.load import Native
from ..models.units import Residual

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def blocks(model: Native) -> Iterator[nn.Module]:
    """Yield the parts that are spread, or recomputed to save memory, one by one."""
    if isinstance(model, LargeFOV):
        return  # A VGG's stages are few and not worth it.
    for stage in model.backbone.children():
        found = list(stage.children())
        if found and isinstance(found[0], Bottleneck | Residual):
            yield from found
        elif isinstance(model, DeepLabV3):
            yield stage


def shard(model: Native, mesh: "DeviceMesh") -> nn.Module:
    """Spread a model's weights, each block's for itself; its parameters become others."""
    from torch.distributed.fsdp import fully_shard  # Late: a second and a half.

    flat = mesh["data_parallel"]
    for block in blocks(model):
        fully_shard(block, mesh=flat)
    fully_shard(model, mesh=flat)
    return model


def whole(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with its weights whole; all processes take part."""
    return {name: _whole(one) for name, one in state.items()}


def solver_state(solver: Optimizer) -> dict[str, Any]:
    """Return a solver's state with its momenta whole; all processes take part."""
    found = solver.state_dict()
    held = {
        number: {name: _whole(one) for name, one in of.items()}
        for number, of in found["state"].items()
    }
    return {**found, "state": held}


def restore_solver(solver: Optimizer, saved: Mapping[str, Any]) -> None:
    """Give a solver the state that `solver_state` returned, each process its part."""
    weights = [one for group in solver.param_groups for one in group["params"]]
    held = {
        number: {name: part(one, weights[number]) for name, one in of.items()}
        for number, of in saved["state"].items()
    }
    solver.load_state_dict({**saved, "state": held})


def part(one: Any, like: Any) -> Any:
    """Return this process's part of a whole tensor, spread as another of its shape is."""
    if not _spread(like) or one.shape != like.shape:
        return one  # Nothing is spread, or a count of updates.
    from torch.distributed.tensor import distribute_tensor

    on_device = one.to(like.device)
    return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)


def local(state: Mapping[str, Tensor]) -> list[Tensor]:
    """Return what this process holds of a state, sharing its memory."""
    return [cast(Any, one).to_local() if _spread(one) else one for one in state.values()]


def _spread(one: object) -> bool:
    return hasattr(one, "full_tensor")  # A DTensor, without importing it.


def _whole(one: Any) -> Any:
    return one.full_tensor() if _spread(one) else one

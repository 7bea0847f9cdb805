"""A pretended device: tensors say that they are elsewhere, and are computed on the CPU.

What runs there must not mix its tensors with the CPU's, has the CPU's values to the bit, and the
mode counts what a GPU would make the program wait for. It is called ``meta``, the one device
besides the CPU on which autograd works without hardware.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE = torch.device("meta")
_OPS: Any = torch.ops.aten
_MOVES = (_OPS._to_copy.default, _OPS.copy_.default)
_INDEXING = (_OPS.index.Tensor, _OPS.index_put.default, _OPS.index_put_.default)
_WAITING = {
    _OPS._local_scalar_dense.default: "scalar",
    _OPS.nonzero.default: "nonzero",
    _OPS.masked_select.default: "nonzero",
    _OPS._unique2.default: "unique",
    _OPS.bincount.default: "bincount",
    _OPS.equal.default: "scalar",
}


class Elsewhere(Tensor):
    """A tensor of the pretended device; what it holds is on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Elsewhere":
        made: Any = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=ELSEWHERE,
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, _: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Compute what is asked for outside of the mode, as gradients of another thread."""
        return _run(function, args, kwargs or {}, Counter())


class Pretending(TorchDispatchMode):
    """Tensors can be moved to the pretended device; ``waits`` counts what waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, _: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Compute on the CPU, and say where the result is."""
        return _run(function, args, kwargs or {}, self.waits)


def _run(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], waits: Counter[str]) -> Any:
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    away = [one for one in given if isinstance(one, Elsewhere)]
    device = kwargs.get("device")
    target = torch.device(device) if device is not None else None
    if away and function not in _MOVES:
        here = [one for one in given if not isinstance(one, Elsewhere) and one.dim()]
        assert not here, f"{function}: of tensors elsewhere and of {here[0].shape} on the CPU"
    if function is _OPS.copy_.default:
        stays = isinstance(args[0], Elsewhere)
    else:
        stays = bool(away) if target is None else target == ELSEWHERE
    if away:
        if function in _WAITING:
            waits[_WAITING[function]] += 1
        if function in _INDEXING and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        ):
            waits["nonzero"] += 1
        if function in _MOVES and not stays:
            waits["copy"] += 1
    settings = {**kwargs, "device": torch.device("cpu")} if target is not None else kwargs
    held = tree_map(lambda one: one.held if isinstance(one, Elsewhere) else one, (args, settings))
    result = function(*held[0], **held[1])
    known = {id(one.held): one for one in away}  # What is changed in place stays the same tensor.

    def placed(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        return known.get(id(one), Elsewhere(one) if stays else one)

    return tree_map(placed, result)


def sent(module: nn.Module) -> nn.Module:
    """Put a module's parameters and buffers on the pretended device."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            data = Elsewhere(parameter.detach().clone())
            part._parameters[name] = nn.Parameter(data, parameter.requires_grad)
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = Elsewhere(buffer.clone())
    return module


@contextmanager
def pretending(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretending]:
    """Pretend; what torch does otherwise for ``meta``, or for subclasses, is as for any device."""
    tensor = torch.tensor
    tolist = Tensor.tolist
    autocast = torch.autocast

    def new(data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
        made = tensor(data, dtype=dtype)  # Of numbers for ``meta`` torch makes a tensor without.
        return made if device is None else made.to(device)

    with monkeypatch.context() as patch, Pretending() as mode:
        patch.setattr(torch, "tensor", new)
        patch.setattr(
            Tensor, "new_tensor",
            lambda self, data, *, dtype=None, device=None: new(
                data, dtype=dtype or self.dtype, device=device or self.device
            ),
        )  # fmt: skip
        patch.setattr(Tensor, "tolist", lambda self: tolist(self.cpu()))
        patch.setattr(
            torch,
            "autocast",
            lambda kind, **rest: autocast("cpu" if kind == "meta" else kind, **rest),
        )
        patch.setattr(torch, "inference_mode", torch.no_grad)  # It takes no subclasses.
        yield mode

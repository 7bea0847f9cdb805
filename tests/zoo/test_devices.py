"""Devices by name, and float32 that is not rounded."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from deeplab_zoo.proto.errors import UsageError
from deeplab_zoo.zoo.devices import device_called, plain_float32
from deeplab_zoo.zoo.models.inference import scoring

BACKENDS: Any = torch.backends
SWITCHES = (BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn, BACKENDS.mkldnn.matmul,
            BACKENDS.mkldnn.conv)  # fmt: skip


def state() -> list[object]:
    """All switches, the older ones too; None is one that raises."""

    def read(switch: Callable[[], object]) -> object:
        try:
            return switch()
        except RuntimeError:
            return None

    older = (
        torch.get_float32_matmul_precision,
        lambda: BACKENDS.cuda.matmul.allow_tf32,
        lambda: BACKENDS.cudnn.allow_tf32,
    )
    return [one.fp32_precision for one in SWITCHES] + [read(one) for one in older]


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    """Put the switches back: they are the process's."""
    before = [one.fp32_precision for one in SWITCHES]
    yield
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32 = True
    for one, value in zip(SWITCHES, before, strict=True):
        one.fp32_precision = value


def older() -> None:
    torch.set_float32_matmul_precision("medium")


def newer() -> None:
    BACKENDS.cuda.matmul.fp32_precision = "tf32"
    BACKENDS.cudnn.conv.fp32_precision = "ieee"  # The rnn's stays: the older one then raises.
    BACKENDS.mkldnn.conv.fp32_precision = "bf16"


@pytest.mark.parametrize("chosen", [lambda: None, older, newer], ids=["default", "older", "newer"])
def test_float32_is_not_rounded_whichever_switches_a_caller_has_moved(
    chosen: Callable[[], None],
) -> None:
    chosen()
    before = state()
    with plain_float32():
        assert state() == ["ieee"] * 5 + ["highest", False, False]
    assert state() == before


def test_a_model_is_scored_in_float32() -> None:
    older()
    with scoring(torch.nn.Conv2d(3, 2, 1)):  # type: ignore[arg-type]
        assert state()[:5] == ["ieee"] * 5


def test_the_processor_is_there() -> None:
    assert device_called("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["meta", "hpu", "vulkan", "tpu", "cpu:x", ""])
def test_what_cannot_compute_here_is_refused_in_one_line(name: str) -> None:
    wanted = f"device '{name}' cannot be used: .*Expected auto, cpu"
    with pytest.raises(UsageError, match=wanted) as caught:
        device_called(name)
    assert len(str(caught.value)) < 300

"""Devices by name, and float32 as it is."""

import pytest
import torch

from deeplab_zoo.proto.errors import UsageError
from deeplab_zoo.zoo.devices import device_called, plain_float32


@pytest.mark.parametrize("name", ["meta", "hpu", "vulkan", "tpu", "cpu:x", ""])
def test_what_cannot_compute_here_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be used: .*Expected auto, cpu") as caught:
        device_called(name)
    assert len(str(caught.value)) < 300


def test_the_processor_is_there() -> None:
    assert device_called("cpu") == torch.device("cpu")


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_precision_of_products_is_put_back(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with plain_float32():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)

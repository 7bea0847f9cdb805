"""Softmax over short rows."""

import numpy as np
import pytest
import torch

from deeplab_zoo.zoo.crf.softmax import softmax_rows


@pytest.mark.parametrize("classes", [1, 2, 21, 64])
def test_rows_get_torchs_softmax_also_of_energies_whose_exp_overflows(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    energies = 300 * torch.randn(37, classes, generator=generator)
    expected = energies.double().softmax(1)
    result = np.empty((37, classes), np.float32)
    softmax_rows(energies, result)
    torch.testing.assert_close(torch.from_numpy(result).double(), expected, rtol=1e-5, atol=1e-30)

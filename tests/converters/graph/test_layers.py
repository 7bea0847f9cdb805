"""Layers that no golden case has compute their formulas."""

import numpy as np
import pytest
import torch

from .texts import given_input, one, run

X = np.random.default_rng(0).normal(0, 2, (2, 3, 4, 5))


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("BNLL", "", np.log1p(np.exp(X))),
        ("Threshold", "threshold_param { threshold: 0.5 }", X > 0.5),
        ("Log", "log_param { base: 2 scale: 0.1 shift: 3 }", np.log2(0.1 * X + 3)),
        ("Exp", "exp_param { scale: 0.5 shift: 1 }", np.exp(0.5 * X + 1)),
        ("Power", "power_param { power: 2 scale: 3 shift: 1 }", (3 * X + 1) ** 2),
        ("Permute", "permute_param { order: 0 order: 2 }", X.transpose(0, 2, 1, 3)),
        ("Reduction", "reduction_param { operation: ASUM axis: 2 coeff: 2 }", 2 * np.abs(X).sum((2, 3))),
        ("Reduction", "reduction_param { operation: SUMSQ }", (X**2).sum()),
        ("Reduction", "reduction_param { axis: -2 }", X.sum((2, 3))),
        ("MVN", "mvn_param { normalize_variance: false }", X - X.mean((2, 3), keepdims=True)),
        ("MVN", "mvn_param { across_channels: true }", (X - X.mean((1, 2, 3), keepdims=True)) / X.std((1, 2, 3), keepdims=True)),
        ("Normalize", "norm_param { across_spatial: false }", X / np.sqrt((X**2).sum(1, keepdims=True))),
        ("Normalize", "norm_param { scale_filler { value: 20 } }", 20 * X / np.sqrt((X**2).sum((1, 2, 3), keepdims=True))),
        ("ArgMax", "argmax_param { out_max_val: true }", np.stack([X.reshape(2, -1).argmax(1), X.reshape(2, -1).max(1)], 1)[..., None, None]),
        ("Bias", "bias_param { filler { value: 2 } }", X + 2),
        ("Tile", "tile_param { axis: -1 tiles: 2 }", np.tile(X, (1, 1, 1, 2))),
    ],
)  # fmt: skip
def test_a_layer_computes_its_formula(name: str, settings: str, expected: np.ndarray) -> None:
    text = given_input(2, 3, 4, 5) + one(name, settings)
    found = run(text, data=torch.from_numpy(X).float())["out"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)  # Elementwise.


SEGNET = given_input(1, 2, 5, 6) + (
    "layer { name: 'p' type: 'Pooling' bottom: 'data' top: 'p' top: 'm'"
    " pooling_param { kernel_size: 2 stride: 2 } }"
    "layer { name: 'u' type: 'Upsample' bottom: 'p' bottom: 'm' top: 'u'"
    " upsample_param { scale: 2 pad_out_h: true } }"
)


def test_segnets_upsample_puts_maxima_back_where_they_were() -> None:
    x = torch.randn(1, 2, 5, 6)
    found = run(SEGNET, data=x)
    assert found["u"].shape == (1, 2, 5, 6)
    assert torch.equal(found["u"][found["u"] != 0], x[found["u"] != 0])
    assert torch.equal(found["u"].flatten(2).sort(2).values[..., -1], x.flatten(2).max(2).values)
    assert (found["u"] != 0).sum() == found["p"].numel()


def test_segnets_upsample_to_a_size_is_the_mask_read_row_by_row() -> None:
    text = (
        given_input(1, 1, 1, 2)
        + given_input(1, 1, 1, 2, name="mask")
        + one("Upsample", "upsample_param { upsample_h: 3 upsample_w: 4 }", "data mask")
    )
    mask = torch.tensor([[[[6.0, 11.0]]]])
    found = run(text, data=torch.tensor([[[[5.0, 7.0]]]]), mask=mask)["out"]
    assert found.tolist() == [[[[0, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 7]]]]


def test_segnets_batch_norm_scales_and_shifts_in_its_inference_mode() -> None:
    settings = (
        "bn_param { bn_mode: INFERENCE scale_filler { value: 3 } shift_filler { value: -1 } }"
    )
    x = torch.randn(2, 3, 4, 5)
    found = run(given_input(2, 3, 4, 5) + one("BN", settings), data=x)["out"]
    torch.testing.assert_close(found, x * 3 - 1)
    learning = run(given_input(2, 3, 4, 5) + one("BN"), data=x)["out"]
    assert learning.mean((0, 2, 3)).abs().max() < 1e-6


LABELS = torch.tensor([2.0, 0.0])
SCORES = torch.tensor([[0.5, -1.0, 0.25], [0.1, 0.2, -3.0]])


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("HingeLoss", "", (1.5 + 0 + 0.75 + 0.9 + 1.2 + 0) / 2),
        ("HingeLoss", "hinge_loss_param { norm: L2 }", (2.25 + 0.75**2 + 0.9**2 + 1.44) / 2),
        ("MultinomialLogisticLoss", "", -(np.log(0.25) + np.log(0.1)) / 2),
        ("Accuracy", "", 0.0),
        ("Accuracy", "accuracy_param { top_k: 2 }", 1.0),
        ("Accuracy", "accuracy_param { top_k: 2 ignore_label: 2 }", 1.0),
    ],
)
def test_a_loss_of_labels_computes_its_formula(name: str, settings: str, expected: float) -> None:
    text = given_input(2, 3) + given_input(2, name="label") + one(name, settings, "data label")
    assert run(text, data=SCORES, label=LABELS)["out"].item() == pytest.approx(expected)


def test_sigmoid_cross_entropy_is_divided_by_the_batch() -> None:
    text = (
        given_input(2, 3)
        + given_input(2, 3, name="t")
        + one("SigmoidCrossEntropyLoss", "", "data t")
    )
    target = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    x = SCORES.double().numpy()
    expected = (np.log1p(np.exp(x)) - target.numpy() * x).sum() / 2
    assert run(text, data=SCORES, t=target)["out"].item() == pytest.approx(expected)


def test_the_contrastive_loss_tells_equal_pairs_from_others() -> None:
    text = given_input(2, 3) + given_input(2, 3, name="b") + given_input(2, name="y")
    text += one("ContrastiveLoss", "contrastive_loss_param { margin: 2 }", "data b y")
    other = SCORES + torch.tensor([[1.0, 0, 0], [0, 0.5, 0]])
    found = run(text, data=SCORES, b=other, y=torch.tensor([1.0, 0.0]))["out"]
    assert found.item() == pytest.approx((1 + 1.5**2) / 4)


def test_each_class_has_its_accuracy_as_a_second_top() -> None:
    text = (
        given_input(2, 3)
        + given_input(2, name="label")
        + one("Accuracy", "", "data label", "out each")
    )
    found = run(text, data=SCORES, label=torch.tensor([0.0, 2.0]))
    assert found["out"].item() == 0.5
    assert found["each"].tolist() == [1.0, 0.0, 0.0]

"""The proximal operator: against a quadratic program, its own certificate, the original's path."""

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deeplab_zoo import LovaszHingeLoss, ZooError, lovasz_hinge, prox_lovasz_hinge
from deeplab_zoo.zoo.losses.proximal import ProximalLovaszHingeLoss, duality_gap

LOVASZ = Path(__file__).parents[2] / "golden" / "tf" / "lovasz"
CASES = json.loads((LOVASZ / "index.json").read_text())["proximal"]


def arrays(case: dict[str, Any]) -> tuple[dict[str, np.ndarray], Tensor, Tensor]:  # type: ignore[type-arg]
    data = dict(np.load(LOVASZ / f"prox_{case['case']}.npz"))
    margins = torch.from_numpy(data["margins_sorted"]).double()
    return data, margins, torch.from_numpy(data["gt_sorted"])


def objective(x: Tensor, margins: Tensor, labels: Tensor, lam: float) -> float:
    # The hinge of logits whose errors are x.
    logits = (1 - x) * (2 * labels - 1)
    return float(lovasz_hinge(logits, labels) + lam / 2 * (x - margins).square().sum())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_the_solution_is_that_of_a_quadratic_program(case: dict[str, Any]) -> None:
    data, margins, labels = arrays(case)
    x = prox_lovasz_hinge(margins, labels, case["lam"])
    # The program's own constraints hold to 4e-11 only.
    np.testing.assert_allclose(x, data["x_exact_qp"], rtol=0, atol=1e-11)
    assert duality_gap(x, margins, labels, case["lam"]) < 1e-13
    found = objective(x, margins, labels, case["lam"])
    assert found == pytest.approx(case["objective_exact"], abs=1e-8)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_the_path_is_the_originals(case: dict[str, Any]) -> None:
    data, margins, labels = arrays(case)
    limits = {"max_steps": case["max_steps"], "eps": case["eps"]}
    x = prox_lovasz_hinge(margins, labels, case["lam"], "path", **limits)
    # The original adds up its steps in float32.
    np.testing.assert_allclose(x, data["x_prox"], rtol=0, atol=5e-7)
    found = objective(x, margins, labels, case["lam"])
    assert found == pytest.approx(case["objective_at_prox"], abs=1e-6)
    gap = duality_gap(x, margins, labels, case["lam"])
    assert gap >= found - case["objective_exact"] - 1e-9  # The certificate holds for any x.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_training_takes_the_originals_step(case: dict[str, Any]) -> None:
    data, _, _ = arrays(case)
    logits = torch.from_numpy(data["logits"])[None, None].requires_grad_()
    labels = torch.from_numpy(data["labels"])[None, None]
    module = ProximalLovaszHingeLoss(case["lam"], "path", case["max_steps"])
    loss = module(logits, labels)
    loss.backward()
    np.testing.assert_allclose(loss.detach(), data["loss"], rtol=1e-6)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad[0, 0], data["grad_logits_prox"], atol=5e-7)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_certificate_proves_any_solution(data: st.DataObject) -> None:
    count, seed = data.draw(st.integers(1, 60)), data.draw(st.integers(0, 10**6))
    lam = 10.0 ** data.draw(st.integers(-3, 2))
    random = np.random.default_rng(seed)
    margins = torch.from_numpy(random.normal(size=count) * 2)
    if data.draw(st.booleans()):
        margins = margins.round(decimals=1)
    labels = torch.from_numpy((random.random(count) < random.random()).astype(int))
    x = prox_lovasz_hinge(margins, labels, lam)
    assert duality_gap(x, margins, labels, lam) < 1e-12 * (1 + lam)
    nearby = x + torch.from_numpy(random.normal(size=count) * 1e-3)
    assert objective(nearby, margins, labels, lam) > objective(x, margins, labels, lam) - 1e-12


@pytest.mark.parametrize("seed", range(2))
def test_the_certificate_bounds_the_true_distance(seed: int) -> None:
    # The minimum by brute force, on a grid of two pixels' errors.
    random = np.random.default_rng(seed)
    margins, labels, lam = torch.from_numpy(random.normal(size=2) + 1), torch.tensor([1, 0]), 0.7
    grid = np.linspace(-1, 3, 17)
    values = [
        objective(torch.tensor(pair, dtype=torch.float64), margins, labels, lam)
        for pair in product(grid, grid)
    ]
    solution = prox_lovasz_hinge(margins, labels, lam)
    assert objective(solution, margins, labels, lam) <= min(values) + 1e-12
    other = solution + 0.3
    excess = objective(other, margins, labels, lam) - objective(solution, margins, labels, lam)
    assert duality_gap(other, margins, labels, lam) >= excess - 1e-12


@pytest.mark.parametrize("lam", [1e-4, 0.5, 10.0])
def test_a_whole_image_is_solved_to_a_gap_of_a_billionth(lam: float) -> None:
    random = np.random.default_rng(0)
    labels = torch.from_numpy(random.random((321, 321)) < 0.3).long()
    margins = torch.from_numpy(1 + 2 * random.normal(size=(321, 321))) - 0.5 * labels
    x = prox_lovasz_hinge(margins, labels, lam)
    assert duality_gap(x, margins, labels, lam) < 1e-9
    order = margins.flatten().argsort()
    assert (x.flatten()[order].diff() < 0).any()  # The order changes: regression would not do.


def test_images_are_apart_and_void_errors_stay() -> None:
    random = np.random.default_rng(3)
    margins = torch.from_numpy(random.normal(size=(2, 4, 5)))
    labels = torch.from_numpy(random.integers(0, 2, (2, 4, 5)))
    labels[1, 2:] = 255
    x = prox_lovasz_hinge(margins, labels, 0.5, ignore=255)
    assert torch.equal(x[0], prox_lovasz_hinge(margins[0], labels[0], 0.5))
    assert torch.equal(x[1, 2:], margins[1, 2:])
    assert torch.equal(x[1, :2], prox_lovasz_hinge(margins[1, :2], labels[1, :2], 0.5))
    strided = prox_lovasz_hinge(margins.mT.float(), labels.mT, 0.5, ignore=255)
    assert strided.dtype == torch.float32
    torch.testing.assert_close(strided, x.mT.float())
    assert duality_gap(x, margins, labels, 0.5, ignore=255) < 1e-14


def test_nothing_to_do() -> None:
    for shape in [(0,), (0, 3, 4), (2, 0, 3)]:
        assert prox_lovasz_hinge(torch.zeros(shape), torch.zeros(shape), 1.0).shape == shape
    margins, labels = -torch.rand(3, 4), torch.ones(3, 4)
    for method in ("exact", "path"):
        assert torch.equal(prox_lovasz_hinge(margins, labels, 1.0, method), margins)


def test_the_value_is_the_hinges_and_the_mean_shares_the_step() -> None:
    logits = torch.randn(2, 5, 6).requires_grad_()
    labels = torch.randint(0, 2, (2, 5, 6))
    labels[0, 0] = 255
    loss = ProximalLovaszHingeLoss(lam=2.0)(logits, labels)
    loss.backward()
    torch.testing.assert_close(loss, LovaszHingeLoss()(logits, labels))
    sign = 2.0 * (labels == 1) - 1
    margins = (1 - logits * sign).detach()
    step = margins - prox_lovasz_hinge(margins, labels, 2.0, ignore=255)
    torch.testing.assert_close(logits.grad, -sign * step / 2)
    each = ProximalLovaszHingeLoss(reduction="none")(logits, labels)
    torch.testing.assert_close(each.mean(), loss.detach())


def test_rows_of_pixels_are_images_and_half_precision_is_computed_in_float32() -> None:
    labels = torch.randint(0, 2, (2, 30))
    half = (3 * torch.randn(2, 30)).half().requires_grad_()
    wide = half.detach().float()[:, None].requires_grad_()
    loss = ProximalLovaszHingeLoss()(half, labels)
    expected = ProximalLovaszHingeLoss()(wide, labels[:, None])
    loss.backward()
    expected.backward()
    assert loss == expected
    assert wide.grad is not None
    assert half.grad is not None
    assert torch.equal(half.grad, wide.grad[:, 0].half())


def test_logits_and_solutions_that_do_not_fit_are_named() -> None:
    with pytest.raises(ZooError, match=r"labels: shape \(2, 3, 4\), expected \(1, 3, 4\)"):
        ProximalLovaszHingeLoss()(torch.zeros(1, 3, 4), torch.zeros(2, 3, 4))
    with pytest.raises(ZooError, match=r"logits: -inf at \(0, 0, 1\)"):
        ProximalLovaszHingeLoss()(torch.tensor([[[0, -torch.inf]]]), torch.full((1, 1, 2), 255))
    with pytest.raises(ZooError, match=r"x: shape \(4, 3\), expected \(3, 4\)"):
        duality_gap(torch.zeros(4, 3), torch.zeros(3, 4), torch.zeros(3, 4), 1.0)


@pytest.mark.parametrize(
    ("margins", "labels", "options", "message"),
    [
        (torch.zeros(3), torch.zeros(4), {}, r"labels: shape \(4,\), expected \(3,\)"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), {}, r"labels: 2 at \(2,\), expected 0\.\.1"),
        (torch.tensor([0, torch.nan]), torch.zeros(2), {}, r"margins: nan at \(1,\)"),
        (torch.tensor([0, -torch.inf]), torch.zeros(2), {}, r"margins: -inf at \(1,\)"),
        (torch.zeros(3, dtype=int), torch.zeros(3), {}, r"margins: torch\.int64, expected a float"),
        (torch.zeros(3), torch.zeros(3), {"lam": 0.0}, r"lam: 0\.0, expected a positive"),
        (torch.zeros(3), torch.zeros(3), {"lam": 1e-320}, r"lam: 1e-320, expected a positive"),
        (torch.zeros(3), torch.zeros(3), {"lam": math.inf}, r"lam: inf, expected a positive"),
        (torch.zeros(3), torch.zeros(3), {"method": "qp"}, "method: 'qp', expected 'exact'"),
    ],
)
def test_what_does_not_fit_is_named(
    margins: Tensor, labels: Tensor, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ZooError, match=message):
        prox_lovasz_hinge(margins, labels, **{"lam": 1.0, **options})

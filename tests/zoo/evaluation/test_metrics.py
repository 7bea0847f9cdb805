import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed, multiprocessing

from deeplab_zoo.proto.errors import MismatchError
from deeplab_zoo.zoo.evaluation.metrics import (
    Counts,
    boundary_counts,
    boundary_width,
    confusion,
    count,
    gather,
    image_iou,
    near_boundary,
    scores,
    total,
)

CLASSES = 5


def pair(seed: int, height: int = 13, width: int = 17) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction and a truth with void and padding, in blobs; class 4 is never true."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 4, (2, 4, 5)).repeat(4, 1).repeat(4, 2)[:, :height, :width]
    coarse[0][random.random((height, width)) < 0.2] = random.integers(CLASSES)
    truth = coarse[1].astype(np.uint8)
    truth[random.random((height, width)) < 0.1] = 255
    truth[-1] = 254
    return torch.from_numpy(coarse[0].astype(np.uint8)), torch.from_numpy(truth)


def by_hand(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    matrix = np.zeros((CLASSES, CLASSES), int)
    for predicted, truth in pairs:
        for p, t in zip(predicted.numpy().flat, truth.numpy().flat, strict=True):
            if t < CLASSES:
                matrix[t, p] += 1
    right, true, given = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore"):
        iou, accuracy = right / (true + given - right), right / true
    return {
        "iou": iou,
        "accuracy": accuracy,
        "mean_iou": np.nanmean(iou),
        "mean_accuracy": np.nanmean(accuracy),
        "pixel_accuracy": right.sum() / true.sum(),
        "frequency_weighted_iou": np.nansum(true / true.sum() * iou),
    }


def counted(seeds: range) -> Counts:
    return total((count(*pair(seed), f"image {seed}", CLASSES) for seed in seeds), CLASSES)


@given(start=st.integers(0, 10**6), size=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_scores_are_those_of_a_confusion_matrix_in_ten_lines(start: int, size: int) -> None:
    seeds = range(start, start + size)
    found = scores(counted(seeds))
    for name, expected in by_hand([pair(seed) for seed in seeds]).items():
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-12, err_msg=name)


def test_torchmetrics_agrees() -> None:
    metrics = pytest.importorskip("torchmetrics.classification")
    theirs = metrics.MulticlassConfusionMatrix(CLASSES, ignore_index=255)
    for seed in range(3):
        predicted, truth = pair(seed)
        theirs.update(predicted.long(), truth.masked_fill(truth == 254, 255).long())
    assert torch.equal(theirs.compute(), counted(range(3)).confusion)


def test_void_and_padding_are_not_judged() -> None:
    truth = torch.tensor([[0, 255, 254], [1, 255, 1]])
    predicted = torch.tensor([[0, 1, 1], [1, 0, 0]])
    assert confusion(predicted, truth, 2).tolist() == [[1, 0], [1, 1]]


def test_a_class_that_is_nowhere_is_not_a_number_and_one_only_predicted_is_zero() -> None:
    truth, predicted = torch.tensor([[0, 0, 1]]), torch.tensor([[0, 2, 1]])
    found = scores(Counts(confusion(predicted, truth, 4)))
    assert found.iou[:3] == (0.5, 1.0, 0.0)
    assert math.isnan(found.iou[3])
    assert found.mean_iou == 0.5
    assert math.isnan(found.accuracy[2])
    assert found.mean_accuracy == 0.75


def test_nothing_judged_is_not_a_number() -> None:
    void = torch.full((2, 3), 255)
    found = scores(count(torch.zeros(2, 3), void, "x", 3))
    assert math.isnan(found.mean_iou)
    assert math.isnan(found.pixel_accuracy)
    assert math.isnan(found.frequency_weighted_iou)
    assert math.isnan(found.image_iou)


@pytest.mark.parametrize(
    ("predicted", "truth", "complaint"),
    [([[0, 5]], [[0, 1]], r"prediction: class ids from 0 to 5, expected 0..4"),
     ([[0, 1]], [[7, 1]], r"truth: class ids from 1 to 7"),
     ([[-1, 1]], [[0, 1]], r"prediction: class ids from -1"),
     ([[0, 1, 2]], [[0, 1]], r"shape \(1, 3\), the truth has \(1, 2\)")],
)  # fmt: skip
def test_ids_that_are_no_class_are_refused(predicted: list, truth: list, complaint: str) -> None:
    with pytest.raises(MismatchError, match=complaint):
        confusion(torch.tensor(predicted), torch.tensor(truth), CLASSES)


def test_image_iou_is_a_mean_over_images_and_has_its_own_name() -> None:
    first = count(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]), "a", 3)
    second = count(torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, 2]]), "b", 3)
    both = total([first, second], 3)
    assert both.images == {"a": 1.0, "b": pytest.approx((2 / 3 + 0 + 0) / 3)}
    assert scores(both).image_iou == pytest.approx((1 + 2 / 9) / 2)
    assert scores(both).mean_iou == pytest.approx((3 / 4 + 1 / 3 + 0) / 3)


def test_image_iou_of_two_classes_is_the_foregrounds_and_1_where_there_is_none() -> None:
    assert image_iou(torch.tensor([[5, 0], [0, 0]])) == 1.0
    assert image_iou(torch.tensor([[5, 1], [0, 0]])) == 0.0
    assert image_iou(torch.tensor([[5, 1], [1, 2]])) == 0.5


def test_no_images_are_no_counts_and_change_none() -> None:
    nothing = total([], CLASSES)
    assert nothing.confusion.shape == (CLASSES, CLASSES)
    assert math.isnan(scores(nothing).mean_iou)
    one = count(*pair(0), "x", CLASSES, trimap=2, boundary=True)
    both = total([nothing, one, nothing], CLASSES)
    assert scores(both).trimap_iou == scores(one).trimap_iou
    assert scores(both).boundary_iou == scores(one).boundary_iou


def test_an_image_counted_twice_is_an_error() -> None:
    one = count(*pair(0), "x", CLASSES)
    with pytest.raises(MismatchError, match="images counted twice: x"):
        total([one, one], CLASSES)
    with pytest.raises(MismatchError, match="in one part and not the other"):
        total([one, count(*pair(1), "y", CLASSES, trimap=2)], CLASSES)


@given(seed=st.integers(0, 10**6), width=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_the_trimap_is_where_another_label_is_near(seed: int, width: int) -> None:
    truth = pair(seed)[1]
    found = near_boundary(truth, width)
    rows, columns = truth.shape
    for y in range(0, rows, 3):
        for x in range(columns):
            around = truth[max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1]
            assert found[y, x] == (around != truth[y, x]).any()
    # Of several images at once, each by itself.
    both = near_boundary(torch.stack([truth, pair(seed + 1)[1]]), width)
    assert torch.equal(both[0], found)


@given(seed=st.integers(0, 10**6), width=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_boundaries_are_masks_less_their_erosion(seed: int, width: int) -> None:
    cv2 = pytest.importorskip("cv2")
    predicted, truth = pair(seed)
    judged = (truth < 254).numpy()

    def rim(ids: torch.Tensor, one: int) -> np.ndarray:
        mask = ((ids.numpy() == one) & judged).astype(np.uint8)
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
        return (mask - eroded).astype(bool)

    found = boundary_counts(predicted, truth, CLASSES, width)
    for one in range(CLASSES):
        a, b = rim(predicted, one), rim(truth, one)
        assert found[one].tolist() == [(a & b).sum(), (a | b).sum()]


def test_boundary_and_trimap_scores_see_what_the_area_hides() -> None:
    truth = torch.zeros(40, 60, dtype=torch.long)
    truth[5:35, 5:55] = 1
    smaller = torch.zeros_like(truth)
    smaller[7:33, 7:53] = 1
    found = scores(count(smaller, truth, "x", 2, trimap=3, boundary=True))
    assert found.mean_iou > 0.75
    assert found.boundary_iou < 0.5
    assert found.trimap_iou < 0.5
    same = scores(count(truth, truth, "x", 2, trimap=3, boundary=True))
    assert (same.mean_iou, same.boundary_iou, same.trimap_iou) == (1, 1, 1)
    assert boundary_width(375, 500) == 12  # 2 % of 625 is 12.5, rounded to even.
    assert boundary_width(3, 4) == 1


def _process(rank: int, world: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(seconds=60), rank=rank, world_size=world
    )
    seeds = range(7)[rank::world]  # An uneven last batch.
    found = gather(counted(range(seeds[0], seeds[-1] + 1, world)))
    torch.save((found.confusion, dict(found.images)), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_come_to_exactly_the_scores_of_one(tmp_path: Path) -> None:
    multiprocessing.start_processes(_process, (2, str(tmp_path)), 2, start_method="fork")
    alone = counted(range(7))
    for rank in (0, 1):
        matrix, images = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(matrix, alone.confusion)
        assert images == alone.images
        assert scores(Counts(matrix, images=images)).image_iou == scores(alone).image_iou


def test_one_process_needs_no_group() -> None:
    one = counted(range(2))
    assert gather(one) is one

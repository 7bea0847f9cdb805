"""The whole loss: sizes, scales, shares of processes."""

import pytest
import torch
from torch.nn import functional

from deeplab_zoo.converters.numerics import CAFFE_V2, TF_SLIM, TORCH_HALFPIXEL
from deeplab_zoo.proto.errors import UsageError
from deeplab_zoo.zoo.data.loader import Batch
from deeplab_zoo.zoo.training.config import TrainConfig
from deeplab_zoo.zoo.training.objective import class_weights, make_objective
from deeplab_zoo.zoo.training.targets import interpolated, matched, nearest


def batch(labels: torch.Tensor) -> Batch:
    count, height, width = labels.shape
    image = torch.randn(count, 3, height, width) * 50
    return Batch(image=image, label=labels, size=torch.tensor([[height, width]] * count), id=["x"])


@pytest.mark.parametrize(
    ("grid", "size", "target", "expected"),
    [
        ("align_corners", 17, 3, [0, 8, 16]),
        ("align_corners", 20, 3, [0, 10, 19]),
        ("align_corners", 9, 1, [0]),
        ("top_left", 16, 3, [0, 5, 10]),
        ("half_pixel", 16, 2, [4, 12]),
    ],
)
def test_labels_are_taken_where_the_scores_lie(
    grid: str, size: int, target: int, expected: list[int]
) -> None:
    assert nearest(size, target, grid).tolist() == expected


def test_a_line_one_pixel_wide_survives_where_the_grids_meet_and_nowhere_else() -> None:
    labels = torch.zeros(2, 17, 25, dtype=torch.int64)
    labels[0, 8], labels[1, :, 7] = 1, 1
    scores = torch.zeros(2, 4, 3, 4)
    _, small = matched(scores, labels, "nearest", CAFFE_V2, 4)
    assert small[0].tolist() == [[0] * 4, [1] * 4, [0] * 4]
    assert small[1].sum() == 0
    _, other = matched(scores, labels, "nearest", TORCH_HALFPIXEL, 4)
    assert other.shape == (2, 3, 4)


def test_interp_picks_pixels_at_8k_plus_1_and_invents_classes_elsewhere() -> None:
    labels = torch.randint(0, 21, (2, 17, 25))
    assert torch.equal(interpolated(labels, (3, 4), 21), labels[:, ::8, ::8])
    steps = torch.tensor([[[0, 10]]])
    assert interpolated(steps, (1, 3), 21).tolist() == [[[0, 5, 10]]]
    # Half way between class 1 and void lies 128, which is no class.
    assert interpolated(torch.tensor([[[1, 255]]]), (1, 3), 21).tolist() == [[[1, 255, 255]]]


def test_full_size_enlarges_the_scores() -> None:
    scores, labels = matched(
        torch.randn(2, 4, 3, 4), torch.zeros(2, 17, 25, dtype=torch.int64), "full", CAFFE_V2, 4
    )
    assert scores.shape == (2, 4, 17, 25)
    assert labels.shape == (2, 17, 25)


def test_four_outputs_are_four_losses_added_up() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 4, (2, 17, 25))
    labels[0, :9] = 255
    outputs = [torch.randn(2, 4, 3, 4), torch.randn(2, 4, 2, 2)]
    objective = make_objective(TrainConfig(loss="ce"), CAFFE_V2, 4)
    (term,) = objective(outputs, batch(labels)).values()
    expected = sum(
        functional.cross_entropy(one, labels[:, ::step, ::over], ignore_index=255)
        for one, step, over in ((outputs[0], 8, 8), (outputs[1], 16, 24))
    )
    assert term == pytest.approx(float(expected), rel=1e-6)


def test_padding_is_void_to_the_loss_and_outside_to_the_regularizer() -> None:
    labels = torch.zeros(1, 9, 17, dtype=torch.int64)
    labels[:, :, 9:] = 254
    config = TrainConfig(loss="partial-ce", regularizer="densecrf", crf_weight=1.0, crf_scale=1.0)
    objective = make_objective(config, CAFFE_V2, 3)
    seen = []
    assert objective.regularizer is not None
    objective.regularizer.forward = lambda *given: seen.append(given) or given[1].sum()  # type: ignore[assignment, method-assign, func-returns-value]
    data = batch(labels)
    terms = objective(torch.randn(1, 3, 2, 3), data)
    assert list(terms) == ["partial-ce", "densecrf"]
    images, probabilities, regions = seen[0]
    torch.testing.assert_close(images - torch.tensor(CAFFE_V2.mean).view(3, 1, 1), data["image"])
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, 9, 17))
    assert regions.sum() == 9 * 9


@pytest.mark.parametrize("loss", ["ce", "focal", "bce", "hinge", "jaccard"])
def test_shares_make_the_mean_over_processes_that_of_the_whole_batch(loss: str) -> None:
    torch.manual_seed(1)
    binary = loss in ("bce", "hinge", "jaccard")
    classes, channel = (2, 1) if binary else (3, None)
    labels = torch.randint(0, classes, (4, 9, 17))
    labels[0], labels[1, :7] = 255, 255  # One image without a pixel, one with few.
    scores = torch.randn(4, 3, 9, 17, requires_grad=True)
    weights = None if binary else [1.0, 2.0, 5.0]
    config = TrainConfig(loss=loss, binary="x" if binary else "")

    def objective(world: int, total: float) -> torch.nn.Module:
        return make_objective(
            config, TF_SLIM, classes, channel=channel, class_weights=weights, world=world,
            total=lambda _: torch.tensor(total),
        )  # fmt: skip

    whole = sum(objective(1, 0)(scores, batch(labels)).values())
    halves = [(scores[:2], labels[:2]), (scores[2:], labels[2:])]
    counts = []
    for _, truth in halves:
        kept = truth != 255
        if loss == "jaccard":
            counts.append(float(kept.flatten(1).any(1).sum()))
        elif weights:
            counts.append(float(torch.tensor(weights)[truth[kept]].sum()))
        else:
            counts.append(float(kept.sum()))
    parts = [sum(objective(2, sum(counts))(one, batch(truth)).values()) for one, truth in halves]
    assert sum(parts).item() / 2 == pytest.approx(whole.item(), rel=1e-6)
    ours = torch.autograd.grad(sum(parts) / 2, scores)[0]
    theirs = torch.autograd.grad(whole, scores)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


def test_losses_of_two_classes_and_binary_go_together() -> None:
    with pytest.raises(UsageError, match="go with --binary"):
        make_objective(TrainConfig(loss="lovasz-hinge"), CAFFE_V2, 21)
    with pytest.raises(UsageError, match="go with --binary"):
        make_objective(TrainConfig(loss="focal"), CAFFE_V2, 2, channel=3)
    assert make_objective(TrainConfig(loss="ce"), CAFFE_V2, 2, channel=3).names == ["bce"]
    with pytest.raises(UsageError, match="takes none"):
        make_objective(TrainConfig(loss="hinge"), CAFFE_V2, 2, channel=3, class_weights=[1.0, 2.0])


def test_class_weights_are_read_or_balanced() -> None:
    assert class_weights("", [1, 2]) is None
    assert class_weights("1,0.5", [1, 2]) == [1, 0.5]
    rare, usual = class_weights("balanced", [10, 990]) or []
    assert rare == pytest.approx(33.83, abs=0.01)  # 1 / log(1.03)
    assert usual == pytest.approx(1.43, abs=0.01)
    with pytest.raises(UsageError, match="2, the dataset has 3"):
        class_weights("1,2", [1, 2, 3])
    with pytest.raises(UsageError, match="expected numbers or balanced"):
        class_weights("heavy", [1, 2])
    for text in ("1,-1", "0,0", "nan,1", "inf,1"):
        with pytest.raises(UsageError, match=r"expected numbers of at least 0, one of them more"):
            class_weights(text, [1, 2])

"""What layers do in the TRAIN phase only."""

import pytest
import torch

from deeplab_zoo.proto import prototxt

from .texts import given_input, net_of, one, run


def test_batch_statistics_are_used_and_kept_in_the_train_phase() -> None:
    text = given_input(2, 3, 4, 5) + one(
        "BatchNorm", "batch_norm_param { moving_average_fraction: 0.9 }"
    )
    net = net_of(text, "TRAIN")
    assert net.training
    x = torch.randn(2, 3, 4, 5) * 3 + 1
    y = net({"data": x})["out"]
    wide = x.double()
    mean, variance = wide.mean((0, 2, 3)), wide.var((0, 2, 3), correction=0)
    shape = (1, 3, 1, 1)
    expected = (wide - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt()
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    for times in (1, 1.9):  # Sums in float32.
        torch.testing.assert_close(net.l.mean_sum.double(), mean * times, rtol=1e-5, atol=0)  # type: ignore[union-attr, operator]
        torch.testing.assert_close(
            net.l.variance_sum.double(), variance * times * 40 / 39, rtol=1e-5, atol=0
        )  # type: ignore[union-attr, operator]
        assert net.l.factor.item() == pytest.approx(times)  # type: ignore[union-attr, operator]
        net({"data": x})


def test_statistics_are_gathered_whatever_is_asked_for() -> None:
    text = (
        given_input(2, 3, 4, 5) + one("BatchNorm") + one("AbsVal", tops="b").replace("'l'", "'k'")
    )
    net = net_of(text, "TRAIN")
    net({"data": torch.ones(2, 3, 4, 5)}, blobs=["b"])
    assert net.get_buffer("l.factor").item() == 1


def test_dropout_drops_and_scales_in_the_train_phase_only() -> None:
    text = given_input(1, 2000) + one("Dropout", "dropout_param { dropout_ratio: 0.25 }")
    ones = torch.ones(1, 2000)
    assert torch.equal(run(text, data=ones)["out"], ones)
    dropped = run(text, "TRAIN", data=ones)["out"]
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert 0.15 < (dropped == 0).float().mean() < 0.35


def test_stages_that_the_file_sets_count_and_are_written_again() -> None:
    text = (
        "state { stage: 'deploy' phase: TRAIN }" + given_input(1, 2)
        + one("AbsVal", "include { stage: 'deploy' not_stage: 'other' }")
    )  # fmt: skip
    again = prototxt.format_net(prototxt.parse_net(text, "net"))
    assert net_of(text).outputs == net_of(again).outputs == ("out",)
    assert (
        net_of(text, stages=["other"]).outputs == net_of(text, stages="other").outputs == ("data",)
    )


def test_dropout_of_nothing_changes_nothing() -> None:
    text = given_input(1, 20) + one("Dropout", "dropout_param { dropout_ratio: 0 }")
    assert torch.equal(run(text, "TRAIN", data=torch.ones(1, 20))["out"], torch.ones(1, 20))

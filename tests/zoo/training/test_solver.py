"""The solver, the schedules and the groups, against formulas and against Caffe."""

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from deeplab_zoo.cli.parity import parity
from deeplab_zoo.proto import caffemodel, prototxt
from deeplab_zoo.proto.errors import FormatError, UsageError
from deeplab_zoo.zoo.training.groups import kind_of, parameter_groups
from deeplab_zoo.zoo.training.replay import Layer, Step, read_solver, replay, write_report
from deeplab_zoo.zoo.training.schedule import Schedule, rate
from deeplab_zoo.zoo.training.solver import CaffeSGD, make_solver, set_rate


def test_the_rate_is_inside_the_buffer() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    solver = CaffeSGD([weight], 0.1, momentum=0.9, weight_decay=0.5)
    w, v = np.array([1.0, -2.0]), np.zeros(2)
    for now, slope in ((0.1, 3.0), (0.01, -1.0), (0.5, 2.0)):
        weight.grad = torch.full((2,), slope)
        solver.param_groups[0]["lr"] = now
        solver.step()
        v = 0.9 * v + now * (slope + 0.5 * w)
        w = w - v
        np.testing.assert_allclose(weight.detach(), w, rtol=1e-6)


def test_at_a_constant_rate_the_solver_is_torch_sgd() -> None:
    torch.manual_seed(0)
    start = torch.randn(5, 3)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one = CaffeSGD([ours], 0.1, 0.9, 0.01)
    other = torch.optim.SGD([theirs], 0.1, 0.9, weight_decay=0.01)
    for _ in range(4):
        slope = torch.randn(5, 3)
        for weight, solver in ((ours, one), (theirs, other)):
            weight.grad = slope.clone()
            solver.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("way", "step", "value"),
    [
        (Schedule("poly", 0.01, 100, power=0.9), 50, 0.01 * 0.5**0.9),
        (Schedule("poly", 0.01, 100, power=0.9), 100, 0.0),
        (Schedule("poly", 0.01, 100, power=0.9, every=10), 59, 0.01 * 0.5**0.9),
        (Schedule("step", 0.01, 100, step_size=30, gamma=0.1), 60, 1e-4),
        (Schedule("step", 0.01, 100, step_size=30, gamma=0.1), 59, 1e-3),
        (Schedule("cosine", 0.01, 100), 25, 0.01 * (1 + np.cos(np.pi / 4)) / 2),
        (Schedule("constant", 0.01, 100), 99, 0.01),
    ],
)
def test_schedules_follow_their_formulas(way: Schedule, step: int, value: float) -> None:
    assert rate(way, step) == pytest.approx(value, rel=1e-6, abs=1e-12)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="schedule 'zigzag'"):
        rate(Schedule("zigzag", 1, 1), 0)
    with pytest.raises(UsageError, match="solver 'zigzag'"):
        make_solver("zigzag", [], 1, 0)
    with pytest.raises(UsageError, match="groups 'zigzag'"):
        parameter_groups([], "zigzag", 0)


def test_parameters_are_told_apart_by_name() -> None:
    matrix, vector = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    told = {
        "backbone.layer1.0.conv1.weight": (matrix, "backbone"),
        "backbone.layer1.0.bn1.weight": (vector, "norm"),
        "backbone.layer1.0.downsample.1.bias": (vector, "norm"),
        "backbone.bn1.bias": (vector, "norm"),
        "backbone.conv5_3.bias": (vector, "backbone_bias"),
        "classifier.convs.0.weight": (matrix, "head"),
        "classifier.fc8.0.bias": (vector, "head_bias"),
    }
    assert {name: kind_of(name, one) for name, (one, _) in told.items()} == {
        name: kind for name, (_, kind) in told.items()
    }


def test_groups_scale_the_rate_and_the_decay() -> None:
    head, bias = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    frozen = nn.Parameter(torch.zeros(3, 3), requires_grad=False)
    named = [("classifier.x.weight", head), ("classifier.x.bias", bias), ("backbone.c", frozen)]
    solver = make_solver("caffe", parameter_groups(named, "caffe", 5e-4), 1.0, 0.9)
    set_rate(solver, 0.01)
    found = [(one["name"], one["lr"], one["weight_decay"]) for one in solver.param_groups]
    assert found == [("head", 0.1, 5e-4), ("head_bias", 0.2, 0)]


@pytest.mark.golden
@pytest.mark.parametrize("net", ["aspp", "msc"])
def test_five_updates_of_the_real_caffe_are_reproduced(shared: Path, net: str) -> None:
    steps = replay(shared / "golden" / "caffe" / "train_step" / net)
    assert len(steps) == 5
    for step in steps:
        assert step.rate[0] == step.rate[1]
        assert all(
            ours == pytest.approx(theirs, abs=5e-6)
            for pairs in step.losses.values()
            for ours, theirs in pairs
        )
        # Two float32 engines' convolutions differ in the last digits; five updates carry it on.
        assert step.weight_error < 1e-5
        assert step.passed
    # The weights have moved by far more than they may differ.
    assert max(layer.moved for layer in steps[-1].layers) > 0.1


@pytest.mark.golden
def test_the_command_replays_a_solver_and_says_where_it_differs(
    shared: Path, tmp_path: Path
) -> None:
    folder = shared / "golden" / "caffe" / "train_step" / "aspp"
    found = CliRunner().invoke(parity, ["--solver", str(folder), "-o", str(tmp_path / "out")])
    assert found.exit_code == 0, found.output
    report = json.loads((tmp_path / "out" / "solver.json").read_text())
    assert report["passed"]
    assert len(report["steps"]) == 5
    assert "fc1_voc12_c3/1" in (tmp_path / "out" / "solver.md").read_text()

    other = tmp_path / "other"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    text = (other / "solver.prototxt").read_text().replace("momentum: 0.9", "momentum: 0.8")
    (other / "solver.prototxt").write_text(text)
    first, second, *_ = replay(other)
    assert first.passed  # The buffer is empty before the first update.
    assert not second.passed


@pytest.mark.parametrize(
    ("losses", "distances"),
    [((1.0, math.nan), (1e-7, 1e-7)), ((1.0, 1.0), (1e-7, math.nan)), ((1.0, 1.0), (2e-5, 1e-7))],
    ids=["a loss is not a number", "a blob is not a number", "a blob differs"],
)
def test_an_update_passes_only_if_every_number_is_near(
    losses: tuple[float, ...], distances: tuple[float, ...], tmp_path: Path
) -> None:
    layers = tuple(Layer(f"conv{at}/0", one, 0.5) for at, one in enumerate(distances))
    step = Step(1, (0.1, 0.1), {"loss": tuple((one, 1.0) for one in losses)}, layers)
    assert not step.passed
    good = Step(1, (0.1, 0.1), {"loss": ((1.0, 1.0),)}, (Layer("conv0/0", 1e-7, 0.5),))
    assert good.passed
    write_report([step], tmp_path, tmp_path)
    assert not json.loads((tmp_path / "solver.json").read_text())["passed"]
    worst = "conv1/0" if math.isnan(distances[1]) else "conv0/0"
    assert f"| {worst} | **no** |" in (tmp_path / "solver.md").read_text()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Two updates of one weight of two numbers, by hand: w -= v, v = 0.5 v + 0.1 g."""
    shapes = "input_shape { dim: 1 dim: 2 } input_shape { dim: 1 dim: 1 }"
    (tmp_path / "train.prototxt").write_text(
        f"input: 'x' input: 'y' {shapes} layer {{ name: 'a|b' type: 'InnerProduct' bottom: 'x' "
        "top: 'p' inner_product_param { num_output: 1 bias_term: false weight_filler { value: 0.5 }"
        "} } layer { name: 'l' type: 'EuclideanLoss' bottom: 'p' bottom: 'y' top: 'l' }"
    )
    with (tmp_path / "init.caffemodel").open("wb") as file:
        caffemodel.write(prototxt.read(tmp_path / "train.prototxt"), file)
    (tmp_path / "solver.prototxt").write_text(
        "net: 'train.prototxt'\nbase_lr: 0.1\nlr_policy: \"fixed\"\nmomentum: 0.5\n"
    )
    x, y = np.array([[1, 2], [3, -1]], np.float32), np.array([[1], [0.5]], np.float32)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"], file["y"] = x, y
    weight, velocity = np.full((1, 2), 0.5), np.zeros((1, 2))
    found = {"lr": np.full(2, np.float32(0.1)), "loss_names": np.array(["l"]), "w0/a|b/0": weight}
    losses = []
    for number in range(2):
        apart = weight @ x[number] - y[number]
        losses.append([apart**2 / 2])
        velocity = 0.5 * velocity + 0.1 * apart * x[number]
        weight = found[f"w{number + 1}/a|b/0"] = weight - velocity
    np.savez(tmp_path / "golden.npz", **found, loss=np.array(losses, np.float32))
    return tmp_path


def test_a_recording_is_replayed_and_its_names_do_not_break_the_report(recording: Path) -> None:
    steps = replay(recording)
    assert [(one.passed, len(one.layers)) for one in steps] == [(True, 1), (True, 1)]
    write_report(steps, recording, recording)
    text = (recording / "solver.md").read_text()
    assert r"| a\|b/0 |" in text
    assert "Blobs compared: 1; the solver trains 1." in text


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"lr": np.ones(0), "loss": np.ones((0, 1, 1))}, "no update or no loss to compare"),
        ({"lr": None}, r"golden.npz: holds no lr\."),
        ({f"w{one}/a|b/0": None for one in range(3)}, "no weights before the first update"),
        ({"w0/a|b/0": None}, r"w1/a\|b/0 is there, w0/a\|b/0 is not"),
        ({"w2/a|b/0": None}, r"w2/a\|b/0 is missing"),
        ({"w1/a|b/0": np.ones(3)}, r"w1/a\|b/0 has shape \[3\]"),
        ({"w1/c/0": np.ones(3)}, "w1/c/0 is of no layer of the net"),
        (
            {"lr": np.ones(3)},
            r"loss has shape \[2, 1, 1\], expected \[3, 1, 1\]\n.*2 samples of 'x'",
        ),
    ],
)
def test_a_recording_that_lacks_something_is_no_proof(
    recording: Path, changed: dict[str, np.ndarray | None], problem: str
) -> None:
    path = recording / "golden.npz"
    whole = {**np.load(path), **changed}
    np.savez(path, **{name: value for name, value in whole.items() if value is not None})
    with pytest.raises(FormatError, match=problem):
        replay(recording)


@pytest.mark.parametrize("name", ["golden.npz", "data.h5", "solver.prototxt"])
def test_a_recording_with_a_damaged_file_names_it(recording: Path, name: str) -> None:
    (recording / name).write_bytes(b"\xe9 is Latin 1")
    with pytest.raises(FormatError, match=name):
        replay(recording)


def test_options_that_a_solver_has_no_use_for_are_refused(tmp_path: Path) -> None:
    arguments = ["--solver", str(tmp_path), "--engine", "opencv", "--diagnose"]
    found = CliRunner().invoke(parity, arguments)
    assert found.exit_code == 2
    assert "--engine, --diagnose: not with --solver." in found.output


def test_a_device_that_is_not_there_is_no_place_for_a_replay(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="device 'cuda:77' cannot be used"):
        replay(tmp_path, "cuda:77")


def test_a_solver_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    with pytest.raises(UsageError, match="no such file"):
        read_solver(path)
    path.write_text('net: "x"\nbase_lr: 0.1 # a comment\nclip_gradients: 35\n')
    with pytest.raises(FormatError, match=r":3: 'clip_gradients: 35'"):
        read_solver(path)
    path.write_text('net: "x"\nbase_lr: much\n')
    with pytest.raises(FormatError, match=r":2: 'base_lr: much'"):
        read_solver(path)
    path.write_text('net: "x"\n')
    with pytest.raises(FormatError, match="says no lr_policy, base_lr"):
        read_solver(path)
    for line, problem in (
        ('lr_policy: "inv"', "lr_policy 'inv', expected one of fixed, poly, step"),
        ("lr_policy: 'step' # why\nstepsize: 0", "stepsize 0, expected 1 or more"),
    ):
        path.write_text(f'net: "a b"\nbase_lr: 1\n{line}\n')
        with pytest.raises(FormatError, match=problem):
            read_solver(path)
    path.write_text('type: "Adam"\n')
    with pytest.raises(FormatError, match="solver Adam, expected SGD"):
        read_solver(path)

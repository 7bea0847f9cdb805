"""Every layer case that the real Caffe ran, by its own numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deeplab_zoo import load_caffe
from deeplab_zoo.converters.graph.engine import Graph
from deeplab_zoo.proto.errors import ZooError

GOLDEN = Path(__file__).parents[2] / "golden" / "caffe"
CASES = json.loads((GOLDEN / "layers" / "cases.json").read_text())
BESIDE = ("aspp",)  # Too large to be copied here.

# Relative L2 of a whole case; Caffe with another BLAS kernel is 1e-6 away from itself.
TOLERANCE = 2e-6

# Layers that move or choose numbers and compute none.
EXACT = {
    "AbsVal", "ArgMax", "Clip", "Concat", "Crop", "Dropout", "DummyData", "Flatten", "Input",
    "Parameter", "Permute", "Reshape", "Slice", "Split", "Tile",
}  # fmt: skip
EXACT_CASES = {"relu", "pool_max", "pool_global_max", "interp_to_1", "eltwise_max", "power_zero"}


def folder_of(name: str) -> Path:
    return GOLDEN / "layers" if (GOLDEN / "layers" / f"{name}.npz").exists() else GOLDEN


def is_exact(name: str) -> bool:
    if name.startswith("pool_max") or name in EXACT_CASES:
        return True
    return set(CASES[name]["types"]) <= EXACT


def check(name: str, folder: Path) -> None:
    case = CASES[name]
    arguments = case.get("net_args", {})
    net = load_caffe(
        folder / f"{name}.prototxt",
        folder / f"{name}.caffemodel",
        case["phase"],
        stages=arguments.get("stages", ()),
        level=arguments.get("level", 0),
    )
    assert net.outputs == tuple(sorted(case["outputs"]))
    with np.load(folder / f"{name}.npz") as golden:
        inputs = {
            key[3:]: torch.from_numpy(golden[key]) for key in golden.files if key[:3] == "in/"
        }
        with torch.no_grad():
            found = net(inputs, blobs="all")
        compared = 0
        for key in golden.files:
            blob = key.removeprefix("out/")
            if key.startswith("out/") and blob not in net.inputs:
                check_blob(found[blob], golden[key], exact=is_exact(name))
                compared += 1
            elif key.startswith("after/"):
                check_statistic(net, key, golden[key])
        assert compared or name == "unused_input"


def check_blob(ours: torch.Tensor, golden: np.ndarray, *, exact: bool = False) -> None:
    assert tuple(ours.shape) == golden.shape
    found = ours.numpy()
    if exact:
        np.testing.assert_array_equal(found, golden)
        return
    # Empty pooling windows hold NaN; the others are compared.
    numbers = np.isfinite(golden)
    np.testing.assert_array_equal(found[~numbers], golden[~numbers])
    assert distance(found[numbers], golden[numbers]) <= TOLERANCE


def distance(ours: np.ndarray, reference: np.ndarray) -> float:
    wide = reference.astype(np.float64)
    norm = float(np.linalg.norm(wide))
    return float(np.linalg.norm(ours - wide)) / (norm or 1.0)


def check_statistic(net: Graph, key: str, golden: np.ndarray) -> None:
    _, layer, index = key.split("/")
    role = ("mean_sum", "variance_sum", "factor")[int(index)]
    check_blob(net.get_submodule(layer).get_buffer(role), golden.reshape(-1))


@pytest.mark.parametrize("name", sorted(set(CASES) - set(BESIDE)))
def test_a_layer_computes_what_caffe_computed(name: str) -> None:
    check(name, folder_of(name))


@pytest.mark.golden
@pytest.mark.parametrize("name", BESIDE)
def test_a_larger_case_computes_what_caffe_computed(shared: Path, name: str) -> None:
    check(name, shared / "golden" / "caffe" / "layers")


@pytest.mark.golden
def test_no_case_beside_the_checkout_is_left_out(shared: Path) -> None:
    cases = json.loads((shared / "golden" / "caffe" / "layers" / "cases.json").read_text())
    assert set(cases) == set(CASES)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("softmaxloss")])
def test_the_gradient_of_a_loss_is_caffes_once_weighted(name: str) -> None:
    folder = folder_of(name)
    net = load_caffe(folder / f"{name}.prototxt")
    weight = 0.5 if name == "softmaxloss_weight" else 1.0  # Caffe weights the gradient only.
    with np.load(folder / f"{name}.npz") as golden:
        score = torch.from_numpy(golden["in/score"]).requires_grad_()
        label = torch.from_numpy(golden["in/label"])
        (net({"score": score, "label": label})["loss"] * weight).backward()
        assert score.grad is not None
        check_blob(score.grad, golden["grad/score"])


PROTOTXTS = sorted(path.name for path in GOLDEN.glob("fmt_*.prototxt"))
WEIGHTS = sorted(path.name for path in GOLDEN.glob("fmt_*.caffemodel*"))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("prototxt", PROTOTXTS)
def test_every_age_of_text_and_weights_computes_the_same(prototxt: str, weights: str) -> None:
    net = load_caffe(GOLDEN / prototxt, GOLDEN / weights)
    assert net.notes == ()
    with np.load(GOLDEN / "fmt.npz") as golden, torch.no_grad():
        found = net({"data": torch.from_numpy(golden["in/data"])}, blobs="all")
        outputs = [key[4:] for key in golden.files if key.startswith("out/")]
        assert outputs
        for blob in outputs:
            check_blob(found[blob], golden[f"out/{blob}"])


REJECTS = json.loads((GOLDEN / "rejects" / "rejects.json").read_text())
# Their fault is in the file and has no layer.
OF_THE_FILE = {"not_a_model", "truncated_model", "singular_twice", "unknown_field"}


@pytest.mark.parametrize("name", sorted(REJECTS))
def test_a_net_that_caffe_refuses_is_refused_by_layer_and_others_are_not(name: str) -> None:
    reject = REJECTS[name]
    weights = None
    if reject["weights"]:
        weights = GOLDEN / reject["weights"]
    if not reject["refused"]:
        net = load_caffe(GOLDEN / "rejects" / reject["prototxt"], weights)
        shapes = {blob: shape for blob, shape in net.inputs.items() if shape is not None}
        net({blob: torch.ones(shape) for blob, shape in shapes.items()}, blobs="all")
        return
    with pytest.raises(ZooError) as error:
        load_caffe(GOLDEN / "rejects" / reject["prototxt"], weights)
    assert "(line " in str(error.value) or name in OF_THE_FILE

"""The TensorFlow twins: the original's values, eager and as a graph, in a process of their own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deeplab_zoo import lovasz_hinge, lovasz_softmax

LOVASZ = Path(__file__).parents[2] / "golden" / "tf" / "lovasz"
CASES = {case["case"]: case for case in json.loads((LOVASZ / "index.json").read_text())["losses"]}
VOC = Path(__file__).parents[4] / "shared" / "golden" / "tf" / "lovasz" / "softmax_voc_41x41.npz"
MENDED = {"softmax_sigmoid_present", "softmax_void_not_ignored"}
GRAPHS = ("hinge_per_image_ignore", "softmax_per_image_all", "softmax_ignore")

RUN_BY_TENSORFLOW = """
import json, sys
import numpy as np
import tensorflow as tf
from deeplab_zoo import ZooError
from deeplab_zoo.zoo.losses import lovasz_tf

def run(case, data, graph):
    function = getattr(lovasz_tf, "lovasz_" + case["kind"])
    options = {key: case[key] for key in ("per_image", "ignore", "classes", "order") if key in case}
    first = tf.nn.softmax if case.get("logits") else lambda x, axis: x
    call = lambda x, y: function(first(x, axis=1), y, **options)
    if graph:
        call = tf.function(call)
    scores = tf.constant(data["input"])
    with tf.GradientTape() as tape:
        tape.watch(scores)
        loss = call(scores, tf.constant(data["labels"]))
    return loss.numpy(), tape.gradient(loss, scores).numpy()

out, errors = {}, {}
for name, case in json.load(open("cases.json")).items():
    for graph in (False, True) if case["graph"] else (False,):
        try:
            loss, grad = run(case, np.load(case["file"]), graph)
        except ZooError as error:
            errors[name] = str(error)
            continue
        out[f"{name}/{graph}/loss"], out[f"{name}/{graph}/grad"] = loss, grad
np.savez("found.npz", **out)
json.dump(errors, open("errors.json", "w"))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, np.ndarray], dict[str, str]]:  # type: ignore[type-arg]
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs tensorflow")
    folder = tmp_path_factory.mktemp("tf")
    cases = {
        name: case | {"file": str(LOVASZ / f"{name}.npz"), "order": "BCHW", "graph": name in GRAPHS}
        for name, case in CASES.items()
    }
    for case in cases.values():
        if case["kind"] == "hinge":
            del case["order"]
    data = dict(np.load(LOVASZ / "softmax_ignore.npz"))
    np.savez(folder / "last.npz", input=data["input"].transpose(0, 2, 3, 1), labels=data["labels"])
    np.savez(folder / "one.npz", input=data["input"][:, 1], labels=data["labels"])
    void = (data["labels"] == 255)[:, None]
    np.savez(folder / "nan.npz", input=np.where(void, np.nan, data["input"]), labels=data["labels"])
    np.savez(folder / "turned.npz", input=data["input"], labels=data["labels"].transpose(0, 2, 1))
    np.savez(folder / "logits.npz", input=np.log(data["input"]), labels=data["labels"])
    cases["softmax_void_not_ignored"]["graph"] = True
    new = {"kind": "softmax", "ignore": 255, "graph": True}
    cases["classes_last"] = new | {"file": "last.npz"}
    cases["one_class"] = new | {"file": "one.npz", "classes": [1]}
    cases["listed"] = new | {"file": "last.npz", "classes": [3, 0], "per_image": True}
    cases["order"] = new | {"file": "last.npz", "order": "HWCB"}
    for wrong in ("nan", "turned", "logits"):
        cases[wrong] = new | {"file": f"{wrong}.npz", "order": "BCHW", "graph": wrong != "logits"}
    cases["listed_twice"] = new | {"file": "last.npz", "classes": [1, 1]}
    if VOC.is_file():
        cases["voc"] = new | {"file": str(VOC), "logits": True, "per_image": True, "order": "BCHW"}
    (folder / "cases.json").write_text(json.dumps(cases))
    quiet = {"TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", RUN_BY_TENSORFLOW],
        cwd=folder,
        env=os.environ | quiet,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "AutoGraph" not in done.stderr  # It would say what it cannot read.
    return dict(np.load(folder / "found.npz")), json.loads((folder / "errors.json").read_text())


@pytest.mark.parametrize("name", [name for name in CASES if name not in MENDED])
def test_values_and_gradients_are_those_of_the_original(found, name: str) -> None:  # type: ignore[no-untyped-def]
    results, _ = found
    data = np.load(LOVASZ / f"{name}.npz")
    for graph in (False, True) if name in GRAPHS else (False,):
        loss, grad = results[f"{name}/{graph}/loss"], results[f"{name}/{graph}/grad"]
        # As in PyTorch: the original takes differences of float32 losses.
        np.testing.assert_allclose(loss, data["torch_patched_stable_sort_loss"], rtol=1e-6)
        np.testing.assert_allclose(grad, data["torch_patched_stable_sort_grad"], atol=2e-7)


@pytest.mark.golden
def test_the_original_on_a_voc_sized_output_through_a_softmax(found, shared: Path) -> None:  # type: ignore[no-untyped-def]
    assert VOC.is_relative_to(shared)
    results, _ = found
    data = np.load(VOC)
    for graph in (False, True):
        loss, grad = results[f"voc/{graph}/loss"], results[f"voc/{graph}/grad"]
        np.testing.assert_allclose(loss, data["torch_patched_stable_sort_loss"], rtol=1e-6)
        np.testing.assert_allclose(grad, data["torch_patched_stable_sort_grad"], atol=1e-7)


@pytest.mark.parametrize("graph", [False, True])
def test_order_lists_and_a_single_class_are_as_in_pytorch(found, graph: bool) -> None:  # type: ignore[no-untyped-def]
    results, _ = found
    data = np.load(LOVASZ / "softmax_ignore.npz")
    labels = torch.from_numpy(data["labels"])
    for name, options in {
        "classes_last": {},
        "one_class": {"classes": [1]},
        "listed": {"classes": [3, 0], "per_image": True},
    }.items():
        probas = torch.from_numpy(data["input"]).requires_grad_()
        given = probas[:, 1] if name == "one_class" else probas
        loss = lovasz_softmax(given, labels, ignore=255, **options)  # type: ignore[arg-type]
        (grad,) = torch.autograd.grad(loss, probas)
        grad = grad[:, 1] if name == "one_class" else grad.movedim(1, -1)
        np.testing.assert_allclose(results[f"{name}/{graph}/loss"], loss.detach(), rtol=1e-6)
        np.testing.assert_allclose(results[f"{name}/{graph}/grad"], grad, atol=1e-7)


def test_what_is_wrong_is_named(found) -> None:  # type: ignore[no-untyped-def]
    results, errors = found
    assert errors.keys() == {*MENDED, "order", "listed_twice", "nan", "turned", "logits"}
    assert "labels: 255 at (0, 0, 0)" in errors["softmax_void_not_ignored"]
    assert np.isnan(results["softmax_void_not_ignored/True/loss"])  # A graph cannot raise.
    assert np.isfinite(results["nan/True/grad"]).all()
    assert "turned/True/loss" not in results
    assert "labels: shape" in errors["turned"]
    assert "probas: nan..nan, expected 0..1" in errors["nan"]
    assert "expected 0..1. Take the softmax" in errors["logits"]
    assert "classes: 'present'" in errors["softmax_sigmoid_present"]
    assert "order: 'HWCB'" in errors["order"]
    assert "classes: [1, 1]" in errors["listed_twice"]


def test_the_hinge_of_the_same_module_is_pytorchs(found) -> None:  # type: ignore[no-untyped-def]
    results, _ = found
    data = np.load(LOVASZ / "hinge_ties.npz")
    loss = lovasz_hinge(torch.from_numpy(data["input"]), torch.from_numpy(data["labels"]))
    np.testing.assert_allclose(results["hinge_ties/False/loss"], loss, rtol=1e-6)

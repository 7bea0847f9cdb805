"""What users do with the programs' models: ONNX, compiling, predicting; and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional

import deeplab_zoo
from deeplab_zoo import export_onnx
from deeplab_zoo.cli.main import cli
from deeplab_zoo.proto.errors import MismatchError, UsageError

from .programs import Make, model_of, narrow

BACKBONES = ["torchvision-mobilenet", "openmmlab-v3plus", "pytorchcv"]


@pytest.mark.parametrize(
    ("name", "dynamic"),
    [
        ("torchvision-mobilenet", False),
        ("openmmlab-v3plus", False),
        pytest.param("pytorchcv", False, marks=pytest.mark.slow),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in BACKBONES),
    ],
)
def test_an_onnx_file_gives_the_models_scores(
    program_state: Make, tmp_path: Path, name: str, *, dynamic: bool
) -> None:
    model, _ = model_of(program_state(*narrow(name)), tmp_path)
    size: dict[str, Any] = {"dynamic": True} if dynamic else {"size": (50, 71)}
    path = export_onnx(model, tmp_path / "x.onnx", **size)
    image = torch.randn(3 if dynamic else 1, 3, 50, 71)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["scores"], {"image": image.numpy()})
    with torch.no_grad():
        expected = model(image).numpy()
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.slow  # The ONNX files above go through the same capture of the graph.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # Inductor's.
@pytest.mark.parametrize("name", BACKBONES)
def test_a_compiled_model_gives_the_same_scores(
    program_state: Make, tmp_path: Path, name: str
) -> None:
    model, _ = model_of(program_state(*narrow(name)), tmp_path)
    image = torch.randn(2, 3, 50, 71)
    with torch.no_grad():
        found = torch.compile(model, fullgraph=True)(image)
        expected = model(image)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(("name", "align"), [("openmmlab-v3", False), ("pytorchcv", True)])
def test_a_photo_is_prepared_and_its_scores_spread_as_the_program_does(
    program_state: Make, tmp_path: Path, name: str, *, align: bool
) -> None:
    model, _ = model_of(program_state(*narrow(name)), tmp_path)
    photo = np.random.default_rng(0).integers(0, 256, (37, 58, 3), np.uint8)
    image = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    with torch.no_grad():
        scores = model((image - mean) / std)
        whole = functional.interpolate(scores, (37, 58), mode="bilinear", align_corners=align)
    # Between two scores that are equal but for rounding, either class will do.
    first, second = whole[0].topk(2, dim=0).values
    sure = (first - second > 1e-4 * whole.std()).numpy()
    assert sure.mean() > 0.99
    assert (model.predict(photo) == whole[0].argmax(0).numpy())[sure].all()


def test_every_missing_and_misshapen_tensor_is_in_one_error(
    program_state: Make, tmp_path: Path
) -> None:
    state = program_state(*narrow("openmmlab-v3plus"))
    del state["decode_head.c1_bottleneck.bn.bias"]
    state["decode_head.bottleneck.bn.weight"] = torch.ones(3)
    with pytest.raises(MismatchError) as raised:
        model_of(state, tmp_path)
    assert "not those of any net of openmmlab's DeepLab v3 or v3+" in str(raised.value)
    state = program_state(*narrow("openmmlab-v3plus"))
    state["decode_head.bottleneck.bn.weight"] = torch.ones(3)
    state["backbone.stem.0.weight"] = torch.ones(3, 3, 3, 3)
    with pytest.raises(MismatchError) as raised:
        model_of(state, tmp_path)
    assert "classifier.pyramid.project.norm.weight: shape [3], expected [64]" in str(raised.value)
    assert "backbone.stem0.conv.weight: shape [3, 3, 3, 3], expected [4, 3" in str(raised.value)


def test_names_of_two_programs_in_one_file_are_refused(program_state: Make, tmp_path: Path) -> None:
    state = program_state(*narrow("pytorchcv"))
    odd = program_state(*narrow("torchvision-50"))
    with pytest.raises(MismatchError, match="classifier.4/weight"):
        model_of({**state, "classifier.4.weight": odd["classifier.4.weight"]}, tmp_path)


def test_another_segmentor_of_openmmlab_is_called_one(program_state: Make, tmp_path: Path) -> None:
    state = program_state(*narrow("openmmlab-v3"))
    state = {name.replace("aspp_modules", "psp_modules"): one for name, one in state.items()}
    with pytest.raises(MismatchError, match="a segmentor of OpenMMLab other than DeepLab"):
        model_of(state, tmp_path)


@pytest.mark.parametrize("name", ["torchvision-mobilenet", "openmmlab-v3", "pytorchcv-renumbered"])
def test_the_command_brings_a_file_home_and_writes_it_again(
    program_state: Make, tmp_path: Path, name: str
) -> None:
    config, layout = narrow(name)
    state = program_state(config, layout, counters=True)
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "x.pth")
    home, back = str(tmp_path / "x.safetensors"), str(tmp_path / "back.pth")
    for arguments in (
        ["convert", "legacy", str(tmp_path / "x.pth"), "-o", home],
        ["export", home, "--layout", layout, "-o", back],
        ["compare", str(tmp_path / "x.pth"), back],
    ):
        found = CliRunner().invoke(cli, arguments)
        assert found.exit_code == 0, found.output


def test_a_net_is_written_in_its_own_programs_layouts_only(
    program_state: Make, tmp_path: Path
) -> None:
    _, path = model_of(program_state(*narrow("pytorchcv-renumbered")), tmp_path)
    deeplab_zoo.export(path, tmp_path / "old.pth", layout="pytorchcv")
    assert "backbone.stage4.unit3.body.conv1.bn.bias" in torch.load(tmp_path / "old.pth")
    with pytest.raises(UsageError, match="has canonical, pytorchcv, pytorchcv-renumbered"):
        deeplab_zoo.export(path, tmp_path / "x.pth", layout="torchvision")

"""TensorFlow's own DeepLab without TensorFlow: entries, files, use, and what is refused."""

import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deeplab_zoo
from deeplab_zoo.converters import weights
from deeplab_zoo.converters.deeplab_v3 import DeepLabV3Config, parameters
from deeplab_zoo.converters.export import variables
from deeplab_zoo.converters.native import Native
from deeplab_zoo.converters.numerics import TF_DEEPLAB, TORCHVISION
from deeplab_zoo.proto.errors import MismatchError, UsageError
from deeplab_zoo.zoo.models.inference import predict
from deeplab_zoo.zoo.models.load import build
from deeplab_zoo.zoo.weights import archives, recipe
from deeplab_zoo.zoo.weights.registry import load_registry

from .of_tensorflow import GRAPH, MOBILENET, XCEPTION, random_weights

Convert = Callable[[Path], Native]
Save = Callable[..., Path]
BOTH = pytest.mark.parametrize("config", [XCEPTION, MOBILENET], ids=["xception", "mobilenet"])
# A graph of Xception takes its time to make.
QUICK = pytest.mark.parametrize(
    "config",
    [
        pytest.param(XCEPTION, marks=pytest.mark.slow, id="xception"),
        pytest.param(MOBILENET, id="mobilenet"),
    ],
)


def test_the_full_nets_have_the_sizes_that_are_published() -> None:
    """MobileNetV2's paper states 2.11 M (table 7); checkpoints of Xception-65 are 165 MB."""
    for config, trained, stored in (
        (replace(MOBILENET, classes=21, width=1.0), 2_113_557, 2_146_645),
        (replace(XCEPTION, classes=21, width=1.0), 41_055_413, 41_258_213),
    ):
        sizes = {name: int(np.prod(shape)) for name, shape in parameters(config).items()}
        assert sum(sizes.values()) == stored
        assert sum(size for name, size in sizes.items() if ".running_" not in name) == trained


@pytest.mark.parametrize(
    ("name", "checkpoint", "config"),
    [
        ("tf-deeplabv3-mobilenet-v2-voc", "model.ckpt-30000", MOBILENET),
        ("tf-deeplabv3plus-xception-voc", "model.ckpt", XCEPTION),
    ],
)
def test_an_entry_of_the_registry_becomes_a_model(
    name: str, checkpoint: str, config: DeepLabV3Config, save_checkpoint: Save, tmp_path: Path
) -> None:
    prefix = save_checkpoint(variables(random_weights(config)))
    entry = load_registry().find(name)
    (artifact,) = entry.artifacts
    packed = tmp_path / artifact.filename
    with tarfile.open(packed, "w:gz") as archive:
        for suffix in ("index", "data-00000-of-00001"):
            archive.add(f"{prefix}.{suffix}", f"folder/{checkpoint}.{suffix}")
        archive.add(__file__, f"folder/{GRAPH}")  # Is left in there.
    assert artifact.archive is not None
    archives.unpack(packed, artifact.archive, tmp_path / "unpacked")
    recipe.convert(entry, tmp_path / "unpacked", tmp_path / "x.safetensors")
    model = deeplab_zoo.load(tmp_path / "x.safetensors")
    assert model.config == config
    assert model.numerics.name == entry.numerics == "tf-deeplab"


WITHOUT = """
import sys
import deeplab_zoo
deeplab_zoo.convert_tensorflow(sys.argv[1], sys.argv[2])
print(sorted({"torch", "tensorflow"} & set(sys.modules)))
"""


def test_converting_needs_neither_tensorflow_nor_torch(
    save_checkpoint: Save, tmp_path: Path
) -> None:
    prefix = save_checkpoint(variables(random_weights(MOBILENET)))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(prefix), str(tmp_path / "x.safetensors")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


@BOTH
def test_archives_and_state_dicts_keep_what_names_do_not_tell(
    config: DeepLabV3Config, tmp_path: Path
) -> None:
    config = replace(config, output_stride=8, rates=config.rates and (12, 24, 36))
    source = random_weights(config)
    weights.write(source, tmp_path / "x.safetensors")
    for kept in ("x.h5", "x.pth"):
        deeplab_zoo.convert_legacy(tmp_path / "x.safetensors", tmp_path / kept)
        found = weights.read(tmp_path / kept) if kept == "x.pth" else None
        loaded = deeplab_zoo.load(tmp_path / kept)
        assert loaded.config == config
        assert loaded.numerics == TF_DEEPLAB
        assert found is None or found.config == config


@BOTH
def test_photos_are_padded_with_grey_to_513_and_cropped_back(config: DeepLabV3Config) -> None:
    model = build(random_weights(config))
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    photo = np.full((23, 41, 3), 255, np.uint8)
    numerics = replace(TF_DEEPLAB, test_size=65)  # 513 takes its time.
    assert predict(model, photo, numerics).shape == (23, 41)
    assert seen[0].shape == (1, 3, 65, 65)
    assert (seen[0][..., :23, :41] == 1).all()
    assert (seen[0][..., 23:, :] == 0).all()
    assert TF_DEEPLAB.test_size == 513


@QUICK
def test_onnx_computes_the_same(config: DeepLabV3Config, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = build(random_weights(config))
    deeplab_zoo.export_onnx(model, tmp_path / "x.onnx", size=(34, 65))
    image = torch.randn(1, 3, 34, 65)
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(found), model(image), rtol=1e-5, atol=1e-5)


@QUICK
def test_the_model_compiles_without_graph_breaks(config: DeepLabV3Config) -> None:
    torch.compiler.reset()
    model = build(random_weights(config))
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    image = torch.randn(2, 3, 34, 49)
    with torch.no_grad():
        torch.testing.assert_close(compiled(image), model(image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("aspp0/weights"), "names of parameters are not those of any net of tensorflow"),
        (lambda found: found.pop("MobilenetV2/expanded_conv_9/expand/BatchNorm/gamma"), "not those of any net"),
        (lambda found: found.update({"aspp0/extra": found["aspp0/weights"]}), "aspp0/extra.*\n.*DeepLab v3 or v3. of TensorFlow"),
        (lambda found: found.update({"xception_65/shortcut/weights": found["aspp0/weights"]}), "xception_65/shortcut"),
        (lambda found: found.update({"aspp0/weights": found["aspp0/weights"][..., :3]}), "branches.0.conv.weight"),
        (lambda found: found.update({"MobilenetV2/expanded_conv/depthwise/depthwise_weights": np.ones((3, 3, 2, 2), "f4")}), "block0.depthwise.conv.weight"),
    ],
)  # fmt: skip
def test_missing_mixed_and_misshapen_variables_are_named(
    save_checkpoint: Save, convert: Convert, change: Any, message: str
) -> None:
    found = variables(random_weights(MOBILENET))
    change(found)
    with pytest.raises(MismatchError, match=message):
        convert(save_checkpoint(found))


def test_what_never_was_is_refused_in_words(tmp_path: Path) -> None:
    for name, config, numerics in (
        ("a", MOBILENET, TF_DEEPLAB),
        ("b", DeepLabV3Config(style="torchvision", decoder=False, output_stride=8, width=0.02), TORCHVISION),
    ):  # fmt: skip
        weights.write(random_weights(config, numerics), tmp_path / f"{name}.safetensors")
    for name, to, out in (
        ("a", "npy", "x.npy"), ("a", "caffe", "x.caffemodel"), ("b", "tf", "x"), ("b", "npy", "x.npy"),
    ):  # fmt: skip
        with pytest.raises(
            MismatchError, match=rf"{name}.safetensors: DeepLab v3.*never was one for {to}"
        ):
            deeplab_zoo.export(
                tmp_path / f"{name}.safetensors", tmp_path / out, to=to, mixed_numerics=True
            )
    weights.write(random_weights(MOBILENET, TORCHVISION), tmp_path / "c.safetensors")
    with pytest.raises(
        MismatchError, match="under 'torchvision', a file for tf is run under 'tf-deeplab'"
    ):
        deeplab_zoo.export(tmp_path / "c.safetensors", tmp_path / "x", to="tf")
    deeplab_zoo.export(tmp_path / "a.safetensors", tmp_path / "x", to="tf-v1")
    with pytest.raises(UsageError, match="runs at one scale. Leave it out"):
        deeplab_zoo.convert_tensorflow(tmp_path / "x", tmp_path / "y.h5", multi_scale=True)
    native = deeplab_zoo.convert_tensorflow(
        tmp_path / "x", tmp_path / "y.pth", reset_head=True, num_classes=9
    )
    assert native.fresh == ("classifier.score.conv.weight", "classifier.score.conv.bias")
    assert native.weights.config.classes == 9

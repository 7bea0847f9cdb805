"""TensorFlow's own DeepLab: what real TensorFlow computed, wrote and froze, and the way back."""

import importlib.util
import os
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
from filelock import FileLock

import deeplab_zoo
from deeplab_zoo.converters import weights
from deeplab_zoo.converters.archive import Origin
from deeplab_zoo.converters.deeplab_v3 import DeepLabV3Config, parameters
from deeplab_zoo.converters.describe import describe
from deeplab_zoo.converters.export import variables
from deeplab_zoo.converters.native import Native
from deeplab_zoo.converters.numerics import TF_DEEPLAB, TORCHVISION, Numerics
from deeplab_zoo.proto.checkpoint import open_checkpoint
from deeplab_zoo.proto.checkpoint_write import write_v2
from deeplab_zoo.proto.errors import FormatError, MismatchError, UsageError
from deeplab_zoo.zoo.models.deeplab_v3 import DeepLabV3
from deeplab_zoo.zoo.models.inference import predict, prepare
from deeplab_zoo.zoo.models.load import build
from deeplab_zoo.zoo.models.resampling import resize
from deeplab_zoo.zoo.weights import archives, recipe
from deeplab_zoo.zoo.weights.registry import load_registry

PROGRAM = Path(__file__).parent / "run_tf_deeplab.py"
QUIET = {"TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
SIZES = ("33x321", "34x50")
GRAPH = "frozen_inference_graph.pb"
CHECKPOINT = "model.ckpt-3"
EIGHTH = 0.125  # The program's width.

XCEPTION = DeepLabV3Config(5, "tensorflow", "xception65", width=EIGHTH)
MOBILENET = DeepLabV3Config(5, "tensorflow", "mobilenet_v2", decoder=False, rates=(), width=EIGHTH)
BOTH = pytest.mark.parametrize("config", [XCEPTION, MOBILENET], ids=["xception", "mobilenet"])
# A graph of Xception takes its time to make.
QUICK = pytest.mark.parametrize(
    "config",
    [
        pytest.param(XCEPTION, marks=pytest.mark.slow, id="xception"),
        pytest.param(MOBILENET, id="mobilenet"),
    ],
)

Convert = Callable[[Path], Native]
Save = Callable[[dict[str, Any]], Path]


def run_tensorflow(root: Path, *nets: str) -> Path:
    command = [sys.executable, str(PROGRAM), str(root), *nets]
    done = subprocess.run(
        command, env=os.environ | QUIET, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return root


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What real TensorFlow left, a folder for each net; run once, whoever asks for it."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs tensorflow")
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tf_deeplab"
    with FileLock(f"{root}.lock"):
        if not root.is_dir():
            root.mkdir()
            run_tensorflow(root, "xception", "mobilenet", "mobilenet_8")
    return root


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    return lambda path: deeplab_zoo.convert_tensorflow(path, tmp_path / "x.safetensors")


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(found: dict[str, Any]) -> Path:
        prefix = tmp_path / "model.ckpt"
        with (
            Path(f"{prefix}.index").open("wb") as index,
            Path(f"{prefix}.data-00000-of-00001").open("wb") as data,
        ):
            write_v2(found, index, data)
        return prefix

    return write


def random_weights(config: DeepLabV3Config, numerics: Numerics = TF_DEEPLAB) -> weights.Weights:
    random = np.random.default_rng(3)
    state = {
        name: (random.uniform(0.5, 1.5, shape) / max(1, np.prod(shape[1:]))).astype("f4")
        for name, shape in parameters(config).items()
    }
    return weights.Weights(state, config, numerics, Origin("x", {}, "x"))


def relative(found: torch.Tensor, expected: np.ndarray[Any, Any]) -> float:
    """``expected`` has TensorFlow's axes."""
    wanted = torch.from_numpy(expected).permute(0, 3, 1, 2)
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


def scored(model: DeepLabV3, photos: np.ndarray[Any, Any]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.cat([prepare(one, model.numerics) for one in photos]))


def check_scores(folder: Path, model: DeepLabV3) -> None:
    with np.load(folder / "scores.npz") as found:
        for size in SIZES:
            photos = found[f"image_{size}"]
            scores = scored(model, photos)
            assert relative(scores, found[f"scores_{size}"]) < 1e-5
            full = resize(scores, photos.shape[1:3], model.numerics)
            assert relative(full, found[f"full_{size}"]) < 1e-5


@pytest.mark.parametrize(
    ("net", "file", "config"),
    [
        ("xception", GRAPH, XCEPTION),
        ("mobilenet", CHECKPOINT, MOBILENET),
        ("mobilenet_8", GRAPH, replace(MOBILENET, output_stride=8)),
    ],
)
def test_scores_are_those_of_real_tensorflow(
    original: Path, convert: Convert, net: str, file: str, config: DeepLabV3Config
) -> None:
    native = convert(original / net / file)
    assert native.weights.config == config
    assert native.weights.numerics == TF_DEEPLAB
    check_scores(original / net, build(native.weights))


@pytest.mark.slow
def test_xception_at_output_stride_8_is_that_of_real_tensorflow(
    tmp_path: Path, convert: Convert
) -> None:
    run_tensorflow(tmp_path, "xception_8")
    native = convert(tmp_path / "xception_8" / GRAPH)
    assert native.weights.config == replace(XCEPTION, output_stride=8, rates=(12, 24, 36))
    check_scores(tmp_path / "xception_8", build(native.weights))


@pytest.mark.parametrize("net", ["xception", "mobilenet"])
def test_other_conventions_are_other_functions(original: Path, convert: Convert, net: str) -> None:
    """Each is well above the tolerance, so that agreement shows that none was mistaken."""
    native = convert(original / net / CHECKPOINT)
    with np.load(original / net / "scores.npz") as found:
        photos, expected = found["image_34x50"], found["scores_34x50"]
    for change in ({"bn_eps": 1e-5}, {"padding": "explicit"}, {"resize": "half_pixel"}):
        model = build(replace(native.weights, numerics=replace(TF_DEEPLAB, **change)))
        scores = scored(model, photos)
        # Xception pads explicitly itself; only a decoder resizes before the scores.
        same = {"xception": ["padding"], "mobilenet": ["resize"]}[net]
        assert (relative(scores, expected) < 1e-5) == (list(change) == same), change


def test_other_rates_are_another_function(original: Path, convert: Convert) -> None:
    native = convert(original / "xception" / CHECKPOINT)
    with np.load(original / "xception" / "scores.npz") as found:
        photos, expected = found["image_33x321"], found["scores_33x321"]
    for rates in ((6, 12, 19), (6, 11, 18), (7, 12, 18)):
        config = replace(native.weights.config, rates=rates)
        scores = scored(build(replace(native.weights, config=config)), photos)
        assert relative(scores, expected) > 1e-4, rates


@pytest.mark.parametrize("net", ["xception", "mobilenet"])
def test_a_graph_a_checkpoint_and_the_way_back_hold_the_same_bits(
    original: Path, convert: Convert, tmp_path: Path, net: str
) -> None:
    native = convert(original / net / CHECKPOINT)
    assert deeplab_zoo.compare(original / net / GRAPH, tmp_path / "x.safetensors").equal
    stored = open_checkpoint(original / net / CHECKPOINT)
    left = {name for name, _ in native.conversion.dropped}
    assert {name.rpartition("/")[2] for name in left} == {
        "global_step", "RMSProp", "RMSProp_1", "ExponentialMovingAverage",
    }  # fmt: skip
    deeplab_zoo.export(tmp_path / "x.safetensors", tmp_path / "y", to="tf")
    written = open_checkpoint(tmp_path / "y")
    assert set(written) == set(stored) - left
    for name, one in written.items():
        expected = stored[name].read()
        assert one.shape == expected.shape
        assert one.read().tobytes() == expected.tobytes()


def test_a_folder_of_the_zoo_is_told_and_read(original: Path, convert: Convert) -> None:
    assert describe(original / "mobilenet").content == "DeepLab v3 or v3+"
    found = describe(original / "mobilenet" / GRAPH)
    assert (found.kind, found.content) == ("TensorFlow frozen graph", "DeepLab v3 or v3+")
    assert "SpaceToBatchND" in found.facts["operations"]
    assert convert(original / "mobilenet").weights.config == MOBILENET


def test_a_graph_that_is_cut_short_is_refused(
    original: Path, convert: Convert, tmp_path: Path
) -> None:
    whole = (original / "mobilenet" / GRAPH).read_bytes()
    for size in np.linspace(100, len(whole) - 1, 23).astype(int):
        (tmp_path / "cut.pb").write_bytes(whole[:size])
        with pytest.raises((FormatError, MismatchError), match=r"cut.pb|names of parameters"):
            convert(tmp_path / "cut.pb")


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
    name: str, checkpoint: str, config: DeepLabV3Config, save: Save, tmp_path: Path
) -> None:
    prefix = save(variables(random_weights(config)))
    entry = load_registry().find(name)
    (artifact,) = entry.artifacts
    packed = tmp_path / artifact.filename
    with tarfile.open(packed, "w:gz") as archive:
        for suffix in ("index", "data-00000-of-00001"):
            archive.add(f"{prefix}.{suffix}", f"folder/{checkpoint}.{suffix}")
        archive.add(PROGRAM, f"folder/{GRAPH}")  # Is left in there.
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


def test_converting_needs_neither_tensorflow_nor_torch(save: Save, tmp_path: Path) -> None:
    prefix = save(variables(random_weights(MOBILENET)))
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
    save: Save, convert: Convert, change: Any, message: str
) -> None:
    found = variables(random_weights(MOBILENET))
    change(found)
    with pytest.raises(MismatchError, match=message):
        convert(save(found))


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
    with pytest.raises(UsageError, match="run at one scale. Leave --multi-scale out"):
        deeplab_zoo.convert_tensorflow(tmp_path / "x", tmp_path / "y.h5", multi_scale=True)
    native = deeplab_zoo.convert_tensorflow(
        tmp_path / "x", tmp_path / "y.pth", reset_head=True, num_classes=9
    )
    assert native.fresh == ("classifier.score.conv.weight", "classifier.score.conv.bias")
    assert native.weights.config.classes == 9

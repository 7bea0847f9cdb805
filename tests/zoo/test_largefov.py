"""DeepLab LargeFOV: the native model beside the graph, OpenCV's engine and its own round trips."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import deeplab_zoo
from deeplab_zoo import LargeFOV, LargeFOVConfig, convert_caffe, export, load, load_caffe
from deeplab_zoo.cli.main import cli
from deeplab_zoo.converters.convert import convert_legacy
from deeplab_zoo.converters.export import open_weights
from deeplab_zoo.converters.families import LARGEFOV
from deeplab_zoo.converters.largefov import infer_config, parameters
from deeplab_zoo.converters.numerics import TF_SLIM
from deeplab_zoo.converters.write_caffe import filled
from deeplab_zoo.proto import caffemodel
from deeplab_zoo.proto.errors import MismatchError, UsageError
from deeplab_zoo.proto.records import Blob, Net
from deeplab_zoo.zoo.demo import write_net
from deeplab_zoo.zoo.parity import opencv
from deeplab_zoo.zoo.parity.blobs import activations
from deeplab_zoo.zoo.parity.comparison import compare
from deeplab_zoo.zoo.parity.job import parity
from deeplab_zoo.zoo.parity.original import open_original

PLAIN = LargeFOVConfig(classes=5, widths=(3, 4, 5, 6, 7), hidden=8)
SIDES = replace(PLAIN, sides=4)
HEADS = replace(PLAIN, rates=(6, 12, 18, 24), average=False)
FIRST = replace(PLAIN, kernel=7, rates=(4,))
CONFIGS = pytest.mark.parametrize("config", [PLAIN, SIDES, HEADS, FIRST])

TO_OPENCV = 3e-6  # Relative L2 of a blob; 1e-6 is usual for two engines' float32.


def random_net(config: LargeFOVConfig, height: int = 65, width: int = 97) -> Net:
    """Uniform weights of He's variance, which keep activations in range."""
    shapes = parameters(config)
    blobs: dict[str, tuple[Blob, ...]] = {}
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        module, _, parameter = name.rpartition(".")
        if parameter == "weight":
            bound = np.sqrt(6 / prod(shape[1:]))
            arrays = random.uniform(-bound, bound, shape), random.normal(0, 0.1, shape[0])
            layer = LARGEFOV.naming.from_canonical("caffe", module, LARGEFOV.context(config))
            blobs[layer] = tuple(Blob(one.shape, one.astype(np.float32)) for one in arrays)
    return filled(LARGEFOV.caffe.deploy(config, height, width), blobs)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write a random net as Caffe keeps it."""

    def write(config: LargeFOVConfig, height: int = 65, width: int = 97) -> tuple[Path, Path]:
        text, binary = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
        write_net(random_net(config, height, width), text, binary)
        return text, binary

    return write


Make = Callable[..., tuple[Path, Path]]


def blobs_of(path: Path) -> Mapping[str, tuple[np.ndarray, ...]]:
    layers = caffemodel.read(path).layers
    return {one.name: tuple(blob.data for blob in one.blobs) for one in layers if one.blobs}


@CONFIGS
def test_the_models_state_is_what_the_architecture_states(config: LargeFOVConfig) -> None:
    with torch.device("meta"):
        state = LargeFOV(config).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == parameters(config)
    told = {"rates": config.rates, "average": config.average}
    assert infer_config(parameters(config), **told) == config


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (LargeFOVConfig(), 20_505_429),  # vgg16_20M, the authors' own name for its start.
        (LargeFOVConfig(rates=(6, 12, 18, 24), average=False), 37_877_652),
    ],
)
def test_the_published_nets_have_their_numbers(config: LargeFOVConfig, count: int) -> None:
    assert sum(map(prod, parameters(config).values())) == count
    assert infer_config(parameters(config)) == config


@CONFIGS
def test_every_blob_is_the_graphs_to_the_bit(
    make: Make, tmp_path: Path, config: LargeFOVConfig
) -> None:
    text, binary = make(config)
    native = convert_caffe(text, binary, tmp_path / "x.safetensors")
    assert native.weights.config == config
    image = torch.randn(2, 3, 65, 97) * 60
    with torch.inference_mode():
        expected = load_caffe(text, binary)({"data": image}, blobs="all")
    found = activations(load(tmp_path / "x.safetensors"), image.numpy())
    assert set(found) == set(expected)
    for blob, value in expected.items():
        np.testing.assert_array_equal(found[blob], value.numpy(), err_msg=blob)


@pytest.mark.parametrize(
    ("config", "size"), [(PLAIN, (71, 50)), (SIDES, (65, 97)), (HEADS, (96, 128))]
)
def test_every_blob_is_opencvs(
    make: Make, tmp_path: Path, config: LargeFOVConfig, size: tuple[int, int]
) -> None:
    pytest.importorskip("cv2")
    text, binary = make(config, *size)
    convert_caffe(text, binary, tmp_path / "x.pth")
    image = np.random.default_rng(1).normal(0, 60, (1, 3, *size)).astype(np.float32)
    reference = opencv.engine(open_original([text, binary])).run({"data": image})
    ours = activations(load(tmp_path / "x.pth"), image)
    assert set(reference) >= set(ours) - {"data"}
    for blob, value in reference.items():
        assert compare(blob, ours[blob], value).relative_l2 <= TO_OPENCV, blob


@pytest.mark.parametrize("config", [SIDES, HEADS])
def test_the_parity_report_passes(make: Make, tmp_path: Path, config: LargeFOVConfig) -> None:
    text, binary = make(config)
    convert_caffe(text, binary, tmp_path / "x.safetensors")
    report = parity(tmp_path / "x.safetensors", text, binary, sizes=[(65, 97)])
    assert report.passed
    assert report.subject.startswith("DeepLab ")
    assert "LargeFOV (VGG16)" in report.subject


@CONFIGS
@pytest.mark.parametrize("between", ["x.safetensors", "x.pth", "x.h5"])
def test_the_way_back_to_caffe_is_exact(
    make: Make, tmp_path: Path, config: LargeFOVConfig, between: str
) -> None:
    text, binary = make(config)
    convert_caffe(text, binary, tmp_path / between)
    export(tmp_path / between, tmp_path / "back.caffemodel", to="caffe")
    before, after = blobs_of(binary), blobs_of(tmp_path / "back.caffemodel")
    assert list(before) == list(after)
    for layer, arrays in before.items():
        for one, other in zip(arrays, after[layer], strict=True):
            np.testing.assert_array_equal(one, other)
    again = convert_caffe(
        tmp_path / "back.prototxt", tmp_path / "back.caffemodel", tmp_path / "y.safetensors"
    )
    assert again.weights.config == config
    assert deeplab_zoo.compare(binary, tmp_path / between).equal


def test_an_archive_of_native_weights_keeps_what_shapes_do_not_show(
    make: Make, tmp_path: Path
) -> None:
    config = replace(HEADS, rates=(3, 5, 7, 9), average=True)
    convert_caffe(*make(config), tmp_path / "x.safetensors")
    export(tmp_path / "x.safetensors", tmp_path / "x.h5", to="h5")
    assert open_weights(tmp_path / "x.h5").config == config
    convert_legacy(tmp_path / "x.h5", tmp_path / "y.safetensors")
    assert open_weights(tmp_path / "y.safetensors").config == config


# DeepLab v1's words: V1 layers, holes, and what its test nets end in.
V1 = {
    "ReLU": "RELU", "Convolution": "CONVOLUTION", "Pooling": "POOLING", "Interp": "INTERP",
    "Dropout": "DROPOUT", "Eltwise": "ELTWISE",
}  # fmt: skip


def in_v1_words(text: str) -> str:
    header, *layers = text.split("layer {")
    rest = layers[1:]
    for new, old in V1.items():
        rest = [one.replace(f'type: "{new}"', f"type: {old}") for one in rest]
    rest = [one.replace("dilation:", "hole:") for one in rest]
    ends = """layers { name: "mat" type: MAT_WRITE bottom: "fc8_interp" mat_write_param { prefix: "x" } }
        layers { name: "acc" type: SEG_ACCURACY bottom: "fc8_interp" bottom: "label" top: "acc"
                 strict_dim: false seg_accuracy_param { ignore_label: 255 } }"""
    source = """layers { name: "data" type: IMAGE_SEG_DATA top: "data" top: "label"
                include { phase: TEST } image_data_param { source: "val.txt" } }"""
    return header + source + "".join("layers {" + one for one in rest) + ends


@pytest.mark.parametrize("config", [PLAIN, SIDES])
def test_the_first_deeplabs_prototxts_are_read(
    make: Make, tmp_path: Path, config: LargeFOVConfig
) -> None:
    text, binary = make(config)
    old = tmp_path / "old.prototxt"
    old.write_text(in_v1_words(text.read_text()).replace("fc8_voc12", "fc8_pascal_scribble"))
    net = caffemodel.read(binary)
    for one in net.layers:
        one.params.name = one.name.replace("voc12", "pascal_scribble")
    write_net(net, tmp_path / "unused", tmp_path / "old.caffemodel")
    native = convert_caffe(old, tmp_path / "old.caffemodel", tmp_path / "x.safetensors")
    assert native.weights.config == config
    old.write_text(old.read_text().replace("hole: 2", "hole: 2 dilation: 2", 1))
    with pytest.raises(deeplab_zoo.ZooError, match="hole and dilation, expected hole"):
        convert_caffe(old, tmp_path / "old.caffemodel", tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("dilation: 12", "dilation: 6"), "pad 12, expected 6"),
        (("pool: AVE", "pool: MAX"), "ave-pool of .*not in the file"),
        (("stride: 1", "stride: 2"), "stride 2, expected 1"),
    ],
)
def test_a_net_that_computes_something_else_is_refused(
    make: Make, tmp_path: Path, change: tuple[str, str], complaint: str
) -> None:
    text, binary = make(PLAIN)
    head, pooling, tail = text.read_text().partition('name: "pool5"')
    text.write_text(head + pooling + tail.replace(*change, 1))
    with pytest.raises(MismatchError, match=r"not the DeepLab LargeFOV \(VGG16\)") as caught:
        convert_caffe(text, binary, tmp_path / "x.safetensors")
    assert re.search(complaint, str(caught.value))


def test_a_head_can_start_afresh_from_weights_without_one(make: Make, tmp_path: Path) -> None:
    _, binary = make(PLAIN)
    net = caffemodel.read(binary)
    layers = tuple(one for one in net.layers if not one.name.startswith("fc8"))
    write_net(replace(net, layers=layers), tmp_path / "init.prototxt", binary)
    with pytest.raises(MismatchError, match="not a DeepLab v2 ResNet or .* a VGG network"):
        convert_caffe(tmp_path / "init.prototxt", binary, tmp_path / "x.safetensors")
    native = convert_caffe(
        tmp_path / "init.prototxt", binary, tmp_path / "x.safetensors",
        reset_head=True, num_classes=11,
    )  # fmt: skip
    assert native.fresh == ("classifier.fc8.0.weight", "classifier.fc8.0.bias")
    assert native.weights.config.classes == 11
    np.testing.assert_array_equal(
        native.weights.state["backbone.fc6.0.weight"], blobs_of(binary)["fc6"][0]
    )


def test_an_imagenet_vgg_is_no_start(tmp_path: Path, make: Make) -> None:
    text, binary = make(PLAIN)
    net = caffemodel.read(binary)
    full = [
        replace(one, blobs=(Blob((9, 12), np.zeros((9, 12), np.float32)), *one.blobs[1:]))
        if one.name == "fc6"
        else one
        for one in net.layers
    ]
    write_net(replace(net, layers=tuple(full)), tmp_path / "unused", binary)
    with pytest.raises(MismatchError, match=r"'fc6'.* blob 0 has shape \[9, 12\]"):
        convert_caffe(text, binary, tmp_path / "x.safetensors")


@pytest.mark.parametrize("config", [PLAIN, SIDES])
def test_any_photo_gives_a_mask_of_its_size(config: LargeFOVConfig) -> None:
    torch.manual_seed(0)
    model = LargeFOV(config).train()
    photo = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    mask = model.predict(photo)
    assert mask.shape == (70, 90)
    assert np.array_equal(mask, model.predict(photo))  # No dropout in it.
    assert model.training


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (33, 48), (81, 71)])
def test_scores_have_an_eighth_of_the_size_or_with_side_branches_all_of_it(
    size: tuple[int, int],
) -> None:
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        small, full = (LargeFOV(one).eval()(image) for one in (PLAIN, SIDES))
    assert tuple(small.shape) == (2, 5, *(-(-(n - 1) // 8) + 1 for n in size))
    assert tuple(full.shape) == (2, 5, *size)


def test_training_drops_features_and_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    model = LargeFOV(SIDES).train()
    image = torch.randn(1, 3, 33, 41)
    first, second = model(image), model(image)
    assert not torch.equal(first, second)
    (first + second).square().sum().backward()
    assert all(value.grad is not None for value in model.parameters())


def test_under_tensorflows_padding_pools_are_same_and_averages_leave_padding_out() -> None:
    torch.manual_seed(0)
    model = LargeFOV(PLAIN, TF_SLIM).eval()
    ones = torch.ones(1, 7, 4, 5)
    assert model.backbone.pool5a is not None
    torch.testing.assert_close(model.backbone.pool5a(ones), ones)
    x = torch.arange(6.0).reshape(1, 1, 1, 6)
    # SAME of 6 at stride 2: one column of padding, at the end.
    assert model.backbone.pool1(x).flatten().tolist() == [2.0, 4.0, 5.0]
    assert model(torch.randn(1, 3, 64, 48)).shape[2:] == (8, 6)


def test_the_layouts_of_another_family_are_refused(make: Make, tmp_path: Path) -> None:
    convert_caffe(*make(PLAIN), tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match=r"isht7.*LargeFOV \(VGG16\) has canonical"):
        export(tmp_path / "x.safetensors", tmp_path / "y.pth", layout="isht7")


def test_a_state_dict_without_our_record_is_recognised(make: Make, tmp_path: Path) -> None:
    convert_caffe(*make(HEADS), tmp_path / "x.safetensors")
    model = load(tmp_path / "x.safetensors")
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    again = load(tmp_path / "bare.pth", numerics="caffe-v2")
    assert again.config == HEADS
    assert deeplab_zoo.compare(tmp_path / "bare.pth", tmp_path / "x.safetensors").equal


def test_the_commands_say_what_it_is(make: Make, tmp_path: Path) -> None:
    text, binary = make(SIDES)
    out = tmp_path / "x.safetensors"
    done = command("convert", "caffe", text, binary, "-o", out)
    assert "DeepLab MSC-LargeFOV (VGG16), rates (12,), 5 classes, numerics caffe-v2" in done
    assert "DeepLab LargeFOV (VGG16), single-scale" in command("inspect", out)
    assert "DeepLab LargeFOV (VGG16)" in command("inspect", binary)


def command(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [str(one) for one in arguments])
    assert done.exit_code == 0, done.exception
    return done.stdout

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deeplab_zoo.converters import convert
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, parameters
from deeplab_zoo.converters.numerics import CAFFE_V2
from deeplab_zoo.proto.errors import MismatchError
from deeplab_zoo.zoo.models.deeplab_v2 import DeepLabV2
from deeplab_zoo.zoo.models.inference import padded_size, prepare
from deeplab_zoo.zoo.models.load import load
from deeplab_zoo.zoo.models.resampling import scaled
from deeplab_zoo.zoo.parity.blobs import activations
from deeplab_zoo.zoo.parity.comparison import TOLERANCE, compare

ARGMAX = 0.9999  # Share of pixels; a different BLAS kernel moves Caffe's own scores by 1e-6.


@pytest.fixture
def tiny(tiny_config: DeepLabV2Config) -> DeepLabV2:
    return random_model(tiny_config)


@pytest.fixture
def multi(tiny_multi: DeepLabV2Config) -> DeepLabV2:
    return random_model(tiny_multi)


def random_model(config: DeepLabV2Config) -> DeepLabV2:
    torch.manual_seed(0)
    return DeepLabV2(config).eval()


@pytest.mark.parametrize("config", [DeepLabV2Config(), DeepLabV2Config(rates=(12,), classes=91)])
def test_the_models_state_is_what_the_architecture_states(config: DeepLabV2Config) -> None:
    with torch.device("meta"):
        state = DeepLabV2(config).state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert shapes == parameters(config)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("net", "weights"),
    [("single", "single"), ("msc", "msc"), ("single", "msc"), ("msc", "single"),
     ("single_drsleep", "single"), (None, "single"), (None, "msc")],
)  # fmt: skip
def test_every_blob_of_the_real_caffe_is_reproduced(
    small: Path, tmp_path: Path, net: str | None, weights: str
) -> None:
    out = tmp_path / "model.safetensors"
    text = small / f"{net}.prototxt" if net else None
    convert.convert_caffe(text, small / f"{weights}.caffemodel", out)
    check_blobs(out, small)


@pytest.mark.golden
def test_caffes_hdf5_weights_give_the_same_model(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.h5"
    convert.convert_caffe(small / "single.prototxt", small / "single.caffemodel.h5", out)
    check_blobs(out, small)


def check_blobs(path: Path, small: Path) -> None:
    model = load(path)
    with np.load(small / "single_blobs.npz") as single, np.load(small / "msc_blobs.npz") as msc:
        expected = {name: single[name] for name in single.files}
        if len(model.config.scales) > 1:
            expected |= {name: msc[name] for name in msc.files}
    ours = activations(model, expected["data"])
    compared = [compare(blob, ours[blob], value) for blob, value in expected.items()]
    worst = max(compared, key=lambda one: one.relative_l2)
    assert worst.relative_l2 <= TOLERANCE, f"worst blob {worst}"
    final = next(one for one in compared if one.blob == "fc1_interp")
    assert final.agreement >= ARGMAX
    assert len(compared) == (145 if len(model.config.scales) == 1 else 168)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 9), (33, 48), (64, 65), (65, 97), (81, 71)])
def test_any_size_gives_scores_at_an_eighth(
    tiny: DeepLabV2, multi: DeepLabV2, size: tuple[int, int]
) -> None:
    image = torch.randn(2, 3, *size)
    for model in (tiny, multi):
        with torch.no_grad():
            scores = model(image)
        assert scores.shape[:2] == (2, 5)
        assert tuple(scores.shape[2:]) == tuple(eighth(n) for n in size)
        assert scores.isfinite().all()


def eighth(size: int) -> int:
    """By Caffe's rules: a halving convolution, the ceil pooling, a halving convolution."""
    conv = (size - 1) // 2 + 1
    pool = math.ceil((conv + 2 - 3) / 2) + 1
    pool -= (pool - 1) * 2 >= conv + 1
    return (pool - 1) // 2 + 1


@pytest.mark.parametrize(
    ("size", "expected"), [(65, 49), (97, 73), (321, 241), (513, 385), (100, 73)]
)
def test_three_quarters_is_caffes_shrink_by_four_then_zoom_by_three(
    size: int, expected: int
) -> None:
    assert scaled(torch.zeros(1, 3, size, 65), 0.75, CAFFE_V2).shape[2] == expected
    assert scaled(torch.zeros(1, 3, size, 65), 0.5, CAFFE_V2).shape[2] == (size - 1) // 2 + 1


def test_training_returns_what_the_four_losses_need(multi: DeepLabV2) -> None:
    image = torch.randn(2, 3, 65, 97)
    outputs = multi.train()(image)
    assert isinstance(outputs, list)
    assert [tuple(one.shape[2:]) for one in outputs] == [(9, 13), (9, 13), (5, 7), (9, 13)]
    outputs[-1].sum().backward()
    assert multi.backbone.conv1.weight.grad is not None


def test_the_fused_scores_are_the_maximum_over_the_scales(multi: DeepLabV2) -> None:
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        fused = multi(image)
        single = multi.score(image)
    assert (fused >= single).all()
    assert not torch.equal(fused, single)


def test_channels_last_gives_the_same_scores(multi: DeepLabV2) -> None:
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        expected = multi(image)
        turned = multi.to(memory_format=torch.channels_last)
        found = turned(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dynamic", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_model_compiles_without_graph_breaks(dynamic: bool) -> None:
    multi = random_model(DeepLabV2Config(3, (1, 1, 1, 1), 4, (2, 2, 2, 2), scales=(1, 0.75, 0.5)))
    compiled = torch.compile(multi, fullgraph=True, dynamic=dynamic, backend="eager")
    for size in ((65, 97), (71, 81))[: 1 + dynamic]:
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(compiled(image), multi(image))


def test_an_image_is_centred_and_reversed_as_the_profile_says(tiny: DeepLabV2) -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[..., 0] = 200  # red
    x = prepare(image, tiny.numerics)
    assert x.shape == (1, 3, 2, 3)
    expected = np.array([0 - 104.008, 0 - 116.669, 200 - 122.675], np.float32)
    np.testing.assert_array_equal(x[0, :, 0, 0].numpy(), expected)


def test_small_images_are_padded_to_the_test_size_and_large_ones_to_a_shared_grid(
    tiny: DeepLabV2,
) -> None:
    sizes = [padded_size(n, tiny.numerics) for n in (1, 500, 513, 514, 545, 546, 2000)]
    assert sizes == [513, 513, 513, 545, 545, 577, 2017]


@pytest.mark.parametrize("size", [(1, 1), (70, 90), (513, 40)])
def test_a_photo_of_any_size_gives_a_mask_of_that_size(
    tiny: DeepLabV2, size: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = tiny.predict(image)
    assert mask.shape == size
    assert mask.dtype == np.uint8
    assert mask.max() < 5


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3), np.float32), np.zeros((4, 5, 4), np.uint8),
     np.zeros((0, 5, 3), np.uint8)],
)  # fmt: skip
def test_what_is_no_photo_is_refused(tiny: DeepLabV2, image: np.ndarray) -> None:
    from deeplab_zoo import ZooError

    with pytest.raises(ZooError, match=r"expected uint8 .height, width, 3., RGB"):
        tiny.predict(image)


def test_more_classes_than_a_mask_can_tell_are_refused(tiny: DeepLabV2) -> None:
    many = DeepLabV2(replace(tiny.config, classes=257), tiny.numerics)
    with pytest.raises(MismatchError, match="model: 257 classes, a mask holds 256 at most"):
        many.predict(np.zeros((5, 6, 3), np.uint8))


def test_prediction_leaves_training_mode_as_it_was(tiny: DeepLabV2) -> None:
    tiny.train()
    tiny.predict(np.zeros((5, 6, 3), np.uint8))
    assert tiny.training

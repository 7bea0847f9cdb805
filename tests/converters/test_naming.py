import json
from pathlib import Path

import pytest

from deeplab_zoo.converters import families
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, infer_config, parameters
from deeplab_zoo.converters.naming import deeplab_v2 as names

LAYOUT_FILES = {
    "isht7": "isht7_ms_deeplab",
    "kazuto1011": "kazuto_deeplabv2_resnet101_msc",
    "advsemiseg": "advsemiseg_deeplab",
}


@pytest.mark.parametrize("scheme", [*names.LAYOUTS, "caffe"])
@pytest.mark.parametrize("blocks", [(3, 4, 23, 3), (1, 2, 4, 3), (3, 3, 3, 3)])
def test_every_module_keeps_its_name_there_and_back(
    scheme: str, blocks: tuple[int, int, int, int]
) -> None:
    context = names.context_of(blocks, 0.75)
    seen = set()
    for name in parameters(DeepLabV2Config(blocks=blocks)):
        module = name.rpartition(".")[0]
        foreign = names.from_canonical(scheme, module, context)
        back = names.to_canonical(scheme, foreign)
        assert back is not None
        assert back[0] == module
        seen.add(foreign)
    assert len(seen) == len(
        {name.rpartition(".")[0] for name in parameters(DeepLabV2Config(blocks=blocks))}
    )


@pytest.mark.golden
@pytest.mark.parametrize("layout", LAYOUT_FILES)
def test_the_layouts_names_and_shapes_are_the_published_models(shared: Path, layout: str) -> None:
    path = shared / "facts" / "state-dicts" / f"{LAYOUT_FILES[layout]}.json"
    published = json.loads(path.read_text())
    counters = set(published["int64"])
    expected = {k: tuple(v) for k, v in published["entries"].items() if k not in counters}
    config = DeepLabV2Config()
    context = names.context_of(config.blocks)
    ours = {}
    for name, shape in parameters(config).items():
        module, _, parameter = name.rpartition(".")
        ours[f"{names.from_canonical(layout, module, context)}.{parameter}"] = shape
    assert ours == expected


@pytest.mark.parametrize("layout", names.LAYOUTS)
def test_a_layout_is_recognised_by_its_names(layout: str) -> None:
    config = DeepLabV2Config()
    context = names.context_of(config.blocks)
    modules = [name.rpartition(".") for name in parameters(config)]
    found = [f"{names.from_canonical(layout, m, context)}.{p}" for m, _, p in modules]
    assert families.of_state(found) == (families.DEEPLAB_V2, layout)
    assert families.of_state(["features.0.weight", "fc.bias"]) is None


def test_a_config_is_read_off_names_and_shapes(tiny_config: DeepLabV2Config) -> None:
    assert infer_config(parameters(tiny_config)) == tiny_config
    assert infer_config(parameters(DeepLabV2Config())) == DeepLabV2Config()
    single = DeepLabV2Config(rates=(12,))
    assert infer_config(parameters(single)) == single


def test_the_published_net_has_44_million_numbers() -> None:
    total = 0
    for shape in parameters(DeepLabV2Config()).values():
        count = 1
        for size in shape:
            count *= size
        total += count
    assert total == 44_153_876


@pytest.mark.parametrize("number", ["400000000", "9" * 5000, "00", "01", "\u0663"])
def test_a_number_in_a_name_has_one_short_spelling(number: str) -> None:
    assert names.to_canonical("isht7", f"Scale.layer1.{number}.conv1") is None
    assert names.to_canonical("caffe", f"res2b{number}_branch2a") is None

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from deeplab_zoo.zoo.data.dataset import Dataset
from deeplab_zoo.zoo.data.legend import VOC
from deeplab_zoo.zoo.evaluation.evaluate import Evaluation, evaluate
from deeplab_zoo.zoo.evaluation.page import Shown, curve_page, page
from deeplab_zoo.zoo.evaluation.published import Published, published
from deeplab_zoo.zoo.evaluation.report import (
    confusions,
    curve_fields,
    curve_markdown,
    fields,
    markdown,
    percent,
)
from deeplab_zoo.zoo.strict_json import dumps

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

Make = Callable[..., torch.nn.Module]


@pytest.fixture
def found(toy: Make, data: Dataset) -> Evaluation:
    other = Published("an-entry", 0.5, "multi-scale", "<b>a README</b>", "of 1449 images, here 7")
    return replace(
        evaluate(toy(), data),
        subject="<i>odd & name</i>", files={"x.safetensors": "0" * 64}, published=(other,),
        skipped=("p9.png: is damaged",), foreign=True,
    )  # fmt: skip


def test_json_and_markdown_say_the_same(found: Evaluation) -> None:
    found = replace(found, classes=tuple(one.replace(" ", " | ") for one in found.classes))
    read = json.loads(dumps(fields(found)), parse_constant=pytest.fail)
    text = "\n".join(markdown(found))
    assert (read["format"], read["version"]) == ("deeplab-zoo evaluation", 1)
    assert read["headline"] in text
    assert read["confusion"] == [list(row) for row in found.confusion]
    assert read["protocol"]["scales"] == [1.0]
    assert f"| mIoU | {read['scores']['mean_iou']:.2%} |" in text
    assert rf"| class \| 3 | {read['scores']['iou'][3]:.2%} |" in text
    assert "ran under caffe-v2, by request" in text
    assert "left out: p9.png: is damaged" in text
    apart = 100 * found.scores.mean_iou - 50
    assert f"of 1449 images, here 7, so the two do not compare); here {apart:+.2f}" in text


def test_what_is_not_known_is_null(found: Evaluation) -> None:
    scores = replace(found.scores, trimap_iou=math.nan)
    assert fields(replace(found, scores=scores))["scores"]["trimap_iou"] is None
    assert "trimap" not in "\n".join(markdown(replace(found, scores=scores)))
    assert percent(math.nan) == "-"


def test_confusions_are_the_largest_cells_off_the_diagonal(found: Evaluation) -> None:
    matrix = np.array(found.confusion)
    np.fill_diagonal(matrix, 0)
    true, given, pixels, share = confusions(found)[0]
    assert pixels == matrix.max()
    row, column = np.unravel_index(matrix.argmax(), matrix.shape)
    assert (true, given) == (f"class {row}", f"class {column}")
    assert share == pixels / sum(found.confusion[row])


def test_a_curve_has_every_checkpoint_and_the_best(found: Evaluation) -> None:
    worse = replace(
        found, subject="later |", scores=replace(found.scores, mean_iou=found.scores.mean_iou / 2),
        protocol_text="another size", numerics="tf-slim",
    )  # fmt: skip
    read = curve_fields([worse, found])
    assert read["best"] == found.subject
    assert [one["mean_iou"] for one in read["points"]] == [
        worse.scores.mean_iou, found.scores.mean_iou,
    ]  # fmt: skip
    assert [one["numerics"] for one in read["points"]] == ["tf-slim", "caffe-v2"]
    assert [one["protocol"] for one in read["points"]] == ["another size", "padded to 33"]
    lines = list(curve_markdown([worse, found]))
    assert "(padded to 33; caffe-v2)." in lines  # The best one's.
    assert lines[-2].startswith(f"| later \\| | {worse.scores.mean_iou:.2%} |")


def test_a_curve_names_as_many_checkpoints_as_fit(found: Evaluation) -> None:
    points = [replace(found, subject=f"cost_$1$_{one}") for one in range(40)]
    drawn = curve_page(points).split("<svg")[1].split("</svg>")[0]
    assert re.findall(r"cost_\$1\$_(\d+)", drawn) == [str(one) for one in range(0, 40, 3)]


def test_the_page_opens_without_errors_and_says_what_the_json_says(
    browser: "Chrome", found: Evaluation, data: Dataset, tmp_path: Path
) -> None:
    photo = np.full((37, 38, 3), 90, np.uint8)
    shown = [Shown("p6", found.images["p6"], photo, photo[..., 0] // 30, photo[..., 0] // 90)]
    (tmp_path / "report.html").write_text(page(found, data.legend, shown))
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.get_log("browser") == []
    read = fields(found)
    for one in browser.find_elements("css selector", "#scores dd"):
        value = read["scores"][one.get_attribute("data-score")]
        assert one.text.startswith(f"{value:.2%}")
    rows = [
        [cell.text for cell in row.find_elements("tag name", "td")]
        for row in browser.find_elements("css selector", "#classes tbody tr")
    ]
    assert [row[1] for row in rows] == read["classes"]
    assert [row[2] for row in rows] == [f"{one:.2%}" for one in read["scores"]["iou"]]
    assert [int(row[5].replace(",", "")) for row in rows] == [sum(row) for row in read["confusion"]]
    cells = browser.find_elements("css selector", ".matrix tbody td")
    pixels = [
        int(one.get_attribute("title").split(": ")[1].split()[0].replace(",", "")) for one in cells
    ]
    assert pixels == [cell for row in read["confusion"] for cell in row]
    bars = browser.find_elements("css selector", ".bar")
    widths = [bar.find_element("tag name", "i").size["width"] / bar.size["width"] for bar in bars]
    np.testing.assert_allclose(widths, read["scores"]["iou"], atol=0.01)  # Whole pixels.
    assert browser.find_element("tag name", "h1").text.startswith("<i>odd & name</i>")
    pictures = browser.find_elements("tag name", "img")
    assert [one.get_attribute("alt") for one in pictures] == [
        "Picture of p6", "Truth of p6", "Prediction of p6",
    ]  # fmt: skip
    browser.execute_script("arguments[0].scrollIntoView()", pictures[0])
    browser.execute_async_script("arguments[0].decode().finally(arguments[1])", pictures[0])
    assert pictures[0].get_attribute("naturalWidth") == "38"


def test_pages_fit_a_phone_and_follow_dark_mode(
    browser: "Chrome", found: Evaluation, data: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text(page(found, data.legend))
    (tmp_path / "curve.html").write_text(curve_page([found, replace(found, subject="later")]))
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        for name in ("report", "curve"):
            browser.get((tmp_path / f"{name}.html").as_uri())
            width = browser.execute_script("return document.documentElement.scrollWidth")
            paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert (width, paper) == (390, "rgb(20, 23, 26)")
            assert browser.get_log("browser") == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    rows = browser.find_elements("css selector", "#points tbody tr")
    assert rows[1].find_elements("tag name", "td")[1].get_attribute("textContent") == "later"


def test_published_numbers_are_those_of_the_same_classes_and_split(data: Dataset) -> None:
    name = "deeplabv2-resnet101-voc"
    voc = replace(data, legend=VOC)
    without, with_crf = published(name, voc)
    assert (without.mean_iou, with_crf.mean_iou) == pytest.approx((0.7635, 0.7769))
    assert without.remark == "of 1449 images, here 7"
    whole = replace(voc, samples=voc.samples * 207)
    assert published(name, whole)[0].remark == ""
    assert published(name, data) == ()
    assert published(name, replace(voc, split="train")) == ()

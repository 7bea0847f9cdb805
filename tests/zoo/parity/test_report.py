"""The report as JSON, Markdown and a page, the last in a real browser."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deeplab_zoo.converters.compare import Difference
from deeplab_zoo.zoo import markdown
from deeplab_zoo.zoo.parity import page
from deeplab_zoo.zoo.parity.comparison import PROFILES, compare, with_exact
from deeplab_zoo.zoo.parity.diagnosis import Diagnosis
from deeplab_zoo.zoo.parity.report import (
    Compared,
    ParityReport,
    Pictures,
    Weighed,
    fields,
    write_json,
    write_markdown,
)

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FP32 = PROFILES["fp32"]


def values(seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, channels, 4, 5)).astype(np.float32)


def report(*, failing: bool, other_shape: bool = False) -> ParityReport:
    bad = values(1)
    if failing:
        bad[0, bad[0, :, 2, 1].argmax(), 2, 1] -= 9
    if other_shape:
        bad = bad[:, :, :3]
    comparisons = [
        compare("data", values(9), values(9)),
        compare("good", values(0), values(0) * np.float32(1 + 1e-6)),
        compare("<b>odd & name</b>", bad, values(1)),
    ]
    comparisons[1] = with_exact(comparisons[1], values(0), values(0), values(0).astype(float))
    pictures = Pictures(np.zeros((32, 40, 3), np.uint8), bad[0].argmax(0), values(1)[0].argmax(0))
    case = Compared(
        "photo, 32x40", (1, 3, 32, 40), tuple(comparisons), "<b>odd & name</b>", pictures
    )
    return ParityReport(
        "a net",
        "Engine 1.0",
        {"net.prototxt": "00" * 32, f"{'long' * 50}.caffemodel": "01" * 32},
        ("caffe-v2", "caffe-v2"),
        FP32,
        Weighed(7, (Difference("conv.weight", 0.5, "values differ"),) if failing else ()),
        (case,),
        ("extra",),
        Diagnosis("x", "conv", None, "", "", "", (), 3, "Nobody knows.") if failing else None,
        ("a note",),
        {"torch": "2.0"},
    )


def test_a_passing_report_says_so() -> None:
    found = report(failing=False)
    assert found.verdict == (
        "PASS: 7 of 7 tensors bit-exact, 3 of 3 blobs within 1e-05 of Engine 1.0; "
        "worst good at 9.5e-07"
    )
    assert fields(found)["first_difference"] is None


def test_the_first_difference_is_the_first_in_the_networks_order() -> None:
    found = report(failing=True)
    assert found.first is not None
    assert found.first[1].blob == "<b>odd & name</b>"
    assert found.verdict.startswith("FAIL: 6 of 7 tensors bit-exact, 2 of 3 blobs within 1e-05")
    assert found.verdict.endswith("the first that differs is <b>odd & name</b>")


def test_weights_alone_make_a_report_fail() -> None:
    assert not report(failing=True).passed


def test_zeros_on_both_sides_are_no_proof() -> None:
    found = report(failing=False)
    zero = compare("<b>odd & name</b>", 0 * values(), 0 * values())
    dead = replace(zero, blob="dead")
    case = replace(found.cases[0], comparisons=(*found.cases[0].comparisons, dead))
    alive = replace(found, cases=(case,))
    assert alive.passed
    assert alive.verdict.endswith("good at 9.5e-07; zeros on both sides show nothing: dead")
    case = replace(case, comparisons=(*case.comparisons[:2], zero))
    silent = replace(found, cases=(case,))
    assert not silent.passed
    assert silent.verdict.endswith("the scores <b>odd & name</b> are zeros on both sides")
    assert replace(found, cases=(case, *found.cases)).passed  # Another input shows them.


def test_names_do_not_break_the_markdown(tmp_path: Path) -> None:
    found = report(failing=True)
    odd = tuple(replace(one, blob="a|b\\|\n<i>c") for one in found.cases[0].comparisons)
    case = replace(found.cases[0], name="p|*x*.png", comparisons=odd)
    write_markdown(replace(found, cases=(case,)), tmp_path / "report.md")
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert sum(line.startswith(r"| a\|b\\\| \<i>c | 1x3x4x5 |") for line in lines) == 3
    assert r"## p\|\*x\*.png" in lines
    assert "- not compared: extra" in lines


def test_json_and_markdown_say_the_same(tmp_path: Path) -> None:
    found = report(failing=True, other_shape=True)
    write_json(found, tmp_path / "report.json")
    write_markdown(found, tmp_path / "report.md")
    read = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    text = (tmp_path / "report.md").read_text()
    assert (read["format"], read["version"]) == ("deeplab-zoo parity report", 2)
    assert read["passed"] is False
    assert markdown.text(read["verdict"]) in text
    assert read["diagnosis"]["sentence"] in text
    blobs = read["cases"][0]["comparisons"]
    assert [one["blob"] for one in blobs] == ["data", "good", "<b>odd & name</b>"]
    assert blobs[2]["relative_l2"] is None
    assert "| 1x3x4x5, ours 1x3x3x5 | nan |" in text
    assert "pictures" not in read["cases"][0]
    assert "| conv.weight | values differ, by 5.0e-01 at most |" in text


@pytest.mark.parametrize("failing", [False, True])
def test_the_page_opens_without_errors_and_says_what_the_json_says(
    browser: "Chrome", tmp_path: Path, failing: bool
) -> None:
    found = report(failing=failing)
    page.write(found, tmp_path / "report.html")
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.get_log("browser") == []
    text = browser.find_element("id", "verdict").text
    assert " ".join(text.split()) == fields(found)["verdict"]
    assert browser.title.startswith("FAIL" if failing else "PASS")
    names = [
        one.text for one in browser.find_elements("css selector", "#blobs1 tbody td:nth-child(2)")
    ]
    assert names == ["data", "good", "<b>odd & name</b>"]
    alternatives = [one.get_attribute("alt") for one in browser.find_elements("tag name", "img")]
    assert len(alternatives) == 4
    assert alternatives[3] == f"Difference: {int(failing)} of 20 pixels"
    plot = browser.find_element("css selector", ".plot svg")
    assert plot.get_attribute("role") == "img"
    assert plot.size["height"] > 100


def test_the_table_sorts_and_filters(browser: "Chrome", tmp_path: Path) -> None:
    page.write(report(failing=True, other_shape=True), tmp_path / "report.html")
    browser.get((tmp_path / "report.html").as_uri())

    def shown() -> list[str]:
        rows = browser.find_elements("css selector", "#blobs1 tbody tr")
        return [row.find_elements("tag name", "td")[0].text for row in rows if row.is_displayed()]

    heads = browser.find_elements("css selector", "#blobs1 th")
    distance = next(one for one in heads if one.text.startswith("Relative L2"))
    button = distance.find_element("tag name", "button")
    button.click()
    assert distance.get_attribute("aria-sort") == "ascending"
    button.click()
    assert distance.get_attribute("aria-sort") == "descending"
    assert shown() == ["3", "2", "1"]  # What is no number differs most.
    assert heads[0].get_attribute("aria-sort") is None
    browser.find_element("css selector", "[data-only-failed]").click()
    assert shown() == ["3"]


def test_the_page_fits_a_phone_and_follows_dark_mode(browser: "Chrome", tmp_path: Path) -> None:
    page.write(report(failing=True), tmp_path / "report.html")
    size = {"height": 844, "deviceScaleFactor": 1, "mobile": True}
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, **size})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        browser.get((tmp_path / "report.html").as_uri())
        width = browser.execute_script("return document.documentElement.scrollWidth")
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 1280, **size})
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert (width, wide) == (390, 1280)
    assert paper == "rgb(20, 23, 26)"


def test_the_same_report_gives_the_same_page() -> None:
    assert page.render(report(failing=True)) == page.render(report(failing=True))


@pytest.mark.parametrize("values", [(0.0,), (math.nan,), (0.0, math.inf)])
@pytest.mark.parametrize("limit", ["fp32", "exact"])
def test_distances_that_have_no_place_on_the_plot_are_drawn_without_a_warning(
    values: tuple[float, ...], limit: str
) -> None:
    case = report(failing=False).cases[0]
    rows = tuple(replace(case.comparisons[0], relative_l2=value) for value in values)
    drawn = page.plot(replace(case, comparisons=rows), PROFILES[limit].relative_l2, "plot")
    assert ("no number" in drawn) == (not math.isfinite(values[-1]))


def test_the_page_asks_nothing_of_the_network() -> None:
    text = page.render(report(failing=True))
    outside = [part for part in text.split('"') if part.startswith(("http:", "https:", "//"))]
    assert all(part.startswith("http://www.w3.org/") for part in outside)  # Names in SVG.

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deeplab_zoo.zoo.weights.page import render
from deeplab_zoo.zoo.weights.parse import parse
from deeplab_zoo.zoo.weights.recipe import obstacle
from deeplab_zoo.zoo.weights.registry import assemble, load_registry

from .conftest import artifact, described, text_of

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = tmp_path / "registry.html"
    path.write_text(render(load_registry().entries.values()), "utf-8")
    return path.as_uri()


def shown(browser: "Chrome") -> list[str]:
    names: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('tbody tr')].filter(r => r.offsetParent).map(r => r.id)"
    )
    return names


def test_the_search_narrows_the_table_and_the_console_stays_empty(
    browser: "Chrome", page: str
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.select import Select

    registry = load_registry()
    browser.get_log("browser")
    browser.get(page)
    assert shown(browser) == list(registry.entries)
    words = browser.find_element(By.ID, "words")
    words.send_keys("resnet101 DrSleep")
    assert shown(browser) == [
        "drsleep-deeplabv2-resnet101-voc",
        "drsleep-deeplabv2-resnet101-coco-init",
    ]
    assert browser.find_element(By.ID, "count").text == f"2 of {len(registry.entries)} entries"
    words.clear()
    words.send_keys(" ")
    Select(browser.find_element(By.ID, "state")).select_by_visible_text("pinned")
    pinned = [entry.name for entry in registry.entries.values() if entry.state == "pinned"]
    assert shown(browser) == pinned
    Select(browser.find_element(By.ID, "loads")).select_by_visible_text("yes")
    assert shown(browser) == [one for one in pinned if obstacle(registry.find(one)) is None]
    assert browser.get_log("browser") == []


def test_an_address_with_a_name_opens_that_entry(browser: "Chrome", page: str) -> None:
    from selenium.webdriver.common.by import By

    browser.get(f"{page}#sbd")
    (row,) = browser.find_elements(By.ID, "sbd")
    assert "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53" in row.text
    assert "benchmark.tgz" in row.text


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_window(browser: "Chrome", page: str, width: int) -> None:
    browser.get("about:blank")  # A hash would leave the old page.
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get(f"{page}#advsemiseg-deeplabv2-resnet101-coco-init")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_needs_nothing_else_and_believes_no_registry() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    one = described(
        artifact("https://example.org/x"), description=evil, homepage="javascript:alert(3)"
    )
    html = render(assemble(parse(text_of(one), "test")).entries.values())
    assert evil not in html
    assert 'href="javascript:' not in html
    assert html.count("<script>") == 1
    for outside in ("src=", "@import", "url(", '<link rel="stylesheet'):
        assert outside not in html.replace("&lt;img src=x", "")

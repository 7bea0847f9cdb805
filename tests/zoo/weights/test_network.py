"""Over the real internet; left out unless asked for with ``-m network``."""

from pathlib import Path

import pytest

from deeplab_zoo.zoo.weights.fetch import fetch

pytestmark = pytest.mark.network


@pytest.mark.parametrize(
    "name", ["tf-deeplabv3-mobilenet-v2-voc", "advsemiseg-deeplabv2-resnet101-coco-init"]
)
def test_a_pinned_entry_of_the_shipped_registry_is_what_it_claims_to_be(
    name: str, home: Path
) -> None:
    words: list[str] = []
    path = fetch(name, on_event=lambda event: words.append(str(event.detail.get("words", ""))))
    assert path.is_relative_to(home)
    assert "verified sha256" in " ".join(words)

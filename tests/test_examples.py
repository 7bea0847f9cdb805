"""The notebooks of ``examples/`` run, and end with both frameworks in agreement."""

import asyncio
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("demo_binary", "demo_multiclass")


async def executed(name: str) -> str:
    """Run a notebook in a kernel of its own; return what its last cell prints."""
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    await NotebookClient(notebook, timeout=120, kernel_name="python3").async_execute()
    outputs = notebook.cells[-1].outputs
    return "".join(one.text for one in outputs if one.get("name") == "stdout")


async def together() -> list[str]:
    return await asyncio.gather(*(executed(name) for name in NAMES))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs tensorflow")
def test_the_notebooks_run_and_both_frameworks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # Its default warns.
    for name, text in zip(NAMES, asyncio.run(together()), strict=True):
        values = re.search(r"TensorFlow (\S+), PyTorch (\S+)\n", text)
        assert values, (name, text)
        assert float(values[1]) == pytest.approx(float(values[2]), abs=2e-6)
        assert float(text.rpartition(": ")[2]) < 1e-6

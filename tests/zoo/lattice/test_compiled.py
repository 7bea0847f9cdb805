"""Machine code is kept on disk where that can be; where it cannot, everything works without."""

from importlib.util import find_spec, module_from_spec

import pytest
from numba.core import caching


@pytest.mark.parametrize(
    "module", ["lattice.kernels", "lattice.simplices", "losses.ranking", "losses.solver"]
)
def test_without_a_writable_cache_the_loops_are_there_all_the_same(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError("read-only")

    for name, locator in vars(caching).items():
        if name.endswith("CacheLocator") and name != "_CacheLocator":
            monkeypatch.setattr(locator, "ensure_cache_path", refuse)
    spec = find_spec(f"deeplab_zoo.zoo.{module}")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module_from_spec(spec))  # A copy of its own: nothing is compiled.

"""Work is shared by threads in which torch's own operations stay on one."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deeplab_zoo.zoo.lattice.threads import at_hand, conduct, each, ranges, spread


@pytest.fixture
def three_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("three_threads")
def test_conducted_work_shares_items_and_torch_stays_on_one_thread() -> None:
    together = threading.Barrier(3)  # breaks unless three threads meet

    def meet(item: int) -> tuple[int, int, int]:
        together.wait(timeout=30)
        return item, torch.get_num_threads(), at_hand()

    assert conduct(each, meet, range(3)) == [(item, 1, 1) for item in range(3)]
    assert conduct(at_hand) == 3
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_results_keep_the_order_of_the_items() -> None:
    assert conduct(each, lambda item: item * item, range(100)) == [i * i for i in range(100)]


@pytest.mark.usefixtures("three_threads")
def test_work_that_is_not_conducted_stays_with_the_caller() -> None:
    assert set(each(lambda _: threading.get_ident(), range(5))) == {threading.get_ident()}


@pytest.mark.usefixtures("three_threads")
def test_another_devices_tensors_and_lattices_stay_with_the_caller() -> None:
    def thread(*_: object) -> int:
        return threading.get_ident()

    lattice = SimpleNamespace(device=torch.device("cuda:1"))
    for given in (torch.empty(2, device="meta"), lattice):
        assert conduct(thread, 1.0, given) == threading.get_ident()
    assert conduct(thread, torch.empty(2), np.empty(2)) != threading.get_ident()


@pytest.mark.usefixtures("three_threads")
def test_an_error_reaches_the_caller_and_the_threads_go_on() -> None:
    def fail(item: int) -> None:
        raise ValueError(item)

    for _ in range(2):
        with pytest.raises(ValueError, match=r"\d"):
            conduct(each, fail, range(5))
    assert conduct(each, str, range(2)) == ["0", "1"]
    assert conduct(at_hand) == 3


@pytest.mark.usefixtures("three_threads")
def test_more_callers_than_threads_all_get_their_results() -> None:
    def call(first: int) -> list[int]:
        assert torch.get_num_threads() == 3
        return conduct(each, lambda item: first + item, range(50))

    assert conduct(at_hand) == 3  # The threads have begun.
    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(call, range(40)))
    assert found == [[first + item for item in range(50)] for first in range(40)]


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("count", [0, 1, 2047, 2048, 100_003])
def test_ranges_cover_everything_once(count: int) -> None:
    covered = torch.zeros(count, dtype=torch.int64)

    def touch(first: int, last: int) -> None:
        covered[first:last] += 1

    conduct(spread, touch, count)
    assert (covered == 1).all()
    assert sum(last - first for first, last in ranges(count, 7)) == count

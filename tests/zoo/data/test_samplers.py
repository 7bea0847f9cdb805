from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab_zoo.proto.errors import UsageError
from deeplab_zoo.zoo.data.samplers import (
    KINDS,
    Sampling,
    Share,
    Stream,
    balanced_subset,
    epoch,
    length,
    sampling,
)

PRESENT = [{0, 1}, {0}, {0}, {1}, {0}, {0}, {0}, {0, 1}, {0}, {0}, {0}]


def made(kind: str, seed: int = 0) -> Sampling:
    return sampling(kind, len(PRESENT), seed, PRESENT)


def first(stream: Stream, count: int) -> list[tuple[int, int]]:
    return list(islice(stream, count))


ways = st.builds(made, st.sampled_from(KINDS), st.integers(0, 2**40))


@given(way=ways, number=st.integers(0, 10**6))
def test_an_epoch_is_a_function_of_seed_and_number(way: Sampling, number: int) -> None:
    order = epoch(way, number)
    assert len(order) == length(way)
    assert (order == epoch(way, number)).all()


@given(seed=st.integers(0, 2**40), number=st.integers(0, 1000))
def test_every_image_is_seen_once_an_epoch(seed: int, number: int) -> None:
    for kind in ("shuffle", "sequential"):
        assert sorted(epoch(made(kind, seed), number)) == list(range(len(PRESENT)))
    assert sorted(epoch(made("exclusive", seed), number)) == [0, 3, 7]


@given(seed=st.integers(0, 2**40), number=st.integers(0, 1000))
def test_balanced_epochs_have_one_positive_in_each_pair_and_show_everything(
    seed: int, number: int
) -> None:
    order = epoch(made("balanced", seed), number).tolist()
    assert len(order) == 16
    for pair in zip(order[::2], order[1::2], strict=True):
        assert sum(one in (0, 3, 7) for one in pair) == 1
    assert set(order) == set(range(11))
    assert {order.count(one) for one in (0, 3, 7)} == {2, 3}


def test_positives_are_not_always_first_of_a_pair() -> None:
    order = epoch(made("balanced", 5), 0).tolist()
    assert {one in (0, 3, 7) for one in order[::2]} == {True, False}


def test_orders_differ_between_epochs_and_seeds() -> None:
    for kind in ("shuffle", "balanced"):
        orders = [epoch(made(kind, seed), number) for seed, number in ((0, 0), (0, 1), (1, 0))]
        assert len({tuple(one.tolist()) for one in orders}) == 3


@given(way=ways, start=st.integers(0, 200), count=st.integers(1, 60))
@settings(deadline=None)
def test_a_stream_resumes_anywhere_and_never_ends(way: Sampling, start: int, count: int) -> None:
    whole = first(Stream(way), start + count)
    assert first(Stream(way, start=start), count) == whole[start:]
    assert [position for position, _ in whole] == list(range(start + count))


@given(way=ways, world=st.integers(1, 5), batch=st.integers(1, 4), steps=st.integers(0, 9))
@settings(deadline=None)
def test_ranks_together_see_what_one_process_with_the_larger_batch_sees(
    way: Sampling, world: int, batch: int, steps: int
) -> None:
    alone = first(Stream(way, start=steps * batch * world), 3 * batch * world)
    ranks = [
        first(Stream(way, rank, world, steps * batch * world), 3 * batch) for rank in range(world)
    ]
    for step in range(3):
        together = [key for rank in ranks for key in rank[step * batch : (step + 1) * batch]]
        assert sorted(together) == alone[step * batch * world : (step + 1) * batch * world]


@given(count=st.integers(0, 30), world=st.integers(1, 7))
def test_ranks_evaluate_each_sample_once(count: int, world: int) -> None:
    shares = [Share(count, rank, world) for rank in range(world)]
    seen = [index for share in shares for _, index in share]
    assert sorted(seen) == list(range(count))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]


def test_a_balanced_subset_has_all_positives_and_as_many_others() -> None:
    found = balanced_subset(PRESENT, 1)
    assert len(found) == 6
    assert {0, 3, 7} < set(found)
    assert found == sorted(found) == balanced_subset(PRESENT, 1)
    assert balanced_subset(PRESENT, 0) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("kind", "present", "complaint"),
    [("shufle", PRESENT, "sampling 'shufle' is unknown, expected one of shuffle"),
     ("shuffle", [], "has no samples"),
     ("exclusive", [{0}], "no sample shows the wanted class"),
     ("balanced", [{0}], "no sample shows the wanted class"),
     ("balanced", [{1}, {0, 1}], "every sample shows the wanted class")],
)  # fmt: skip
def test_a_sampling_that_cannot_be_says_why(kind: str, present: list, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        sampling(kind, len(present), present=present)

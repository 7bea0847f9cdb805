"""What a ``.pth`` may hold beside its tensors."""

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deeplab_zoo.converters import pth
from deeplab_zoo.converters.kinds import Kind, kind_of
from deeplab_zoo.converters.weights import read_named
from deeplab_zoo.proto.errors import FormatError


class Log:
    """As mmengine's HistoryBuffer: methods of its own class and arrays in its state."""

    def __init__(self) -> None:
        self.values = np.array([3.0, 2.0])
        self.ways = {"mean": Log.mean}

    def mean(self) -> None:
        """Be a method that the pickle asks ``getattr`` for."""


class Made:
    """An object that a call makes, with arguments."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path, ("a", "b")


def checkpoint() -> dict[str, Any]:
    return {
        "meta": {"time": "now", "palette": np.array([[1, 2]]), "iter": np.int64(3), "of": Made()},
        "message_hub": {"loss": Log()},
        "state_dict": {"a.weight": torch.arange(3.0)},
    }


def test_a_checkpoints_other_objects_stay_unread(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "x.pth")
    found = pth.load(tmp_path / "x.pth")
    assert isinstance(found["message_hub"]["loss"], pth.Unread)
    assert isinstance(found["meta"]["palette"], pth.Unread)
    assert found["meta"]["time"] == "now"
    named, described = read_named(tmp_path / "x.pth")
    assert {name: data.tolist() for name, data in named.items()} == {"a.weight": [0, 1, 2]}
    assert described == ""


def test_of_an_old_pickle_the_error_names_the_object_and_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(checkpoint(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(FormatError, match=r"it holds numpy.*save its state dict alone"):
        pth.load(path)
    alone = {"state_dict": checkpoint()["state_dict"], "meta": {"iter": 3}}
    torch.save(alone, path, _use_new_zipfile_serialization=False)
    assert list(read_named(path)[0]) == ["a.weight"]


def test_what_names_the_system_is_refused(tmp_path: Path) -> None:
    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.getcwd, ()

    torch.save({"state_dict": {"a.weight": torch.zeros(2)}, "meta": Call()}, tmp_path / "x.pth")
    with pytest.raises(FormatError, match=re.escape(f"it holds {os.getcwd.__module__}.getcwd")):
        pth.load(tmp_path / "x.pth")


def test_what_stands_for_an_object_keeps_nothing() -> None:
    one = pickle.loads(pickle.dumps(pth.Unread("of", "this")))
    assert vars(one) == {}


@pytest.mark.parametrize("zipped", [True, False])
def test_every_way_of_cutting_a_file_short_is_damage(tmp_path: Path, *, zipped: bool) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a.weight": torch.arange(9000.0)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for size in (40, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match=r"x.pth: cannot be read as a state dict \(\S"):
            read_named(path)


def test_a_flipped_byte_in_a_zips_names_still_leaves_it_a_pth(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"a.weight": torch.arange(3.0)}, path)
    whole = bytearray(path.read_bytes())
    at = whole.rindex(b"PK\1\2")
    whole[at + 9] |= 8  # The names of this entry are now said to be UTF-8.
    whole[at + 46] = 0xFF
    path.write_bytes(whole)
    assert kind_of(path) is Kind.PTH


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: torch.zeros(2, 3, device="meta"), "expected numbers"),
        (lambda: torch.zeros(1).expand(10**6, 10**6), "of which 4 bytes are stored"),
    ],
)
def test_a_tensor_without_its_numbers_is_refused(
    tmp_path: Path, make: Callable[[], torch.Tensor], complaint: str
) -> None:
    torch.save({"a.weight": make()}, tmp_path / "x.pth")
    with pytest.raises(FormatError, match=rf"x.pth: a.weight: torch.float32.*{complaint}"):
        read_named(tmp_path / "x.pth")


def test_floats_that_numpy_lacks_are_widened(tmp_path: Path) -> None:
    state = {"a": torch.tensor([0.5, -3.0]).to(torch.float8_e4m3fn), "b": torch.ones(1).bfloat16()}
    torch.save(state, tmp_path / "x.pth")
    named, _ = read_named(tmp_path / "x.pth")
    assert {name: (str(one.dtype), one.tolist()) for name, one in named.items()} == {
        "a": ("float32", [0.5, -3.0]),
        "b": ("float32", [1.0]),
    }


def test_a_name_with_and_without_its_prefix_is_not_taken_twice(tmp_path: Path) -> None:
    state = {
        "a.weight": torch.zeros(2),
        "module.a.weight": torch.ones(2),
        "module.b": torch.ones(1),
    }
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(FormatError, match=r"with and without 'module.' before them:\n  a.weight$"):
        read_named(tmp_path / "x.pth")


def test_a_zip_that_unpacks_to_far_more_than_its_bytes_is_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(10**6)}, tmp_path / "x.pth")
    with (
        zipfile.ZipFile(tmp_path / "x.pth") as whole,
        zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    assert read_named(tmp_path / "x.pth")[0]["a.weight"].size == 10**6
    with pytest.raises(FormatError, match=r"y.pth: \d+ bytes that unpack to \d{7}"):
        read_named(tmp_path / "y.pth")

"""What a ``.pth`` may hold beside its tensors."""

import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deeplab_zoo.converters import pth
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

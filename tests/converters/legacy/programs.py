"""Files as other programs write them, and what must come of them."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from deeplab_zoo.converters.naming.deeplab_v2 import context_of, from_canonical
from deeplab_zoo.converters.native import Native
from deeplab_zoo.converters.weights import Weights

Arrays = dict[str, np.ndarray[Any, Any]]
State = dict[str, Any]


def in_layout(native: Weights, layout: str, *, counters: bool = False) -> State:
    """The state dict as the layout's own program would save it."""
    context = context_of(native.config.blocks)
    state: State = OrderedDict()
    for name, data in native.state.items():
        module, _, parameter = name.rpartition(".")
        state[f"{from_canonical(layout, module, context)}.{parameter}"] = torch.tensor(data)
        if counters and parameter == "running_var":
            module = from_canonical(layout, module, context)
            state[f"{module}.num_batches_tracked"] = torch.tensor(7)
    return state


def as_deepdish(path: Path, contents: Arrays, *, nodes: bool) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["DEEPDISH_IO_VERSION"] = 12
        if nodes:
            for name, data in contents.items():
                file[name] = data
        else:
            kind = h5py.vlen_dtype(np.uint8)
            data = file.create_dataset("data", (1,), kind, maxshape=(None,), chunks=(4,))
            data[0] = np.frombuffer(pickle.dumps(contents, 2), np.uint8)
    return path


def assert_state(found: Native, expected: Weights) -> None:
    assert found.weights.state.keys() == expected.state.keys()
    for name, data in expected.state.items():
        assert np.array_equal(found.weights.state[name], data), name

"""The program's own parts, put together, do what the real Caffe did."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from deeplab_zoo import convert_caffe
from deeplab_zoo.converters import families
from deeplab_zoo.converters.export import open_weights
from deeplab_zoo.zoo.data.loader import Batch
from deeplab_zoo.zoo.training.config import from_mapping, recipe
from deeplab_zoo.zoo.training.groups import parameter_groups
from deeplab_zoo.zoo.training.loop import schedule
from deeplab_zoo.zoo.training.model import fitted, make_model
from deeplab_zoo.zoo.training.objective import make_objective
from deeplab_zoo.zoo.training.schedule import rate
from deeplab_zoo.zoo.training.solver import make_solver, set_rate

pytestmark = pytest.mark.golden


def test_the_native_net_and_the_deeplab_v2_recipe_do_the_updates_of_the_real_caffe(
    shared: Path, tmp_path: Path
) -> None:
    folder = shared / "golden" / "caffe" / "train_step" / "msc"
    convert_caffe(folder / "train.prototxt", folder / "init.caffemodel", tmp_path / "x.safetensors")
    golden = np.load(folder / "golden.npz")
    # What this recording changed of the recipe; its solver.prototxt.
    config = from_mapping({**recipe("deeplab-v2"), "lr": 1e-5, "steps": 10, "accumulate": 2})
    weights, _ = fitted(open_weights(tmp_path / "x.safetensors"), config, ("class",) * 21)
    model = make_model(weights, config)
    objective = make_objective(config, weights.numerics, 21)
    groups = parameter_groups(model.named_parameters(), config.groups, config.weight_decay)
    solver = make_solver(config.solver, groups, config.lr, config.momentum)
    with h5py.File(folder / "data.h5") as file:
        images, labels = (torch.from_numpy(file[name][:]) for name in ("data", "label"))

    family = families.of_config(weights.config)
    context = family.context(weights.config)
    names = {
        f"{family.naming.from_canonical('caffe', name.rpartition('.')[0], context)}/"
        f"{int(name.endswith('bias'))}": parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    recorded = [name[3:] for name in golden if name.startswith("w0/")]
    compared = [name for name in recorded if name in names]
    assert len(compared) == 16  # All but the frozen norm and scale.

    for step in range(5):
        set_rate(solver, rate(schedule(config), step))
        for part in range(2):
            at = slice(2 * step + part, 2 * step + part + 1)
            batch = Batch(
                image=images[at],
                label=labels[at, 0].long(),
                size=torch.tensor([[65, 97]]),
                id=["x"],
            )
            (loss,) = objective(model(images[at]), batch).values()
            (loss / 2).backward()
            # The sum of four losses of some 3 each.
            assert loss.item() == pytest.approx(golden["loss"][step, part].sum(), rel=5e-6)
        solver.step()
        solver.zero_grad()
        for name in compared:
            theirs = golden[f"w{step + 1}/{name}"]
            ours = names[name].detach().numpy().reshape(theirs.shape)
            assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs), name

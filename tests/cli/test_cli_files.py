"""The commands of TensorFlow's and other programs' files, end to end."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from deeplab_zoo.converters import weights
from deeplab_zoo.converters.archive import Origin
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config, parameters
from deeplab_zoo.converters.export import export
from deeplab_zoo.converters.numerics import TF_SLIM
from deeplab_zoo.converters.weights import Weights

HEAVY = ("torch", "tensorflow", "lightning", "cv2", "h5py")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def native(tmp_path: Path, tiny_config: DeepLabV2Config) -> Path:
    random = np.random.default_rng(3)
    state = {
        name: random.uniform(0.5, 1.5, shape).astype("f4")
        for name, shape in parameters(tiny_config).items()
    }
    out = tmp_path / "native.safetensors"
    weights.write(Weights(state, tiny_config, TF_SLIM, Origin("tensorflow", {}, "x")), out)
    return out


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command line in a process of its own, in the test's folder."""

    def call(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        program = "from deeplab_zoo.cli.main import main; main()"
        found = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ,
        )
        assert found.returncode == code, found.stderr
        assert "Traceback" not in found.stderr
        return found

    return call


def imported_by(folder: Path, *arguments: str) -> list[str]:
    code = (
        "import sys; from deeplab_zoo.cli.main import main\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *arguments]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    return list(json.loads(found.stderr.splitlines()[-1].replace("'", '"')))


def test_a_checkpoint_is_converted_compared_and_exported_again(
    native: Path, run: Run, tmp_path: Path
) -> None:
    export(native, tmp_path / "model.ckpt-20000", to="tf")
    found = run(
        "convert", "tf", "model.ckpt-20000", "-o", "x.safetensors", "--hdf5", "x.h5",
        "--multi-scale",
    )  # fmt: skip
    assert "5 classes, multi-scale, numerics tf-slim" in found.stdout
    assert f"{len(parameters(DeepLabV2Config(5, (1, 2, 4, 3))))} tensors converted" in found.stdout
    assert "wrote x.h5" in found.stdout
    assert found.stderr == ""
    equal = run("compare", "x.h5", "model.ckpt-20000.index")
    assert equal.stdout.startswith("equal: ")
    assert equal.stdout.endswith(" tensors, to the bit\n")
    written = run("export", "x.h5", "--to", "tf", "-o", "again").stdout
    assert "wrote again.index" in written
    assert "wrote again.data-00000-of-00001" in written
    for end in ("index", "data-00000-of-00001"):
        again = (tmp_path / f"again.{end}").read_bytes()
        assert again == (tmp_path / f"model.ckpt-20000.{end}").read_bytes()


def test_converting_a_checkpoint_imports_neither_torch_nor_tensorflow(
    native: Path, tmp_path: Path
) -> None:
    export(native, tmp_path / "model.ckpt", to="tf-v1")
    arguments = ("convert", "tf", "model.ckpt", "-o", "x.safetensors")
    assert set(imported_by(tmp_path, *arguments)) <= {"h5py"}
    assert weights.read(tmp_path / "x.safetensors").config.classes == 5


def test_what_was_left_behind_is_counted_and_listed(native: Path, run: Run, tmp_path: Path) -> None:
    from deeplab_zoo.converters.export import variables
    from deeplab_zoo.proto.checkpoint_write import write_v1

    held: dict[str, Any] = dict(variables(weights.read(native)))
    held |= {"conv1/weights/Momentum": held["conv1/weights"], "global_step": np.array(3)}
    held["odd"] = np.array([1, 2])
    held["bn_conv1/gamma"] = held["bn_conv1/gamma"].astype("f2")
    with (tmp_path / "model.ckpt").open("wb") as file:
        write_v1(held, file)
    refused = run("convert", "tf", "model.ckpt", "-o", "x.pth", code=1)
    assert "odd: int64 [2]" in refused.stderr
    assert not (tmp_path / "x.pth").exists()
    select = [f"--variables={name}" for name in ("conv1/*", "bn*", "res*", "fc1*")]
    found = run("convert", "tf", "model.ckpt", "-o", "x.safetensors", *select)
    assert "    1 left behind: an optimizer's slot" in found.stdout
    assert "    2 left behind: not selected by --variables" in found.stdout
    assert found.stderr == "note: float16 widened to float32: bn_conv1/gamma\n"
    account = json.loads(
        run("convert", "tf", "model.ckpt", "-o", "x.safetensors", "--json", *select).stdout
    )
    assert ["conv1/weights/Momentum", "an optimizer's slot"] in account["dropped"]
    assert account["tensors"]["backbone.conv1.weight"] == ["conv1/weights"]
    assert account["numerics"] == "tf-slim"


def test_another_programs_file_is_converted(native: Path, run: Run, tmp_path: Path) -> None:
    export(native, tmp_path / "named.pth", layout="kazuto1011")
    plain = dict(torch.load(tmp_path / "named.pth"))
    torch.save(plain, tmp_path / "plain.pth")
    save_file(plain, tmp_path / "plain.safetensors")
    found = run("convert", "legacy", "plain.pth", "-o", "x.safetensors")
    assert "5 classes, multi-scale, numerics torch-halfpixel" in found.stdout
    found = run("convert", "legacy", "plain.safetensors", "-o", "x.h5", "--numerics", "tf-slim",
                "--single-scale")  # fmt: skip
    assert "5 classes, single-scale, numerics tf-slim" in found.stdout
    assert run("compare", "x.h5", "native.safetensors").returncode == 0


def test_another_network_is_kept_as_an_archive_with_a_note(run: Run, tmp_path: Path) -> None:
    state = {"layer1.conv1.conv.weight": torch.ones(2, 3, 1, 1)}
    save_file(state, tmp_path / "other.safetensors")
    found = run("convert", "legacy", "other.safetensors", "-o", "x.h5")
    assert found.stderr == "note: a network without a native model; kept as an archive only\n"
    assert found.stdout.startswith("wrote x.h5")
    account = run("convert", "legacy", "other.safetensors", "-o", "x.h5", "--json").stdout
    assert json.loads(account) == {"written": ["x.h5"], "notes": [found.stderr[6:-1]]}
    refused = run("convert", "legacy", "other.safetensors", "-o", "x.safetensors", code=1)
    assert "It looks like DeepLab v1 ResNet in kazuto1011's names" in refused.stderr


def test_files_that_differ_exit_with_9(native: Path, run: Run, tmp_path: Path) -> None:
    found = weights.read(native)
    state = {name: data.copy() for name, data in found.state.items()}
    for index, data in enumerate(state.values()):
        if index < 30:
            data.flat[0] += np.float32(0.5)
    weights.write(
        Weights(state, found.config, found.numerics, found.origin), tmp_path / "y.safetensors"
    )
    text = run("compare", native.name, "y.safetensors", code=9)
    lines = text.stdout.splitlines()
    assert len(lines) == 21
    assert lines[0] == "backbone.conv1.weight: values differ, max abs 0.5"
    assert lines[-1] == "... 10 more (--all shows them)"
    assert f"30 of {len(state)} tensors differ: native.safetensors, y.safetensors." in text.stderr
    assert (
        len(run("compare", native.name, "y.safetensors", "--all", code=9).stdout.splitlines()) == 30
    )
    told = json.loads(run("compare", native.name, "y.safetensors", "--json", code=9).stdout)
    assert told["equal"] is False
    assert len(told["differences"]) == 30
    assert told["numerics"] == ["tf-slim", "tf-slim"]


def test_mixed_numerics_are_refused_by_name(native: Path, run: Run, tmp_path: Path) -> None:
    found = run("export", native.name, "--to", "caffe", "-o", "x.caffemodel", code=1)
    assert "--mixed-numerics" in found.stderr
    run("export", native.name, "--to", "caffe", "-o", "x.caffemodel", "--mixed-numerics")
    assert (tmp_path / "x.prototxt").is_file()
    noted = run("compare", native.name, "x.caffemodel")
    assert noted.stderr == "note: numerics tf-slim against caffe-v2\n"


def test_a_checkpoint_is_inspected_by_its_prefix(native: Path, run: Run, tmp_path: Path) -> None:
    export(native, tmp_path / "model.ckpt", to="tf")
    shown = run("inspect", "model.ckpt").stdout
    assert shown.startswith("model.ckpt: TensorFlow checkpoint, ")
    assert "sha256 model.ckpt.index" in shown
    assert "fc1_voc12_c3/weights" not in shown
    assert "fc1_voc12_c3/weights" in run("inspect", "model.ckpt", "--all").stdout
    told = json.loads(run("inspect", "model.ckpt.data-00000-of-00001", "--json").stdout)
    assert told["kind"] == "TensorFlow checkpoint"
    assert len(told["tensors"]) == len(weights.read(native).state)
    assert set(told["sha256"]) == {"model.ckpt.index", "model.ckpt.data-00000-of-00001"}

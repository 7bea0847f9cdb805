"""What TensorFlow makes of the same damaged files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deeplab_zoo.proto.checkpoint import open_checkpoint
from deeplab_zoo.proto.errors import FormatError, ZooError

from .reading import OWN, TRUTH, bounded_memory, read_all, same

CASES = {case["case"]: case for case in json.loads((OWN / "cases.json").read_text())}


def tensorflow_refuses_all(case: dict[str, Any]) -> bool:
    return case["reader"]["load_checkpoint"] != "ok"


def is_silently_wrong(failure: Any) -> bool:
    return isinstance(failure, dict) and "silently_wrong" in failure


def only_tensorflow_cannot(failure: Any) -> bool:
    """Slices in a V1 file are sound; its Python reader lacks them, its Saver does not."""
    return isinstance(failure, dict) and failure.get("class") == "UnimplementedError"


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if tensorflow_refuses_all(c)])
def test_what_tensorflow_does_not_open_is_refused_by_name(name: str) -> None:
    path = OWN / "cases" / name / CASES[name]["prefix"]
    with bounded_memory(path.parent), pytest.raises(ZooError) as error:
        open_checkpoint(path)
    assert str(error.value).startswith(str(path).partition("-?")[0])
    if path.parent.exists():
        assert isinstance(error.value, FormatError)


# TensorFlow opens these and reads nothing rightly; we do not open them.
REFUSED_WHOLE = {
    "v2_header_big_endian_flag": "says the data are big-endian",
    "v2_header_shards_0": "0 shards",
}


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if not tensorflow_refuses_all(c)])
def test_what_tensorflow_opens_is_read_as_far_as_it_is_sound(name: str) -> None:
    reader, path = CASES[name]["reader"], OWN / "cases" / name / CASES[name]["prefix"]
    failures = reader["get_tensor_failures"]
    with bounded_memory(path.parent):
        if name in REFUSED_WHOLE:
            assert reader["get_tensor_ok"] == []
            with pytest.raises(FormatError, match=REFUSED_WHOLE[name]):
                open_checkpoint(path)
            return
        checkpoint = open_checkpoint(path)
        arrays, complaints = read_all(checkpoint)
    for variable in reader["get_tensor_ok"]:
        assert same(arrays[variable], TRUTH[variable]), complaints.get(variable)
    for variable, failure in failures.items():
        if only_tensorflow_cannot(failure):
            assert same(arrays[variable], TRUTH[variable])
        elif is_silently_wrong(failure):
            assert variable in complaints or any(repr(variable) in n for n in checkpoint.notes)
        elif variable in checkpoint:
            assert str(path) in complaints[variable]
            assert repr(variable) in complaints[variable]
        else:
            assert any("missing" in note for note in checkpoint.notes)
    assert not set(complaints) - set(failures)


def test_sound_checkpoints_are_read_without_a_note() -> None:
    for name in ("v2_intact", "v2s_intact", "v1_intact", "v1_rewritten", "v1s_intact"):
        checkpoint = open_checkpoint(OWN / "cases" / name / CASES[name]["prefix"])
        arrays, complaints = read_all(checkpoint)
        assert (checkpoint.notes, complaints) == ((), {})
        assert set(arrays) == set(TRUTH)
        assert all(same(arrays[variable], TRUTH[variable]) for variable in TRUTH)


def edited(recipe: dict[str, Any], small: Path, folder: Path) -> None:
    """Copy the recipe's checkpoint, a folder in ``small``, and damage it as it says."""
    for path in (small / recipe["base"]).iterdir():
        if path.suffix != ".meta":
            (folder / path.name).write_bytes(path.read_bytes())
    for step in recipe["ops"]:
        path = folder / step["file"]
        content = bytearray(path.read_bytes())
        match step["op"]:
            case "delete":
                path.unlink()
                continue
            case "truncate":
                del content[step["size"] :]
            case "xor":
                content[step["offset"]] ^= step["mask"]
            case "write":
                new = bytes.fromhex(step["hex"])
                content[step["offset"] : step["offset"] + len(new)] = new
            case "append":
                content += bytes.fromhex(step["hex"])
        path.write_bytes(content)


@pytest.mark.golden
def test_recipes_of_damage_end_as_in_tensorflow(shared: Path, tmp_path: Path) -> None:
    tf = shared / "golden" / "tf"
    whole = {
        base: read_all(open_checkpoint(tf / "small" / base / "model.ckpt"))[0]
        for base in ("v2", "v1", "v2_sharded")
    }
    for recipe in json.loads((tf / "corrupt" / "recipes.json").read_text()):
        folder = tmp_path / recipe["recipe"]
        folder.mkdir()
        edited(recipe, tf / "small", folder)
        with bounded_memory(folder):
            if recipe["reader"]["load_checkpoint"] != "ok":
                with pytest.raises(FormatError, match=r"model\.ckpt"):
                    open_checkpoint(folder / "model.ckpt")
                continue
            arrays, complaints = read_all(open_checkpoint(folder / "model.ckpt"))
        expected = whole[recipe["base"]]
        listed = recipe["reader"]["get_tensor_failures"]
        count = recipe["reader"].get("get_tensor_failures_n", len(listed))
        assert len(complaints) == count, recipe["recipe"]
        assert set(listed) - {"..."} <= set(complaints), recipe["recipe"]
        assert len(arrays) == recipe["reader"]["get_tensor_ok"]
        assert all(same(array, expected[name]) for name, array in arrays.items())
        shutil.rmtree(folder)

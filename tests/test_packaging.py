"""What is shipped, and what the parts may import."""

import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = ("cli", "converters", "proto", "zoo")


def setup() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def test_every_package_is_listed_or_the_wheel_would_lack_it() -> None:
    listed = set(setup()["options"]["packages"].split())
    found = {
        ".".join(("deeplab_zoo", *path.parent.relative_to(ROOT).parts))
        for top in CODE
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == found | {"deeplab_zoo"}


def test_every_module_is_in_the_list_that_a_built_wheel_is_compared_with() -> None:
    listed = (ROOT / ".ci" / "wheel-files.txt").read_text().split()
    found = {
        str(Path("deeplab_zoo", path.relative_to(ROOT)))
        for path in (
            *ROOT.glob("*.py"),
            *(file for top in CODE for file in (ROOT / top).rglob("*.py")),
        )
    }
    assert {name for name in listed if name.endswith(".py")} == found, "make wheel-files"


def test_the_root_holds_no_other_module_since_it_would_be_shipped() -> None:
    # torch.hub wants hubconf.py there.
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["__init__.py", "hubconf.py"]


def test_imports_go_downwards_only() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as l; l()"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_files_fit_the_eye() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for top in CODE
        for path in (ROOT / top).rglob("*.py")
        if "_pb2" not in path.name and (count := len(path.read_text().splitlines())) > 350
    }
    assert long == {}


def test_proto_and_converters_import_no_torch_but_for_the_graph_engine() -> None:
    code = (
        "import sys, pkgutil, importlib, deeplab_zoo.proto as p, deeplab_zoo.converters as c\n"
        "for part in (p, c):\n"
        "    for one in pkgutil.walk_packages(part.__path__, part.__name__ + '.'):\n"
        "        if not one.name.startswith('deeplab_zoo.converters.graph.'):\n"
        "            importlib.import_module(one.name)\n"
        "assert not {'torch', 'tensorflow', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deeplab_zoo.converters.families import LAYOUTS
from deeplab_zoo.proto.errors import FormatError, UsageError, ZooError
from deeplab_zoo.zoo.weights.lint import problems
from deeplab_zoo.zoo.weights.parse import parse
from deeplab_zoo.zoo.weights.recipe import obstacle
from deeplab_zoo.zoo.weights.registry import SHIPPED, assemble, load_registry
from deeplab_zoo.zoo.weights.sources import resolve

from .conftest import BODY, artifact, described, digest, text_of

HTTPS = "https://example.org/x.pth"


def test_the_shipped_registry_has_no_problems() -> None:
    registry = load_registry()
    assert problems(registry.entries.values()) == []
    assert len(registry.entries) >= 60


def test_every_digest_in_the_shipped_registry_says_who_says_so_and_grade_c_is_not_pinned() -> None:
    for entry in load_registry().entries.values():
        for one in entry.artifacts:
            for claim in (one.claim, *(member.claim for member in one.members)):
                assert bool(claim.digests or claim.prefix) == bool(claim.evidence)
                assert {evidence.grade for evidence in claim.evidence} <= {"A", "B", "B+"}


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("deeplabv2-resnet101-voc", "unverified"),
        ("drsleep-deeplabv2-resnet101-voc", "unverified"),
        ("isht7-deeplabv2-resnet101-voc", "unverified"),
        ("kazuto1011-deeplabv2-resnet101-voc", "unverified"),
        ("rloss-mobilenet-voc-scribble", "unverified"),
        ("adaptsegnet-deeplabv2-resnet101-cityscapes-oracle", "unverified"),
        ("advsemiseg-deeplabv2-resnet101-coco-init", "pinned"),
        ("resnet101-imagenet-caffe", "pinned"),
        ("voc2012-trainval", "pinned"),
        ("sbd", "pinned"),
        ("pytorchcv-deeplabv3-resnetd101b-voc", "weak"),
        ("torchvision-deeplabv3-resnet50-coco", "prefix"),
        ("mmseg-deeplabv3-resnet101-voc-20k", "prefix"),
        ("voc2012-segmentationclassaug", "unverified"),
    ],
)
def test_the_shipped_states_are_those_of_the_facts(name: str, state: str) -> None:
    assert load_registry().find(name).state == state


def test_what_can_be_loaded_follows_from_recipe_and_family() -> None:
    entries = load_registry().entries.values()
    reasons = {entry.name: obstacle(entry) for entry in entries}
    assert reasons["deeplabv2-resnet101-voc"] is None
    assert reasons["rloss-mobilenet-voc-scribble"] is None
    assert reasons["jfzhang95-deeplabv3plus-drn-voc"] is None
    programs = ("torchvision-", "mmseg-", "pytorchcv-", "tf-deeplab")
    assert not any(reason for name, reason in reasons.items() if name.startswith(programs))
    assert "vgg vgg16" in str(reasons["vgg16-imagenet-caffe"])
    assert "adaptsegnet-multi" in str(reasons["adaptsegnet-deeplabv2-resnet101-gta2cityscapes"])
    assert "dataset" in str(reasons["sbd"])
    for entry in entries:
        if reasons[entry.name] is None:
            assert entry.recipe is not None
            assert entry.recipe.layout in (*LAYOUTS, "")
            assert entry.numerics


def planted(change: Callable[[dict[str, Any]], None], *others: dict[str, Any]) -> list[str]:
    one = described(artifact(HTTPS))
    change(one)
    return problems(assemble(parse(text_of(one, *others), "test")).entries.values())


def test_an_entry_that_keeps_the_rules_has_no_problems() -> None:
    assert planted(lambda _: None) == []


FAULTS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("digest length", lambda a: a["digests"].update(sha256="ab" * 31), "sha256 of 62 characters"),
    ("sha256 as sha384", lambda a: a["digests"].update(sha384="ab" * 32), "sha384 of 64 characters"),
    ("upper case", lambda a: a["digests"].update(sha256="AB" * 32), "lower-case"),
    ("unknown algorithm", lambda a: a["digests"].update(crc="00"), "digest 'crc'"),
    ("no evidence", lambda a: a.update(evidence=[]), "sha256 without evidence"),
    ("evidence of another", lambda a: a["evidence"][0].update(covers=["size"]), "without evidence"),
    ("evidence of nothing", lambda a: a["evidence"][0].update(covers=[]), "evidence covers"),
    ("evidence nowhere", lambda a: a["evidence"][0].update(where=""), "does not say where"),
    ("grade D of a digest", lambda a: a["evidence"][0].update(grade="D"), "grade D"),
    ("plain http", lambda a: a.update(digests={}, sources=[{"url": "http://e.org/x"}]), "plain http"),
    ("http of a sha1", lambda a: a.update(digests={"sha1": "0" * 40}, sources=[{"url": "http://e.org/x"}]), "plain http"),
    ("short prefix", lambda a: a.update(prefix={"algorithm": "sha256", "hex": "abc"}), "prefix 'abc'"),
    ("other prefix", lambda a: a.update(prefix={"algorithm": "sha256", "hex": "00000000"}), "is not how"),
    ("prefix without evidence", lambda a: a.update(prefix={"algorithm": "md5", "hex": "00000000"}), "prefix without"),
    ("path", lambda a: a.update(filename="../x.pth"), "no safe file name"),
    ("reserved", lambda a: a.update(filename="nul.pth"), "Windows"),
    ("size", lambda a: a.update(size=0), "size 0"),
    ("no source", lambda a: a.update(sources=[]), "neither a source"),
    ("branch of a hub", lambda a: a.update(sources=[{"url": "hf://o/n@main/x"}]), "40 hex digits"),
    ("ftp", lambda a: a.update(sources=[{"url": "ftp://e.org/x"}]), "expected https"),
    ("same_as nothing", lambda a: a.update(same_as="nobody"), "same_as 'nobody'"),
    ("member twice", lambda a: a.update(archive={"type": "zip", "members": [{"path": "a", "filename": "x"}, {"path": "a", "filename": "y"}]}), "listed twice"),
    ("tree", lambda a: a.update(archive={"type": "zip", "tree": "ABC"}), "tree 'ABC'"),
    ("address", lambda a: a.update(sources=[{"url": "https://[a/x"}]), "is no address"),
    ("member path", lambda a: a.update(archive={"type": "zip", "members": [{"path": "/x", "filename": "x"}]}), "no safe path"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS]
)
def test_lint_finds_a_fault_planted_in_an_artifact(
    change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    found = planted(lambda one: change(one["artifacts"][0]))
    assert any(words in line and line.startswith("mine: ") for line in found), found


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"name": "Mine!"}, "name 'Mine!'"),
        ({"kind": "model"}, "a model without arch"),
        ({"numerics": "caffe-v9"}, "numerics 'caffe-v9'"),
        ({"replaced_by": "nobody"}, "replaced_by"),
        ({"recipe": {"convert": "legacy", "weights": "y.pth"}}, "the recipe's 'y.pth'"),
        ({"metrics": [{"dataset": "", "split": "val", "miou": 70, "protocol": "p", "source": "s"}]}, "a metric needs"),
        ({"metrics": [{"dataset": "d", "split": "val", "miou": 7000, "protocol": "p", "source": "s"}]}, "miou 7000"),
        ({"artifacts": [artifact(HTTPS), artifact(HTTPS, filename="X.PTH", body=b"1")]}, "two files are called 'x.pth'"),
    ],
)  # fmt: skip
def test_lint_finds_a_fault_planted_in_an_entry(more: dict[str, Any], words: str) -> None:
    found = planted(lambda one: one.update(more))
    assert any(words in line for line in found), found


def test_lint_finds_one_digest_under_two_names_unless_that_is_declared() -> None:
    other = described(artifact(HTTPS), name="other")
    assert any("has the sha256 of mine" in line for line in planted(lambda _: None, other))
    other["artifacts"][0]["same_as"] = "mine"
    assert planted(lambda _: None, other) == []


def test_unknown_and_duplicate_keys_and_wrong_types_are_in_one_error() -> None:
    one = described(artifact(HTTPS))
    one["sha265"] = "x"
    one["classes"] = "21"
    one["artifacts"][0]["digest"] = 3
    one["artifacts"][0]["digests"]["sha256"] = 12345678
    del one["homepage"]
    with pytest.raises(FormatError, match="5 problems") as caught:
        parse(text_of(one), "my.yaml")
    for part in (
        "my.yaml",
        "'sha265'",
        "classes: '21'",
        "'digest'",
        "in quotes",
        "homepage is missing",
    ):
        assert part in str(caught.value)
    text = text_of(described(artifact(HTTPS)))
    with pytest.raises(FormatError, match="duplicate key 'homepage'"):
        parse(text + "  homepage: again\n", "my.yaml")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "schema_version: 2\nentries: []", "a: [", "schema_version: 1\nentries: 3",
     "schema_version: 1\nentries: [3]", "? [a]\n: b", "schema_version: 1\nentrys: []",
     "!!python/object/apply:os.system [echo]", "a: !!int abc", "a: !!bool abc", "a: 0x_",
     "schema_version: 1\nentries: [" + "[" * 5000 + "]" * 5001,
     "schema_version: 1\nentries:\n- metrics: [{miou: 1" + "0" * 400 + "}]"],
)  # fmt: skip
def test_what_is_no_registry_is_an_error_not_a_traceback(text: str) -> None:
    with pytest.raises(FormatError, match=r"my\.yaml"):
        parse(text, "my.yaml")


def test_anchors_do_not_fill_an_error() -> None:
    text = "schema_version: 1\nentries:\n- &a [x, x, x, x, x, x, x, x]\n"
    for last, name in zip("abcdefg", "bcdefgh", strict=True):
        text += f"- &{name} [{', '.join([f'*{last}'] * 8)}]\n"
    with pytest.raises(FormatError, match="8 problems") as caught:
        parse(text, "my.yaml")
    assert len(str(caught.value)) < 4000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../../mine"}, "name '../../mine'"),
        ({"name": "con"}, "no device's"),
        ({"filename": "../x.pth"}, "leaves its folder"),
        ({"filename": "a\nb.pth"}, "a character that Windows forbids"),
        ({"filename": "x" * 300}, "200 bytes"),
        ({"filename": ".zip", "archive": {"type": "zip"}}, "'' is no safe file name"),
        ({"digests": {"sha-256": digest(BODY)}}, "digest 'sha-256'"),
        ({"digests": {"sha256": digest(BODY).upper()}}, "lower-case"),
        ({"size": -5}, "size -5"),
        ({"recipe": {"convert": "native", "weights": "../../x"}}, "none of its files"),
    ],
)
def test_no_registry_is_loaded_that_would_write_elsewhere_or_refuse_right_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    one, path = described(artifact(HTTPS)), tmp_path / "r.yaml"
    for key, value in change.items():
        (one if key in ("name", "recipe") else one["artifacts"][0])[key] = value
    path.write_text(text_of(one))
    monkeypatch.setattr("deeplab_zoo.zoo.weights.registry.SHIPPED", path)  # It takes a while.
    with pytest.raises(FormatError, match=rf"r\.yaml: .*{words}"):
        load_registry()


def test_names_are_found_by_alias_and_guessed_when_wrong() -> None:
    registry = load_registry()
    assert registry.find("resnet101COCO").name == "advsemiseg-deeplabv2-resnet101-coco-init"
    with pytest.raises(UsageError, match="Did you mean 'deeplabv2-resnet101-voc'") as caught:
        registry.find("deeplabv2_resnet101_voc")
    assert caught.value.exit_code == 2


def test_own_registries_come_from_the_option_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for path in paths:
        body = path.name.encode()
        path.write_text(text_of(described(artifact(HTTPS, body=body), name=path.stem)))
    monkeypatch.setenv("DEEPLAB_ZOO_REGISTRY", str(paths[0]))
    registry = load_registry([paths[1]])
    assert registry.find("a").place == str(paths[0])
    assert registry.find("b").place == str(paths[1])
    paths[1].write_text(text_of(described(artifact(HTTPS), name="a")))
    with pytest.raises(FormatError, match="a: in .*b.yaml and in .*a.yaml"):
        load_registry([paths[1]])
    with pytest.raises(ZooError, match="no such registry file"):
        load_registry([tmp_path / "none.yaml"])


def test_the_shipped_registry_lies_where_the_wheel_puts_it() -> None:
    assert SHIPPED.name == "registry.yaml"
    assert SHIPPED.parent.joinpath("__init__.py").exists()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (HTTPS, HTTPS),
        ("hf://owner/name@" + "a" * 40 + "/sub folder/x.pth",
         "https://huggingface.co/owner/name/resolve/" + "a" * 40 + "/sub%20folder/x.pth"),
        ("https://drive.google.com/uc?id=abc",
         "https://drive.usercontent.google.com/download?id=abc&export=download"),
        ("https://drive.google.com/uc?id=abc&resourcekey=0-k",
         "https://drive.usercontent.google.com/download?id=abc&resourcekey=0-k&export=download"),
    ],
)  # fmt: skip
def test_addresses_mean_what_they_say(url: str, address: str) -> None:
    assert resolve(url) == address


def test_a_path_is_relative_to_its_registry(tmp_path: Path) -> None:
    assert resolve("sub/x.pth", str(tmp_path / "r.yaml")) == (tmp_path / "sub" / "x.pth").as_uri()


def test_content_evidence_can_be_recorded() -> None:
    agreed = [{"grade": "D", "covers": ["content"], "where": "deeplab-zoo compare mine other",
               "says": "528 of 528 tensors equal"}]  # fmt: skip
    one = described(artifact(HTTPS, evidence=[*artifact(HTTPS)["evidence"], *agreed]))
    (entry,) = parse(text_of(one), "test")
    assert problems(assemble([entry]).entries.values()) == []
    assert entry.artifacts[0].claim.evidence[1].says == "528 of 528 tensors equal"
    two = copy.deepcopy(one)
    two["artifacts"][0].update(digests={}, evidence=agreed)
    (entry,) = parse(text_of(two), "test")
    assert entry.state == "unverified"
    assert digest(b"") not in str(entry)

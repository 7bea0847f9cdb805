from pathlib import Path

import pytest

from deeplab_zoo.proto.errors import FormatError, UsageError
from deeplab_zoo.zoo.data.legend import (
    CAMVID,
    CITYSCAPES_IDS,
    LEGENDS,
    REFUSED,
    SCRIBBLE,
    VOC,
    class_id,
    colormap,
    find_legend,
    legend,
    one_against_rest,
)


def test_the_palette_is_vocs() -> None:
    # From the VOC development kit: background, aeroplane, bird, person, tvmonitor, and 255.
    known = {0: (0, 0, 0), 1: (128, 0, 0), 3: (128, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    colours = colormap(256)
    assert {one: colours[one] for one in known} == known
    assert colours[255] == (224, 224, 192)
    assert len(set(colours)) == 256


@pytest.mark.parametrize("name", LEGENDS)
def test_every_known_legend_is_whole(name: str) -> None:
    known = LEGENDS[name]
    assert len(known.names) == len(known.colours) == len(set(known.names))
    assert len(known.values) == 256
    assert set(known.values) - {253, 254, 255} == set(range(len(known.names)))
    colours = [colour for colour, _ in known.ink]
    assert len(colours) == len(set(colours))


def test_cityscapes_values_are_renumbered_and_unjudged_ones_are_void() -> None:
    assert CITYSCAPES_IDS.values[7] == 0
    assert CITYSCAPES_IDS.values[33] == CITYSCAPES_IDS.names.index("bicycle") == 18
    assert CITYSCAPES_IDS.values[0] == CITYSCAPES_IDS.values[29] == 255
    assert CITYSCAPES_IDS.values[34] == REFUSED
    assert dict(CITYSCAPES_IDS.ink)[(0, 0, 142)] == 26


def test_segnets_own_number_for_void_in_camvid_is_void() -> None:
    assert CAMVID.values[10:13] == bytes([10, 255, REFUSED])


def test_scribbles_know_padding() -> None:
    assert SCRIBBLE.values[20] == 20
    assert SCRIBBLE.values[21] == REFUSED
    assert SCRIBBLE.values[254] == 254


def test_one_against_the_rest_keeps_void_and_what_is_refused() -> None:
    person = one_against_rest(VOC, "Person")
    assert person.names == ("not person", "person")
    assert [person.values[one] for one in (0, 14, 15, 16, 21, 255)] == [0, 0, 1, 0, REFUSED, 255]
    assert person.ink == VOC.ink


def test_one_of_renumbered_classes_against_the_rest() -> None:
    car = one_against_rest(CITYSCAPES_IDS, "car")
    assert [car.values[one] for one in (7, 26, 0, 33)] == [0, 1, 255, 0]


def test_an_unknown_class_is_a_suggestion() -> None:
    assert class_id(CAMVID, "tree") == class_id(CAMVID, "5") == 5
    with pytest.raises(UsageError, match="Did you mean 'pedestrian'"):
        class_id(CAMVID, "pedestrain")
    with pytest.raises(UsageError, match="Expected one of sky"):
        class_id(CAMVID, "11")


def test_classes_come_from_a_name_a_number_names_or_a_file(tmp_path: Path) -> None:
    assert find_legend("voc") is VOC
    assert find_legend(3).names == find_legend("3").names == ("class 0", "class 1", "class 2")
    assert find_legend(["wall", "roof"]).values[1] == 1
    path = tmp_path / "classes.txt"
    path.write_text("wall\t10 20 30\nflat roof\t40 50 60\n")
    read = find_legend(str(path))
    assert read.names == ("wall", "flat roof")
    assert read.colours == ((10, 20, 30), (40, 50, 60))


def test_a_file_of_classes_may_have_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("\ufeffwall\n\n   \nToreinfahrt für Lkw\t\n", encoding="utf-8")
    assert find_legend(path).names == ("wall", "Toreinfahrt für Lkw")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("wall\t1 2\n", "line 1: 'wall'"), ("a\t1 2 3\nb\n", "1 of 2 classes have a colour"),
     ("a\t1 2 256\n", "three numbers 0..255"), ("\na\t-1 1 2 3\n", "line 2: 'a' and '-1 1 2 3'"),
     ("a\t1 2 3 x\n", "line 1: 'a'"), ("\t1 2 3\n", "expected a name"), (" \n", "names no class")],
)  # fmt: skip
def test_a_malformed_file_of_classes_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(FormatError, match=complaint):
        find_legend(str(path))


def test_a_file_of_classes_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes("Straße".encode("latin-1"))
    with pytest.raises(FormatError, match="classes.txt: byte 4 is not UTF-8"):
        find_legend(str(path))


def test_legends_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="classes: 0"):
        legend([])
    with pytest.raises(UsageError, match="wall named more than once"):
        legend(["wall", "roof", "wall"])
    with pytest.raises(UsageError, match="1 colours for 2"):
        legend(["wall", "roof"], [(0, 0, 0)])
    with pytest.raises(UsageError, match="expected one of voc"):
        find_legend("vocc")

import io
from pathlib import Path
from random import Random

import numpy as np
import pytest

from deeplab_zoo.proto import caffemodel, snapshot, wire
from deeplab_zoo.proto.caffe_pb2 import BlobProto, LayerParameter, NetParameter
from deeplab_zoo.proto.errors import FormatError, ZooError
from deeplab_zoo.proto.records import Blob, Layer, Net

WEIGHTS = ("new", "bvlc", "legacy_dims", "double", "diff", "v0", "v1", "unpacked")


def parse(data: bytes) -> Net:
    return caffemodel.parse_net(memoryview(data), "file")


def blob(**fields: object) -> bytes:
    """A caffemodel of one layer with one blob."""
    layer = LayerParameter(name="l", type="PReLU", blobs=[fields])
    return NetParameter(layer=[layer]).SerializeToString()


@pytest.mark.parametrize("kind", [f"{kind}.caffemodel" for kind in WEIGHTS])
def test_every_age_of_file_gives_the_same_parameters(golden: Path, kind: str) -> None:
    net = caffemodel.read(golden / "caffe" / f"fmt_{kind}")
    check_parameters(net, golden)


@pytest.mark.parametrize("kind", ["new", "bvlc"])
def test_caffes_hdf5_weights_give_the_same_parameters(golden: Path, kind: str) -> None:
    net = snapshot.read(golden / "caffe" / f"fmt_{kind}.caffemodel.h5")
    check_parameters(net, golden)
    assert not net.has_graph


def check_parameters(net: Net, golden: Path) -> None:
    layers = {layer.name: layer for layer in net.layers}
    compared = 0
    with np.load(golden / "caffe" / "fmt.npz") as expected:
        for key in expected.files:
            if key.startswith("param/"):
                _, name, index = key.split("/")
                found = layers[name].blobs[int(index)].data
                assert np.array_equal(found.astype(np.float32).ravel(), expected[key].ravel()), key
                compared += 1
    assert compared == 7


def test_a_packed_blob_is_a_view_of_the_mapped_file(golden: Path) -> None:
    for layer in caffemodel.read(golden / "caffe" / "fmt_new.caffemodel").layers:
        for one in layer.blobs:
            assert not one.data.flags.owndata
            assert not one.data.flags.writeable


def test_unpacked_numbers_are_a_strided_view(golden: Path) -> None:
    net = caffemodel.read(golden / "caffe" / "fmt_unpacked.caffemodel")
    assert any(5 in one.data.strides for layer in net.layers for one in layer.blobs)


def test_unknown_fields_are_listed_and_an_error_when_strict(golden: Path) -> None:
    path = golden / "caffe" / "fmt_unpacked.caffemodel"
    assert "layer 1 ('conv1'), blob 0: BlobProto has no field number 999" in (
        caffemodel.read(path).unknown
    )
    with pytest.raises(FormatError, match="BlobProto has no field number 999"):
        caffemodel.read(path, strict=True)


def test_packed_and_unpacked_pieces_of_one_blob_are_joined() -> None:
    one = wire.tag(5, wire.LEN) + b"\x08" + np.array([1, 2], "<f4").tobytes()
    two = b"".join(wire.tag(5, wire.I32) + np.float32(v).tobytes() for v in (3, 4))
    shape = wire.tag(7, wire.LEN) + b"\x03\x0a\x01\x05"
    payload = one + two + one[:1] + b"\x04" + np.float32(5).tobytes() + shape
    layer = b"\x0a\x01l\x12\x05PReLU" + wire.tag(7, wire.LEN) + bytes([len(payload)]) + payload
    net = parse(wire.tag(100, wire.LEN) + bytes([len(layer)]) + layer)
    assert net.layers[0].blobs[0].data.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "field", "other"),
    [
        ("crop_default", "crop_param", "seg_accuracy_param"),
        ("seg_accuracy", "seg_accuracy_param", "crop_param"),
    ],
)
def test_a_contested_field_number_is_read_by_the_layers_type(
    golden: Path, name: str, field: str, other: str
) -> None:
    net = caffemodel.read(golden / "caffe" / f"{name}.caffemodel")
    layer = next(one for one in net.layers if one.type in ("Crop", "SegAccuracy"))
    assert not layer.params.HasField(other)
    assert net.unknown == ()
    if field == "seg_accuracy_param":
        assert layer.params.HasField(field)


def test_a_contested_number_on_another_layer_is_unknown_not_guessed() -> None:
    payload = b"\x0a\x01l\x12\x04ReLU" + wire.tag(144, wire.LEN) + b"\x02\x08\x01"
    net = parse(wire.tag(100, wire.LEN) + bytes([len(payload)]) + payload)
    assert net.unknown == ("layer 1 ('l'): ReLU has no field number 144",)
    assert not net.layers[0].params.HasField("crop_param")


@pytest.mark.parametrize("layer_type", ["Interp", "Crop", "SegAccuracy", "Input", "Upsample", "BN"])
def test_fork_fields_survive_writing_and_reading(layer_type: str) -> None:
    params = LayerParameter(name="l", type=layer_type)
    params.interp_param.zoom_factor = 8
    for field, kind in (("interp_param", "Interp"),):
        if kind != layer_type:
            params.ClearField(field)
    if layer_type == "Crop":
        params.crop_param.offset.extend([1, 3])
    if layer_type == "SegAccuracy":
        params.seg_accuracy_param.ignore_label.append(255)
    if layer_type == "Input":
        params.input_param.shape.add().dim.extend([1, 3, 5, 7])
    if layer_type == "Upsample":
        params.upsample_param.scale_h = 3
    if layer_type == "BN":
        params.bn_param.bn_mode = 1
    file = io.BytesIO()
    caffemodel.write(Net("n", (Layer("l", layer_type, (), (), params),)), file)
    net = parse(file.getvalue())
    assert net.layers[0].params == params
    assert net.unknown == ()


def test_interp_is_written_under_the_forks_number() -> None:
    params = LayerParameter(name="l", type="Interp")
    params.interp_param.zoom_factor = 8
    file = io.BytesIO()
    caffemodel.write(Net("", (Layer("l", "Interp", (), (), params),)), file)
    data = memoryview(file.getvalue())
    outer = next(field for field in wire.fields(data, 0, len(data)) if field.number == 100)
    inner = wire.fields(data, outer.start, outer.stop)
    assert [field.number for field in inner] == [1, 2, 143]


def test_what_we_write_protobuf_reads(golden: Path) -> None:
    net = caffemodel.read(golden / "caffe" / "fmt_new.caffemodel")
    file = io.BytesIO()
    caffemodel.write(net, file)
    message = NetParameter.FromString(file.getvalue())
    for ours, theirs in zip(net.layers, message.layer, strict=True):
        assert ours.name == theirs.name
        for one, other in zip(ours.blobs, theirs.blobs, strict=True):
            assert list(one.shape) == list(other.shape.dim)
            assert one.data.ravel().tolist() == list(other.data)


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_blobs_of_any_shape_round_trip_to_the_bit(dtype: str) -> None:
    random = np.random.default_rng(0)
    shapes = [(), (0,), (5,), (2, 3), (4, 3, 2, 5), (1, 1, 1, 7)]
    blobs = tuple(Blob(s, np.asarray(random.standard_normal(s), dtype)) for s in shapes)
    params = LayerParameter(name="l", type="PReLU")
    file = io.BytesIO()
    caffemodel.write(Net("", (Layer("l", "PReLU", (), (), params, blobs),)), file)
    found = parse(file.getvalue()).layers[0].blobs
    for one, other in zip(blobs, found, strict=True):
        assert one.shape == other.shape
        assert one.data.tobytes() == other.data.tobytes()


@pytest.mark.parametrize(("kind", "dtype"), [(0, "<f8"), (1, "<f4"), (2, "<f2")])
def test_numbers_kept_as_bytes_of_a_type_are_read(kind: int, dtype: str) -> None:
    values = np.array([[1.5, -2], [65504, 2**-24]], dtype)
    held = bytes(
        wire.tag(10, wire.VARINT) + wire.encode_varint(kind)
        + wire.tag(12, wire.LEN) + wire.encode_varint(values.nbytes) + values.tobytes()
        + BlobProto(shape={"dim": [2, 2]}).SerializeToString()
    )  # fmt: skip
    (found,) = parse(of_one_layer(7, held)).layers[0].blobs
    assert found.data.dtype == ("<f8" if kind == 0 else "<f4")
    assert np.array_equal(found.data, values)
    with pytest.raises(FormatError, match=r"raw data of type 3, expected \[0, 1, 2\]"):
        parse(of_one_layer(7, held.replace(b"P%c" % kind, b"P\x03")))


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        (wire.tag(1, wire.VARINT) + b"\x09", "pooling_param: pool has no value 9"),
        (wire.tag(2, wire.I32) + b"1234", "kernel_size has wire type 5, expected 0"),
    ],
)
def test_a_value_that_protobuf_would_take_for_none_is_unknown(field: bytes, complaint: str) -> None:
    (unknown,) = parse(of_one_layer(121, field)).unknown
    assert unknown.endswith(complaint)


def of_one_layer(number: int, payload: bytes) -> bytes:
    """A caffemodel of one layer with a field of bytes."""
    inside = LayerParameter(name="l", type="Pooling").SerializeToString()
    inside += wire.tag(number, wire.LEN) + wire.encode_varint(len(payload)) + payload
    return wire.tag(100, wire.LEN) + wire.encode_varint(len(inside)) + inside


def test_layers_of_two_ages_in_one_file_are_refused() -> None:
    both = NetParameter(layer=[{"name": "a"}], layers=[{"name": "b"}])
    with pytest.raises(FormatError, match="both `layer` and `layers`"):
        parse(both.SerializeToString())


def test_a_blob_without_any_shape_is_a_scalar_as_in_caffe() -> None:
    assert parse(blob(data=[3.5])).layers[0].blobs[0].shape == ()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"data": [1, 2, 3], "shape": {"dim": [2, 2]}}, "3 numbers stored, shape .2, 2. needs 4"),
        (
            {"data": [1], "shape": {"dim": [-1, -1]}},
            "shape .-1, -1., expected at most 32 sizes of 0 to 2147483647",
        ),
        ({"data": [1], "shape": {"dim": [2**40, 0]}}, "sizes of 0 to 2147483647"),
        ({"data": [1], "shape": {"dim": [1] * 33}}, "expected at most 32 sizes"),
        ({"data": [1], "num": -1, "channels": 1, "height": 1, "width": 1}, "sizes of 0 to"),
        ({"data": [1], "num": 70000, "channels": 70000, "height": 1, "width": 1}, "limit"),
        ({"data": [1, 2], "num": 1, "channels": 1}, "2 numbers stored, shape .1, 1, 0, 0. needs 0"),
    ],
)
def test_absurd_and_wrong_sizes_are_refused_before_anything_is_allocated(
    fields: dict[str, object], complaint: str
) -> None:
    with pytest.raises(FormatError, match=f"layer 1 .'l'., blob 0: .*{complaint}"):
        parse(blob(**fields))


def test_a_file_cut_short_anywhere_is_refused(golden: Path) -> None:
    data = (golden / "caffe" / "fmt_new.caffemodel").read_bytes()
    whole = len(parse(data).layers)
    random = Random(0)
    for _ in range(20):
        cut = random.randrange(1, len(data))
        try:
            # A cut between two layers leaves a sound, shorter file; the prototxt then misses them.
            assert len(parse(data[:cut]).layers) < whole
        except FormatError as error:
            assert "cut short" in str(error)


def test_random_bytes_are_refused() -> None:
    random = Random(0)
    for _ in range(200):
        with pytest.raises(FormatError, match="Expected a Caffe caffemodel|holds no layer"):
            parse(random.randbytes(2000))


def test_mutated_files_are_read_or_refused(golden: Path) -> None:
    data = (golden / "caffe" / "fmt_v1.caffemodel").read_bytes()
    random = Random(0)
    for _ in range(1500):
        mutated = bytearray(data)
        for _ in range(random.randint(1, 4)):
            mutated[random.randrange(600)] = random.randrange(256)
        try:
            parse(bytes(mutated))
        except ZooError:
            pass


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty .0 bytes."),
        (b"<html><body>404</body></html>", "is a web page.*The download failed"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"name: 'net'\nlayer { }", "is a text file.*given in the other order"),
        (b"\x1f\x8b\x08\x00", "is a gzip archive.*Unpack it first"),
        (b"PK\x03\x04", "is a zip archive"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    ],
)
def test_what_is_no_caffemodel_is_refused_by_name(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(content)
    with pytest.raises(ZooError, match=complaint):
        caffemodel.read(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="no such file"):
        caffemodel.read(tmp_path / "none")
    with pytest.raises(ZooError, match="is a folder, expected a file"):
        caffemodel.read(tmp_path)


def test_the_files_that_caffe_cannot_parse_are_refused(golden: Path) -> None:
    for name in ("text.caffemodel", "truncated.caffemodel"):
        with pytest.raises(FormatError):
            caffemodel.read(golden / "caffe" / "rejects" / name)

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_zoo import ZooError
from deeplab_zoo.zoo.data.dataset import Dataset, binarise
from deeplab_zoo.zoo.data.loader import evaluation_loader
from deeplab_zoo.zoo.evaluation.evaluate import Judge, Work, count_dataset, evaluate
from deeplab_zoo.zoo.evaluation.job import fitting
from deeplab_zoo.zoo.evaluation.protocol import Protocol
from deeplab_zoo.zoo.models.inference import photos, predict

Make = Callable[..., torch.nn.Module]


def numpy_confusion(model: torch.nn.Module, data: Dataset, classes: int) -> np.ndarray:
    """Count with a loop, on what the model predicts one image at a time."""
    matrix = np.zeros((classes, classes), int)
    for sample in data.samples:
        photo = np.array(Image.open(sample.image).convert("RGB"))
        truth = np.array(Image.open(sample.label))
        given = predict(model, photo, model.numerics)
        judged = truth != 255
        np.add.at(matrix, (truth[judged], given[judged]), 1)
    return matrix


def test_evaluation_is_ten_lines_of_numpy(toy: Make, data: Dataset) -> None:
    model = toy()
    found = evaluate(model, data)
    matrix = numpy_confusion(model, data, 5)
    np.testing.assert_array_equal(found.confusion, matrix)
    iou = matrix.diagonal() / (matrix.sum(0) + matrix.sum(1) - matrix.diagonal())
    np.testing.assert_allclose(found.scores.iou, iou, rtol=1e-12)
    assert found.scores.mean_iou == pytest.approx(np.nanmean(iou), rel=1e-12)
    assert found.headline.endswith("on 7 images of folders val (padded to 33; caffe-v2)")
    assert sorted(found.images) == [f"p{one}" for one in range(7)]


@pytest.mark.parametrize("side", [16, 49])  # Smaller and larger than the pictures.
def test_centre_crops_are_cut_from_pictures_of_one_shorter_side(
    toy: Make, data: Dataset, side: int
) -> None:
    model = toy()
    found = evaluate(model, data, Protocol(crop=side))
    matrix = np.zeros((5, 5), int)
    batches = evaluation_loader(data, model.numerics, crop=side)
    for sample, batch in zip(data.samples, batches, strict=True):
        photo, mask = Image.open(sample.image), Image.open(sample.label)
        height = side  # The shorter one here.
        width = photo.width * side // photo.height
        left = round((width - side) / 2)
        box = left, 0, left + side, side
        cropped = np.array(photo.resize((width, height), Image.Resampling.BILINEAR).crop(box))
        truth = np.array(mask.resize((width, height), Image.Resampling.NEAREST).crop(box))
        # Pillow's floats choose between two pixels that are equally near; heights here are odd.
        ties = (2 * np.arange(width) + 1) * mask.width % (2 * width) == 0
        clear = ~ties[left : left + side]
        assert clear.mean() > 0.8
        ids = batch["label"][0].numpy()
        np.testing.assert_array_equal(ids[:, clear], truth[:, clear])
        seen = photos(batch["image"], model.numerics)[0].byte().permute(1, 2, 0).numpy()
        # Pillow takes a box in float32, and not the whole picture as here.
        np.testing.assert_allclose(seen.astype(int), cropped, rtol=0, atol=2)
        given, judged = predict(model, seen, model.numerics), ids != 255
        np.add.at(matrix, (ids[judged], given[judged]), 1)
    assert (matrix.sum(0) > 0).sum() > 1
    np.testing.assert_array_equal(found.confusion, matrix)
    assert f"(centre crop of {side}, padded to 33; caffe-v2)" in found.headline
    with pytest.raises(ZooError, match="predictions to keep are of whole images"):
        evaluate(model, data, Protocol(crop=side), Judge(keep=lambda *_: None))


def test_torchmetrics_agrees(toy: Make, data: Dataset) -> None:
    metrics = pytest.importorskip("torchmetrics.classification")
    model = toy()
    theirs = metrics.MulticlassConfusionMatrix(5, ignore_index=255)
    miou = metrics.MulticlassJaccardIndex(5, ignore_index=255)
    for sample in data.samples:
        given = torch.from_numpy(predict(model, np.array(Image.open(sample.image)), model.numerics))
        truth = torch.from_numpy(np.array(Image.open(sample.label)))
        theirs.update(given.long(), truth.long())
        miou.update(given.long(), truth.long())
    found = evaluate(model, data)
    assert theirs.compute().tolist() == [list(row) for row in found.confusion]
    assert found.scores.mean_iou == pytest.approx(float(miou.compute()), rel=1e-6)


def test_batches_and_workers_change_nothing(toy: Make, data: Dataset) -> None:
    model, seen = toy(), []
    model.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    alone = evaluate(model, data)
    told: list[tuple[int, int]] = []
    together = evaluate(
        model, data, work=Work(batch_size=2, workers=1, progress=lambda *now: told.append(now))
    )
    assert seen == [1] * 7 + [2, 2, 2, 1]
    assert together == alone
    assert told == [(2, 7), (4, 7), (6, 7), (7, 7)]


SCRIPT = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {folder!r})
from conftest import Toy
from deeplab_zoo import open_dataset
from deeplab_zoo.zoo.evaluation.evaluate import evaluate
from deeplab_zoo.zoo.evaluation.inputs import find
from deeplab_zoo.zoo.evaluation.predict import predict
from deeplab_zoo.zoo.evaluation.processes import together
with together() as device:
    found = evaluate(Toy(), open_dataset({data!r}, "val", classes=5))
    for photos in ({data!r} + "/images/p3.png", {data!r} + "/images"):  # One, and seven.
        done = predict(Toy(), find([photos]), Path({out!r}), overwrite=True)
        assert sorted(one.stem for one in done.written) == sorted(
            one.name.name for one in find([photos])
        ), done
with open({out!r} + os.environ["RANK"], "w") as file:
    json.dump(asdict(found), file)
"""


def test_two_processes_come_to_exactly_what_one_does(
    toy: Make, data: Dataset, tmp_path: Path
) -> None:
    alone = json.loads(json.dumps(asdict(evaluate(toy(), data))))
    script = SCRIPT.format(
        folder=str(Path(__file__).parent), data=str(tmp_path / "set"), out=str(tmp_path / "rank")
    )
    (tmp_path / "script.py").write_text(script)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(tmp_path / "script.py")],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    names = [f"p{one}.png" for one in range(7)]
    assert sorted(one.name for one in (tmp_path / "rank").iterdir()) == names
    for rank in range(2):  # Of seven images one has four and the other three.
        assert json.loads((tmp_path / f"rank{rank}").read_text()) == alone


def test_the_worst_images_are_those_of_the_lowest_iou(toy: Make, data: Dataset) -> None:
    Image.fromarray(np.full((25, 40), 255, np.uint8)).save(data.samples[2].label)  # Void alone.
    found = evaluate(toy(), data)
    assert np.isnan(found.images["p2"])
    values = [found.images[name] for name in found.worst(7)]
    assert values == sorted(one for one in found.images.values() if one == one)
    assert len(found.worst(3)) == 3


def test_one_class_against_the_rest_of_a_network_with_all(toy: Make, data: Dataset) -> None:
    model = toy()
    matrix = numpy_confusion(model, data, 5)
    found = evaluate(model, binarise(data, "class 3"), judge=Judge(wanted=3))
    right, rest = matrix[3, 3], matrix.sum()
    wrong, missed = matrix[:, 3].sum() - right, matrix[3].sum() - right
    assert found.confusion == ((rest - right - wrong - missed, wrong), (missed, right))
    by_sign = evaluate(model, binarise(data, "class 3"), judge=Judge(wanted=3, by_sign=True))
    assert by_sign.confusion != found.confusion


def test_the_head_says_how_one_class_is_judged() -> None:
    judge = Judge(wanted=3)
    assert fitting(judge, 21) == judge
    assert fitting(judge, 2) == Judge(wanted=None)
    assert fitting(judge, 1) == Judge(wanted=0, by_sign=True)
    assert fitting(Judge(), 2) == Judge()


def test_predictions_are_kept_by_name_and_images_without_masks_too(
    toy: Make, data: Dataset
) -> None:
    bare = replace(data, samples=(replace(data.samples[0], label=None), *data.samples[1:]))
    kept: dict[str, np.ndarray] = {}
    counts = count_dataset(toy(), bare, judge=Judge(keep=kept.__setitem__))
    assert sorted(kept) == [f"p{one}" for one in range(7)]
    assert sorted(counts.images) == [f"p{one}" for one in range(1, 7)]
    assert kept["p0"].shape == (19, 41)
    with pytest.raises(ZooError, match="1 samples have no mask"):
        evaluate(toy(), bare)


def test_what_does_not_belong_together_is_refused(toy: Make, data: Dataset) -> None:
    with pytest.raises(ZooError, match="has 6 classes, folders val has 5"):
        evaluate(toy(6), data)
    with pytest.raises(ZooError, match="has no samples"):
        evaluate(toy(), replace(data, samples=()))
    with pytest.raises(ZooError, match="class 7: the model has 5"):
        evaluate(toy(), binarise(data, "class 3"), judge=Judge(wanted=7))


def test_boundaries_are_counted_unless_unwanted(toy: Make, data: Dataset) -> None:
    found = evaluate(toy(), data)
    assert 0 < found.scores.trimap_iou < 1
    assert 0 < found.scores.boundary_iou < 1
    plain = evaluate(toy(), data, judge=Judge(trimap=0, boundary=False))
    assert np.isnan([plain.scores.trimap_iou, plain.scores.boundary_iou]).all()
    assert plain.confusion == found.confusion


@pytest.mark.golden
def test_camvid_end_to_end_agrees_with_numpy(shared: Path, tiny_config: object) -> None:
    from deeplab_zoo import DeepLabV2, open_dataset

    torch.manual_seed(0)
    model = DeepLabV2(replace(tiny_config, classes=11)).eval()
    for parameter in model.classifier.parameters():
        parameter.data.mul_(100)
    camvid = open_dataset(shared / "data" / "camvid", "val")
    data = replace(camvid, samples=camvid.samples[:2])
    found = evaluate(model, data, Protocol())
    matrix = numpy_confusion(model, data, 11)
    assert (matrix.sum(0) > 0).sum() > 1
    np.testing.assert_array_equal(found.confusion, matrix)

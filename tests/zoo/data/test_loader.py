from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from deeplab_zoo.converters.numerics import CAFFE_V2
from deeplab_zoo.proto.errors import FormatError, MismatchError, UsageError
from deeplab_zoo.zoo.data.augment import AUGMENTATIONS
from deeplab_zoo.zoo.data.dataset import Dataset, binarise
from deeplab_zoo.zoo.data.images import read_mask
from deeplab_zoo.zoo.data.layouts import open_dataset
from deeplab_zoo.zoo.data.loader import Batch, evaluation_loader, loader, region
from deeplab_zoo.zoo.data.samplers import Sampling, sampling
from deeplab_zoo.zoo.models.inference import prepare

WAY = replace(AUGMENTATIONS["caffe"], crop=6)

Put = Callable[..., None]


@pytest.fixture
def dataset(voc: Path) -> Dataset:
    return open_dataset(voc, "train")


def shuffled(dataset: Dataset, seed: int = 3) -> Sampling:
    return sampling("shuffle", len(dataset.samples), seed)


def take(batches, count: int) -> list[Batch]:
    return list(islice(batches, count))


def same(first: Batch, second: Batch) -> bool:
    return first["id"] == second["id"] and all(
        torch.equal(first[key], second[key]) for key in ("image", "label", "size")
    )


def test_batches_have_the_shapes_and_types_that_are_promised(dataset: Dataset) -> None:
    (batch,) = take(loader(dataset, WAY, CAFFE_V2, shuffled(dataset), 3), 1)
    assert (batch["image"].shape, batch["image"].dtype) == ((3, 3, 6, 6), torch.float32)
    assert (batch["label"].shape, batch["label"].dtype) == ((3, 6, 6), torch.int64)
    assert batch["size"].tolist() == [[6, 6]] * 3
    assert len(set(batch["id"])) == 3


def test_a_run_resumes_at_any_step_with_the_same_batches(dataset: Dataset) -> None:
    whole = take(loader(dataset, WAY, CAFFE_V2, shuffled(dataset), 3), 9)
    for step in (1, 4):
        resumed = take(loader(dataset, WAY, CAFFE_V2, shuffled(dataset), 3, step=step), 9 - step)
        assert all(map(same, whole[step:], resumed))
    assert not any(
        map(same, whole, take(loader(dataset, WAY, CAFFE_V2, shuffled(dataset, 4), 3), 9))
    )


def test_an_image_is_augmented_anew_each_time(dataset: Dataset) -> None:
    batches = take(loader(dataset, WAY, CAFFE_V2, shuffled(dataset), 4), 2)
    first, second = (batch["image"][batch["id"].index("a1")] for batch in batches)
    assert not torch.equal(first, second)


def test_workers_change_nothing_not_even_the_global_random_numbers(dataset: Dataset) -> None:
    alone = take(loader(dataset, WAY, CAFFE_V2, shuffled(dataset), 3), 4)
    state = torch.get_rng_state()
    helped = take(loader(dataset, WAY, CAFFE_V2, shuffled(dataset), 3, workers=2), 4)
    assert all(map(same, alone, helped))
    assert torch.equal(state, torch.get_rng_state())


def test_two_ranks_see_the_larger_batch_of_one(dataset: Dataset) -> None:
    alone = take(loader(dataset, WAY, CAFFE_V2, shuffled(dataset), 6, step=2), 3)
    ranks = [
        take(loader(dataset, WAY, CAFFE_V2, shuffled(dataset), 3, step=2, rank=r, world=2), 3)
        for r in (0, 1)
    ]
    for whole, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        order = [place for pair in zip(range(3), range(3, 6), strict=True) for place in pair]
        images = torch.cat([part["image"] for part in parts])[order]
        labels = torch.cat([part["label"] for part in parts])[order]
        assert torch.equal(whole["image"], images)
        assert torch.equal(whole["label"], labels)


def test_evaluation_has_each_sample_once_at_its_own_size(dataset: Dataset) -> None:
    batches = list(evaluation_loader(dataset, CAFFE_V2))
    assert [batch["id"] for batch in batches] == [["a1"], ["a2"], ["a3"], ["a4"]]
    assert [batch["size"].tolist() for batch in batches] == [[[5 + k, 7]] for k in range(4)]
    for batch, sample in zip(batches, dataset.samples, strict=True):
        ids = read_mask(sample.label, dataset.legend)
        assert (batch["label"][0].numpy() == ids).all()
    parts = [list(evaluation_loader(dataset, CAFFE_V2, rank=r, world=3)) for r in range(3)]
    assert [[batch["id"][0] for batch in part] for part in parts] == [["a1", "a4"], ["a2"], ["a3"]]


def test_pictures_of_several_sizes_are_padded_to_the_largest(dataset: Dataset) -> None:
    from PIL import Image

    (batch,) = evaluation_loader(dataset, CAFFE_V2, 4)
    assert batch["image"].shape == (4, 3, 8, 7)
    with Image.open(dataset.samples[0].image) as picture:
        expected = prepare(np.asarray(picture), CAFFE_V2)[0]
    assert torch.equal(batch["image"][0, :, :5], expected)
    assert (batch["image"][0, :, 5:] == 0).all()
    assert (batch["label"][0, 5:] == 255).all()


def test_samples_without_a_mask_are_void(dataset: Dataset) -> None:
    bare = replace(dataset, samples=tuple(replace(one, label=None) for one in dataset.samples))
    assert all((batch["label"] == 255).all() for batch in evaluation_loader(bare, CAFFE_V2))
    with pytest.raises(MismatchError, match="4 samples have no mask to train on:\n.*a1.jpg"):
        loader(bare, WAY, CAFFE_V2, shuffled(bare), 2)


def test_binary_labels(dataset: Dataset) -> None:
    seen = {
        int(one)
        for batch in evaluation_loader(binarise(dataset, "person"), CAFFE_V2)
        for one in batch["label"].unique()
    }
    assert seen == {0, 1, 255}


def test_padding_is_told_from_what_is_unlabelled(dataset: Dataset) -> None:
    way = replace(AUGMENTATIONS["rloss"], crop=9, base=6, scale=(1.0, 1.0))
    (batch,) = take(loader(dataset, way, CAFFE_V2, shuffled(dataset), 4), 1)
    label, inside = region(batch["label"])
    assert 0 < inside.float().mean() < 1
    assert (label[~inside] == 255).all()
    assert torch.equal(label[inside], batch["label"][inside])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_named_by_whoever_reads_it(dataset: Dataset, workers: int) -> None:
    photo = dataset.samples[3].image
    photo.write_bytes(photo.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"^[^\n]*a4.jpg: is damaged"):
        list(evaluation_loader(dataset, CAFFE_V2, workers=workers))


def test_a_mask_of_another_size_is_named(dataset: Dataset, put: Put) -> None:
    put("VOC2012/SegmentationClass/a2.png", np.zeros((7, 6), np.uint8))
    with pytest.raises(MismatchError, match=r"a2.png: the mask is 7x6, its picture 6x7 \(turned"):
        list(evaluation_loader(dataset, CAFFE_V2))


def test_a_sampling_of_another_dataset_is_refused(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="made for 5 samples, voc train has 4"):
        loader(dataset, WAY, CAFFE_V2, sampling("shuffle", 5), 2)


@pytest.mark.golden
def test_camvid_trains_from_batches_of_one_size(shared: Path) -> None:
    dataset = open_dataset(shared / "data" / "camvid", "train")
    way = replace(AUGMENTATIONS["drsleep"], crop=97)
    for batch in take(loader(dataset, way, CAFFE_V2, shuffled(dataset), 5), 2):
        assert batch["image"].shape == (5, 3, 97, 97)
        assert set(batch["label"].unique().tolist()) <= {*range(11), 255}
        assert abs(float(batch["image"].mean())) < 60

"""Batches: a dataset, an augmentation and a sampling become a torch ``DataLoader``.

What a sample becomes depends on the seed, its position in the stream and its index, so the
number of workers and ranks, or where a run was interrupted, changes nothing.
"""

import os
import signal
from collections.abc import Iterator
from threading import Thread
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ...converters.numerics import Numerics
from ...proto.errors import MismatchError, UsageError, ZooError, listing
from .augment import AUGMENTATIONS, Augmentation, apply, centre_crop, draw, generator
from .dataset import Dataset
from .images import read_mask, read_photo
from .legend import PADDING, VOID
from .samplers import Sampling, Share, Stream
from .scan import differ

Key = tuple[int, int]


class Item(TypedDict):
    """One sample, ready for the network."""

    image: Tensor
    label: Tensor
    id: str


class Batch(TypedDict):
    """Samples, padded at the bottom and right to the largest: images with 0, labels with void.

    ``image`` float32 (batch, 3, height, width), centred, in the profile's channel order;
    ``label`` int64 (batch, height, width); ``size`` int64 (batch, 2), heights and widths
    before that padding; ``id`` one per sample.
    """

    image: Tensor
    label: Tensor
    size: Tensor
    id: list[str]


class Samples(TorchDataset[Item]):
    """Decoded and augmented samples, by (position in the stream, index in the dataset)."""

    def __init__(self, dataset: Dataset, way: Augmentation, numerics: Numerics, seed: int) -> None:
        self.dataset, self.way, self.numerics, self.seed = dataset, way, numerics, seed

    def __getitem__(self, key: Key) -> Item:
        """Read a sample; a file that is damaged or does not fit is named by a `ZooError`."""
        position, index = key
        sample = self.dataset.samples[index]
        image = read_photo(sample.image)
        ids = read_mask(sample.label, self.dataset.legend) if sample.label else None
        size = image.shape[0], image.shape[1]
        if ids is not None and ids.shape != size:
            raise MismatchError(f"{sample.label}: {differ(ids.shape, size)}")
        drawn = draw(self.way, size, generator(self.seed, position, index))
        pixels, label = apply(self.way, drawn, image, ids, self.numerics)
        return Item(
            image=torch.from_numpy(pixels),
            label=torch.full(pixels.shape[1:], VOID, dtype=torch.uint8)
            if label is None
            else torch.from_numpy(label),
            id=sample.id,
        )

    def __getitems__(self, keys: list[Key]) -> list[Item] | ZooError:
        """Read a batch of samples; what is wrong with one is returned, for `Loader` to raise."""
        try:
            return [self[key] for key in keys]
        except ZooError as error:
            return error


class Loader(DataLoader[Item]):
    """Batches whose errors are raised as they are: torch's have a worker's traceback in them."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield batches."""
        for batch in super().__iter__():
            if isinstance(batch, ZooError):
                raise batch
            yield batch


def collate(items: list[Item] | ZooError) -> Batch | ZooError:
    """Put samples into one batch; an error stays one."""
    if isinstance(items, ZooError):
        return items
    sizes = [tuple(item["label"].shape) for item in items]
    height, width = (max(size[axis] for size in sizes) for axis in range(2))
    images, labels = [], []
    for item, size in zip(items, sizes, strict=True):
        pad = (0, width - size[1], 0, height - size[0])
        images.append(functional.pad(item["image"], pad) if any(pad) else item["image"])
        labels.append(functional.pad(item["label"], pad, value=VOID) if any(pad) else item["label"])
    return Batch(
        image=torch.stack(images),
        label=torch.stack(labels).long(),
        size=torch.tensor(sizes),
        id=[item["id"] for item in items],
    )


def loader(
    dataset: Dataset,
    way: Augmentation,
    numerics: Numerics,
    sampling: Sampling,
    batch_size: int,
    *,
    step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin: bool | None = None,
) -> Loader:
    """Return endless batches for training.

    Parameters
    ----------
    dataset, way, numerics, sampling
        What is read, what may happen to it, the network's conventions, and the order.
    batch_size
        On each rank.
    step
        Batches that each rank has already taken: where a run resumes. That number is the
        whole state.
    rank, world
        This process and how many there are. Together they see what one process with
        ``batch_size * world`` would, step by step.
    workers
        Processes that decode; 0 decodes in this one.
    pin
        Page-locked memory, for copies to a GPU; by default where there is one.

    """
    if sampling.count != len(dataset.samples):
        raise UsageError(
            f"sampling: made for {sampling.count} samples, {dataset.name} {dataset.split} has "
            f"{len(dataset.samples)}."
        )
    bare = [str(sample.image) for sample in dataset.samples if sample.label is None]
    if bare:
        raise MismatchError(f"{len(bare)} samples have no mask to train on:\n{listing(bare)}")
    stream = Stream(sampling, rank, world, step * batch_size * world)
    return _loader(Samples(dataset, way, numerics, sampling.seed), stream, batch_size, workers, pin)


def evaluation_loader(
    dataset: Dataset,
    numerics: Numerics,
    batch_size: int = 1,
    *,
    crop: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin: bool | None = None,
) -> Loader:
    """Return every sample once, in order; ranks share without overlap.

    ``crop`` is the side of a `centre_crop`; 0 takes samples at their own size.
    """
    way = centre_crop(crop) if crop else AUGMENTATIONS["none"]
    samples = Samples(dataset, way, numerics, 0)
    return _loader(samples, Share(len(dataset.samples), rank, world), batch_size, workers, pin)


def _loader(
    samples: Samples, keys: Stream | Share, batch_size: int, workers: int, pin: bool | None
) -> Loader:
    return Loader(
        samples,
        batch_size,
        sampler=keys,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available() if pin is None else pin,
        collate_fn=collate,
        # Else starting the workers draws from the global generator, and a resumed run, which
        # starts them once more, would go on with other random numbers.
        generator=torch.Generator(),
        worker_init_fn=_deaf,
    )


def _deaf(_: int) -> None:
    """Leave Ctrl-C and SIGTERM, which terminals and schedulers send to all, to who trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS has it not.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    """End this process when its parent says so: what `terminate`, and an exit, wait for."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def region(label: Tensor) -> tuple[Tensor, Tensor]:
    """Return labels whose padding is void too, and which pixels are picture (bool).

    For augmentations with ``pad_label`` 254 (rloss): the regularised loss looks at the whole
    picture, labelled or not, but not beyond it.
    """
    inside = label != PADDING
    return label.masked_fill(~inside, VOID), inside

"""How much does the DenseCRF loss gain on scribbles?

For each seed a net is trained on scribbles with partial cross entropy, and goes on from there
twice: without and with the DenseCRF loss, from the same weights, on the same crops in the same
order, for as many updates. Full masks with cross entropy, in the same two stages, are the
ceiling. Scribbles are those of ``deeplab-zoo labels scribble``; mIoU is that of the last weights
on the validation images, against full masks.

    python benchmarks/weak_supervision.py camvid --work work --results runs.jsonl --tune 0.1,0.3,1,3
    python benchmarks/weak_supervision.py camvid --work work --results runs.jsonl
    python benchmarks/weak_supervision.py camvid --work gpu --results gpu.jsonl --device cuda \\
        --arch deeplabv2-resnet101 --weights init.safetensors --size 360,480 --crop 321 \\
        --steps 4000 --lr 2.5e-4 --sigma-xy 96

A run that is cut off goes on from its checkpoint; one that is in RESULTS is not done again. The
weight of the DenseCRF loss is ``--strength`` divided by the pixels that it sees, and each pixel's
share is normalised, so that one strength suits any size. ``--tune`` tries several strengths on a
seed that is not reported.
"""

import argparse
import csv
import json
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from PIL import Image

from deeplab_zoo.converters import weights as weights_file
from deeplab_zoo.converters.architectures import config_of, drawn, find
from deeplab_zoo.converters.deeplab_v2 import DeepLabV2Config
from deeplab_zoo.converters.numerics import TORCH_HALFPIXEL, profile
from deeplab_zoo.zoo.data.layouts import open_dataset
from deeplab_zoo.zoo.data.legend import find_legend
from deeplab_zoo.zoo.data.scribbles import scribble_masks
from deeplab_zoo.zoo.training.config import TrainConfig
from deeplab_zoo.zoo.training.job import RESULT, finetune

NARROW = DeepLabV2Config(blocks=(1, 1, 1, 1), stem=16, widths=(16, 24, 32, 48), rates=(2, 4, 6, 8))
TUNED_ON = 100
SCALE = 0.5  # Of the DenseCRF loss.

# What a run is: its stage and the masks that it sees.
RUNS = {
    "partial": (1, "scribbles"),
    "partial, on": (2, "scribbles"),
    "densecrf": (2, "scribbles"),
    "full": (1, "labels"),
    "full, on": (2, "labels"),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What all runs share."""

    arch: str
    weights: str
    size: tuple[int, int]
    crop: int
    steps: int
    batch_size: int
    lr: float
    sigma_rgb: float
    sigma_xy: float
    classes: str


def prepare(data: Path, folder: Path, setting: Setting) -> None:
    """Write the dataset at the setting's size, and the scribbles of its training masks."""
    legend = find_legend(setting.classes)
    height, width = setting.size
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        samples = open_dataset(data, split, classes=setting.classes).samples
        for sample in samples:
            for source, name in ((sample.image, "images"), (sample.label, "labels")):
                target = folder / name / f"{sample.id}.png"
                if source is None or target.exists():
                    continue
                way = Image.Resampling.BILINEAR if name == "images" else Image.Resampling.NEAREST
                with Image.open(source) as picture:
                    picture.resize((width, height), way).save(target)
        (folder / f"{split}.txt").write_text("".join(f"{one.id}.png\n" for one in samples))
    # Those of the validation masks are not looked at.
    if not (folder / "scribbles").exists():
        list(scribble_masks(folder / "labels", folder / "scribbles", legend))


def begin(folder: Path, setting: Setting, seed: int) -> Path:
    """Return the file of the weights that a seed begins with: given ones, or drawn."""
    if setting.weights:
        return Path(setting.weights)
    path = folder / f"seed-{seed}.safetensors"
    if setting.arch == "narrow":
        made = drawn(NARROW, seed, TORCH_HALFPIXEL)
    else:
        made = drawn(config_of(setting.arch), seed, profile(find(setting.arch).numerics))
    weights_file.write(made, path)
    return path


def train(
    folder: Path, setting: Setting, name: str, seed: int, strength: float, device: str
) -> float:
    """Do a run, or go on with it; return its mIoU."""
    stage, masks = RUNS[name]
    start = begin(folder, setting, seed)
    if stage == 2:
        first = "partial" if masks == "scribbles" else "full"
        start = folder / "runs" / f"{first}-{seed}" / RESULT
    ending = f"-{strength:g}" if strength else ""
    config = TrainConfig(
        data=str(folder), images="images", labels=masks, val_labels="labels",
        classes=setting.classes, reset_head=stage == 1, batch_norm="trained",
        loss="partial-ce", targets="full", augmentation="caffe", crop=setting.crop,
        regularizer="densecrf" if strength else "none",
        crf_weight=strength / (SCALE * setting.crop) ** 2, crf_normalisation="pixel",
        crf_sigma_rgb=setting.sigma_rgb, crf_sigma_xy=setting.sigma_xy, crf_scale=SCALE,
        solver="adamw", groups="flat", lr=setting.lr / stage, steps=setting.steps,
        batch_size=setting.batch_size, accumulate=1, workers=0 if device == "cpu" else 4,
        device=device, seed=1000 * stage + seed, val_every=0, save_every=max(1, setting.steps // 4),
        keep=1, tensorboard=False,
    )  # fmt: skip
    output = folder / "runs" / f"{name.replace(', ', '-')}-{seed}{ending}"
    if finetune(start, config, output, resume="auto").path is None:
        raise SystemExit("stopped; the same command goes on from there")
    with (output / "log.csv").open(newline="") as file:
        *_, last = csv.DictReader(file)
    return float(last["miou"])


def wanted(
    seeds: Sequence[int], strengths: Sequence[float], *, tune: bool
) -> Iterator[tuple[str, int, float]]:
    """Yield the runs to do, each with its seed and the strength of the DenseCRF loss."""
    for name, (_, masks) in RUNS.items():
        if tune and masks == "labels":
            continue
        for strength in strengths if name == "densecrf" else (0.0,):
            for seed in seeds:
                yield name, seed, strength


def main() -> None:
    """Do what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--strength", type=float, default=1.0, help="of the DenseCRF loss")
    parser.add_argument("--tune", default="", metavar="X,Y", help="strengths to try, on one seed")
    parser.add_argument("--arch", default="narrow", help="narrow, or a name of finetune --arch")
    parser.add_argument("--weights", default="", help="to begin with; drawn unless given")
    parser.add_argument("--classes", default="camvid")
    parser.add_argument("--size", default="180,240", help="height and width of the pictures")
    parser.add_argument("--crop", type=int, default=129)
    parser.add_argument("--steps", type=int, default=300, help="updates in each of two stages")
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--lr", type=float, default=3e-3, help="AdamW's; half in the second stage")
    parser.add_argument("--sigma-rgb", type=float, default=15.0)
    parser.add_argument("--sigma-xy", type=float, default=48.0, help="in pixels of --size")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    height, width = map(int, options.size.split(","))
    setting = Setting(
        options.arch, options.weights, (height, width), options.crop, options.steps,
        options.batch_size, options.lr, options.sigma_rgb, options.sigma_xy, options.classes,
    )  # fmt: skip
    seeds = [TUNED_ON] if options.tune else [int(one) for one in options.seeds.split(",")]
    strengths = [float(one) for one in options.tune.split(",") if one] or [options.strength]
    prepare(options.data, options.work, setting)
    done = read(options.results, setting)
    runs = list(wanted(seeds, strengths, tune=bool(options.tune)))
    for name, seed, strength in runs:
        if (name, seed, strength) in done:
            continue
        began = datetime.now(UTC)
        miou = train(options.work, setting, name, seed, strength, options.device)
        seconds = (datetime.now(UTC) - began).total_seconds()
        done[name, seed, strength] = miou
        print(
            f"{name}, seed {seed}, strength {strength:g}: {miou:.4f}, {seconds:.0f} s", flush=True
        )
        row = {
            "run": name, "seed": seed, "strength": strength, "miou": miou, "seconds": seconds,
            "began": began.isoformat(timespec="seconds"), "setting": asdict(setting),
        }  # fmt: skip
        with options.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
    print("\n".join(table({key: done[key] for key in runs}, setting, options.device)))


def read(path: Path, setting: Setting) -> dict[tuple[str, int, float], float]:
    """Return the mIoU of the runs that are done under this setting."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    own = json.loads(json.dumps(asdict(setting)))
    return {
        (row["run"], row["seed"], row["strength"]): row["miou"]
        for row in rows
        if row["setting"] == own
    }


def table(
    done: dict[tuple[str, int, float], float], setting: Setting, device: str
) -> Iterator[str]:
    """Yield the lines of the result, as Markdown."""
    kinds = list(dict.fromkeys((name, strength) for name, _, strength in done))
    seeds = list(dict.fromkeys(seed for _, seed, _ in done))
    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    yield f"\n{datetime.now(UTC):%Y-%m-%d}, {platform.platform()}, {versions}, {where}"
    yield f"\n{setting}\n"
    yield f"| run | strength | {' | '.join(f'seed {one}' for one in seeds)} | mean | std |"
    yield f"|---|---:|{'---:|' * (len(seeds) + 2)}"
    for name, strength in kinds:
        own = [100 * done[name, seed, strength] for seed in seeds]
        spread = f"{statistics.stdev(own):.2f}" if len(own) > 1 else ""
        cells = " | ".join(f"{one:.2f}" for one in own)
        yield f"| {name} | {strength:g} | {cells} | {statistics.mean(own):.2f} | {spread} |"


if __name__ == "__main__":
    main()

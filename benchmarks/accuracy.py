"""What do the Lovász losses and the DenseCRF loss gain, from scratch, on a small real dataset?

Two studies. ``lovasz``: cross entropy; with the Lovász softmax added throughout; and cross entropy
for 70 % of the updates, then the Lovász softmax and a tenth of cross entropy at a new learning
rate. Beside them the controls: cross entropy with the same change of rate, with class weights,
and for as long on the clock as cross entropy with Lovász takes. ``scribbles``: partial cross
entropy on the masks of ``deeplab-zoo labels scribble``, going on without and with the DenseCRF
loss, and full masks as the ceiling.

Within a seed all runs begin with the same weights and see the same crops in the same order. mIoU
is that of the last weights on the validation images, against full masks.

    python benchmarks/accuracy.py lovasz camvid --work work --results runs.jsonl
    python benchmarks/accuracy.py scribbles camvid --work work --results runs.jsonl
    python benchmarks/accuracy.py lovasz camvid --work gpu --results gpu.jsonl --device cuda \\
        --arch deeplabv2-resnet101 --weights init.safetensors --size 360,480 --crop 321 \\
        --steps 4000 --lr 2.5e-4

A run that is cut off goes on from its checkpoint; one that is in RESULTS is not done again. What
has to be chosen, the rate after the change and the strength of the DenseCRF loss, is chosen on a
seed that is not reported: ``--seeds 100 --try 0.3,1,3``. The weight of the DenseCRF loss is its
strength divided by the pixels that it sees, and each pixel's share is normalised, so that one
strength suits any size.
"""

import argparse
import csv
import json
import platform
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
SCALE = 0.5  # Of the DenseCRF loss.
FIRST = 0.7  # Share of the updates before the loss changes.


@dataclass(frozen=True, slots=True)
class Run:
    """A training: what it goes on from, how long it takes, and what of the config it changes."""

    after: str = ""
    share: float = 1.0  # of the updates
    rate: float = 1.0  # times the learning rate
    as_long_as: str = ""  # this run's time on the clock
    changes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Study:
    """Runs by their names, each after those that it needs, and the one that gains are taken on."""

    base: str
    runs: Mapping[str, Run]


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    miou: float
    steps: int
    step_ms: float  # of the fastest tenth: others may use the machine as well


def lovasz(_: Setting, rates: Sequence[float]) -> Study:
    """Return cross entropy, Lovász in two ways, and the controls; ``rates`` after the change."""
    both = {"loss": "ce+lovasz"}
    late = {"loss": "lovasz+ce", "loss_weights": (1.0, 0.1)}
    runs = {
        "ce": Run(),
        "ce+lovasz": Run(changes=both),
        "ce, class weights": Run(changes={"class_weights": "balanced"}),
        "ce, 70 %": Run(share=FIRST),
    }
    for rate in rates:
        runs[f"ce, then lovasz, rate {rate:g}"] = Run("ce, 70 %", 1 - FIRST, rate, changes=late)
        runs[f"ce, then ce, rate {rate:g}"] = Run("ce, 70 %", 1 - FIRST, rate)
    runs["ce, as long as ce+lovasz"] = Run(as_long_as="ce+lovasz")
    return Study("ce", runs)


def scribbles(setting: Setting, strengths: Sequence[float]) -> Study:
    """Return what scribbles give in two stages, without and with the DenseCRF loss."""
    seen = {"labels": "scribbles"}
    runs = {
        "partial": Run(changes=seen),
        "partial, on": Run("partial", rate=0.5, changes=seen),
        "full": Run(),
        "full, on": Run("full", rate=0.5),
    }
    for strength in strengths:
        loss = {
            "regularizer": "densecrf", "crf_normalisation": "pixel", "crf_scale": SCALE,
            "crf_weight": strength / (SCALE * setting.crop) ** 2,
            "crf_sigma_rgb": setting.sigma_rgb, "crf_sigma_xy": setting.sigma_xy,
        }  # fmt: skip
        runs[f"densecrf {strength:g}"] = Run("partial", rate=0.5, changes={**seen, **loss})
    return Study("partial, on", runs)


STUDIES = {"lovasz": lovasz, "scribbles": scribbles}


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


def output(folder: Path, name: str, seed: int) -> Path:
    """Return the folder of a run."""
    return folder / "runs" / f"{re.sub('[^a-z0-9.]+', '-', name)}-{seed}"


def train(
    folder: Path, setting: Setting, name: str, run: Run, seed: int, steps: int, device: str
) -> Outcome:
    """Do a run, or go on with it."""
    start = begin(folder, setting, seed)
    if run.after:
        start = output(folder, run.after, seed) / RESULT
    config = TrainConfig(**{
        "data": str(folder), "images": "images", "labels": "labels", "val_labels": "labels",
        "classes": setting.classes, "reset_head": not run.after, "batch_norm": "trained",
        "loss": "partial-ce", "targets": "full", "augmentation": "caffe", "crop": setting.crop,
        "solver": "adamw", "groups": "flat", "lr": setting.lr * run.rate, "steps": steps,
        "batch_size": setting.batch_size, "accumulate": 1, "workers": 0 if device == "cpu" else 4,
        "device": device, "seed": (2000 if run.after else 1000) + seed, "val_every": 0,
        "save_every": max(1, steps // 4), "keep": 1, "tensorboard": False, **run.changes,
    })  # fmt: skip
    if finetune(start, config, output(folder, name, seed), resume="auto").path is None:
        raise SystemExit("stopped; the same command goes on from there")
    with (output(folder, name, seed) / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    speeds = [float(row["images_per_second"]) for row in rows if row["images_per_second"]]
    step_ms = 1000 * setting.batch_size / statistics.quantiles(speeds, n=10)[-1]
    return Outcome(float(rows[-1]["miou"]), steps, step_ms)


def updates(run: Run, setting: Setting, done: Callable[[str], Outcome]) -> int:
    """Return how many updates a run has, in all or for as long as another one takes."""
    steps = setting.steps * run.share
    if run.as_long_as:
        steps = done(run.as_long_as).steps * done(run.as_long_as).step_ms / done("ce").step_ms
    return round(steps)


def main() -> None:
    """Do what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument(
        "--try", default="1", dest="tried", metavar="X,Y",
        help="lovasz: factors of the rate after the change; scribbles: strengths of DenseCRF",
    )  # fmt: skip
    parser.add_argument("--arch", default="narrow", help="narrow, or a name of finetune --arch")
    parser.add_argument("--weights", default="", help="to begin with; drawn unless given")
    parser.add_argument("--classes", default="camvid")
    parser.add_argument("--size", default="180,240", help="height and width of the pictures")
    parser.add_argument("--crop", type=int, default=129)
    parser.add_argument("--steps", type=int, default=300, help="updates; of scribbles' each stage")
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--lr", type=float, default=3e-3, help="AdamW's")
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
    study = STUDIES[options.study](setting, [float(one) for one in options.tried.split(",")])
    seeds = [int(one) for one in options.seeds.split(",")]
    prepare(options.data, options.work, setting)
    done = read(options.results, setting)
    for seed in seeds:
        for name, run in study.runs.items():
            if (name, seed) in done:
                continue
            began = datetime.now(UTC)
            steps = updates(run, setting, lambda other, seed=seed: done[other, seed])
            outcome = train(options.work, setting, name, run, seed, steps, options.device)
            done[name, seed] = outcome
            print(f"{name}, seed {seed}: {outcome}", flush=True)
            row = {
                "run": name, "seed": seed, **asdict(outcome),
                "began": began.isoformat(timespec="seconds"), "setting": asdict(setting),
            }  # fmt: skip
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print("\n".join(table(done, study, seeds, setting, options.device)))


def read(path: Path, setting: Setting) -> dict[tuple[str, int], Outcome]:
    """Return what came of the runs that are done under this setting."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    own = json.loads(json.dumps(asdict(setting)))
    return {
        (row["run"], row["seed"]): Outcome(row["miou"], row["steps"], row["step_ms"])
        for row in rows
        if row["setting"] == own
    }


def table(
    done: Mapping[tuple[str, int], Outcome],
    study: Study,
    seeds: Sequence[int],
    setting: Setting,
    device: str,
) -> Iterator[str]:
    """Yield the lines of the result, as Markdown: mIoU and gains in percent."""
    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    yield f"\n{datetime.now(UTC):%Y-%m-%d}, {platform.platform()}, {versions}, {where}"
    yield f"\n{setting}\n"
    yield (
        f"| run | updates | step, ms | {' | '.join(f'seed {one}' for one in seeds)} | mean | std "
        f"| gain on {study.base} | least |"
    )
    yield f"|---|{'---:|' * (len(seeds) + 6)}"
    for name in study.runs:
        own = [done[name, seed] for seed in seeds]
        scores = [100 * one.miou for one in own]
        gains = [100 * (done[name, seed].miou - done[study.base, seed].miou) for seed in seeds]
        spread = f"{statistics.stdev(scores):.2f}" if len(own) > 1 else ""
        cells = [
            name, f"{statistics.mean(one.steps for one in own):.0f}",
            f"{statistics.median(one.step_ms for one in own):.0f}",
            *(f"{one:.2f}" for one in scores), f"{statistics.mean(scores):.2f}", spread,
            f"{statistics.mean(gains):+.2f}", f"{min(gains):+.2f}",
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

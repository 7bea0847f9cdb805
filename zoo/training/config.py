"""What a training run is told: one frozen record, from a YAML file or from flags.

The fields are the flags of ``finetune`` and the keys of a recipe, under the same names; their
help stands beside them. Imports no torch.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from ...converters.architectures import ARCHITECTURES
from ...proto.errors import FormatError, UsageError, listing

RECIPES = Path(__file__).parent / "recipes"
SBD_HAS = ("layout", "images", "labels", "val_labels", "classes")  # And no choice of them.


def _key(default: Any, group: str, help_: str, *choices: str, free: bool = False) -> Any:
    """Describe a field; what is ``free`` may differ when a run is resumed."""
    metadata = {"group": group, "help": help_, "choices": choices, "free": free}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that a run depends on; the defaults are DeepLab v2's."""

    data: str = _key("", "Data", "Folder or list to train on, in any layout of docs/data.md.")
    split: str = _key("train", "Data", "List to train on; train+val joins two.")
    val_split: str = _key("val", "Data", 'List that mIoU is taken on; "" for none.')
    val_data: str = _key("", "Data", "Folder or list for mIoU, if it is another.")
    layout: str = _key("", "Data", "voc, sbd, cityscapes, ...; recognised unless given.")
    images: str = _key("", "Data", "Folder of the pictures, where it is not the layout's.")
    labels: str = _key("", "Data", "Folder of the masks, where it is not the layout's.")
    val_labels: str = _key("", "Data", "Folder of the masks for mIoU, if scribbles are trained on.")
    classes: str = _key("", "Data", "voc, camvid, ...; a number; or a file with a name per line.")
    sbd: str = _key("", "Data", "Join VOC with SBD in this folder, without VOC val.")
    only: str = _key("", "Data", "Train on samples that show this class.")
    without: str = _key("", "Data", "Train on samples that do not show this class.")
    binary: str = _key("", "Data", "Train this class against the rest, on its own logit.")
    skip_bad: bool = _key(False, "Data", "Leave out samples that cannot be used, and count them.")
    sampling: str = _key(
        "shuffle", "Data", "Order; the last two need --binary.",
        "shuffle", "sequential", "balanced", "exclusive",
    )  # fmt: skip
    augmentation: str = _key(
        "caffe", "Data",
        "caffe, drsleep, isht7, jaccard-segment, rloss or kazuto1011's way, or none.",
    )  # fmt: skip
    crop: int = _key(0, "Data", "Side of the crop, if not the augmentation's.")
    random_scale: bool = _key(True, "Data", "Scale at random, as the augmentation says.")
    random_mirror: bool = _key(True, "Data", "Mirror at random.")
    workers: int = _key(2, "Data", "Processes that decode, for each device.", free=True)
    threads: int = _key(4, "Data", "That scan the dataset before training.", free=True)

    loss: str = _key(
        "ce", "Loss", "ce, partial-ce, focal, lovasz; with --binary: bce, hinge, lovasz-hinge, "
        "jaccard, proximal; or several joined by +.",
    )  # fmt: skip
    loss_weights: tuple[float, ...] = _key((), "Loss", "Factor of each, separated by commas.")
    class_weights: str = _key("", "Loss", "A number per class, or balanced: by the histogram.")
    focal_gamma: float = _key(2.0, "Loss", "Focal loss: how little a nearly right pixel weighs.")
    per_image: bool = _key(False, "Loss", "Lovász losses of each image instead of the batch.")
    proximal: bool = _key(False, "Loss", "Lovász hinge by proximal steps (--loss proximal).")
    proximal_lam: float = _key(0.5, "Loss", "What a proximal step costs.")
    proximal_steps: int = _key(30, "Loss", "At most, of the original's path; 0 solves exactly.")
    proximal_lam_half: float = _key(1.0, "Loss", "Its factor in the second half of the run.")
    regularizer: str = _key("none", "Loss", "A term for all pixels.", "none", "densecrf")
    crf_weight: float = _key(2e-9, "Loss", "Of the DenseCRF loss.")
    crf_sigma_rgb: float = _key(15.0, "Loss", "Its reach in colours, of 0..255.")
    crf_sigma_xy: float = _key(80.0, "Loss", "Its reach in pixels.")
    crf_scale: float = _key(0.5, "Loss", "It works at this scale of the picture.")
    crf_normalisation: str = _key(
        "none", "Loss", "pixel: by what is near each; the weight then suits any size and reach.",
        "none", "pixel",
    )  # fmt: skip
    targets: str = _key(
        "nearest", "Loss", "Labels at the scores' size; full enlarges the scores instead.",
        "nearest", "interp", "full",
    )  # fmt: skip

    arch: str = _key("", "Model", f"The net that WEIGHTS must be of: {', '.join(ARCHITECTURES)}.")
    num_classes: int = _key(0, "Model", "Classes of a new head; 0: those of the dataset.")
    reset_head: bool = _key(False, "Model", "Draw the last layer anew.")
    msc: bool = _key(False, "Model", "Three scales and four losses.")
    scales: tuple[float, ...] = _key((), "Model", "Scales of --msc, if not the weights' own.")
    train_last: bool = _key(False, "Model", "Train the last layer only.")
    batch_norm: str = _key(
        "frozen", "Model", "statistics: they move, the affine part stays.",
        "frozen", "statistics", "trained", "sync",
    )  # fmt: skip
    ema: float = _key(0.0, "Model", "Decay of a running mean of the weights, which is then kept.")

    solver: str = _key("caffe", "Solver", "Rule of the update.", "caffe", "sgd", "adam", "adamw")
    lr: float = _key(2.5e-4, "Solver", "Base learning rate.")
    momentum: float = _key(0.9, "Solver", "Of caffe and sgd.")
    nesterov: bool = _key(False, "Solver", "Nesterov's momentum (sgd).")
    weight_decay: float = _key(5e-4, "Solver", "Times the group's factor.")
    groups: str = _key(
        "caffe", "Solver", "Factors of rate and decay for each kind of parameter.",
        "caffe", "drsleep", "isht7", "jaccard-segment", "rloss", "kazuto1011", "flat",
    )  # fmt: skip
    schedule: str = _key("poly", "Solver", "Of the rate.", "poly", "step", "cosine", "constant")
    power: float = _key(0.9, "Solver", "Of poly.")
    step_size: int = _key(10000, "Solver", "Updates between the drops of step.")
    gamma: float = _key(0.1, "Solver", "Factor of each drop.")
    schedule_every: int = _key(1, "Solver", "The rate moves every so many updates.")
    steps: int = _key(20000, "Solver", "Updates.")
    batch_size: int = _key(1, "Solver", "On each device.")
    accumulate: int = _key(10, "Solver", "Batches to an update (Caffe's iter_size).")
    clip: float = _key(0.0, "Solver", "Largest norm of the gradient; 0: any.")

    device: str = _key("auto", "Engine", "auto, cpu, cuda.", free=True)
    devices: int = _key(1, "Engine", "On each node.")
    nodes: int = _key(1, "Engine", "Machines; each runs the same command, see docs/training.md.")
    strategy: str = _key(
        "ddp", "Engine", "Of several devices: each holds all weights, or a part (fsdp).",
        "ddp", "fsdp", free=True,
    )  # fmt: skip
    precision: str = _key("32", "Engine", "Of the computation.", "32", "bf16", "fp16")
    activation_checkpointing: bool = _key(False, "Engine", "Compute twice to keep less memory.")
    compile: bool = _key(False, "Engine", "torch.compile.")
    deterministic: bool = _key(False, "Engine", "Bit-identical runs on a GPU, slower.")
    seed: int = _key(0, "Engine", "Of data, new heads and everything drawn.")

    save_every: int = _key(1000, "Output", "Updates between checkpoints.", free=True)
    keep: int = _key(3, "Output", "Checkpoints kept besides the best; 0: all.", free=True)
    val_every: int = _key(1000, "Output", "Updates between validations; 0: at the end.", free=True)
    val_start: bool = _key(False, "Output", "Validate before the first update.", free=True)
    val_samples: int = _key(0, "Output", "Validate on the first so many; 0: all.", free=True)
    log_every: int = _key(10, "Output", "Updates between lines of the log.", free=True)
    tensorboard: bool = _key(True, "Output", "Write TensorBoard's files if installed.", free=True)
    panels: int = _key(4, "Output", "Samples shown in TensorBoard.", free=True)

    def __post_init__(self) -> None:
        """Refuse values that no run can have, all in one error."""
        problems = []
        for one in fields(self):
            value, choices = getattr(self, one.name), one.metadata["choices"]
            if choices and value not in choices:
                problems.append(f"{one.name}: {value!r}, expected one of {', '.join(choices)}")
            values = value if isinstance(value, tuple) else (value,)
            if any(isinstance(part, float) and not math.isfinite(part) for part in values):
                problems.append(f"{one.name}: {value}, expected finite numbers")
        positive = ("steps", "batch_size", "accumulate", "schedule_every", "log_every",
                    "save_every", "devices", "nodes", "step_size", "threads")  # fmt: skip
        problems += [f"{name}: {getattr(self, name)}, expected at least 1"
                     for name in positive if getattr(self, name) < 1]  # fmt: skip
        natural = ("lr", "weight_decay", "momentum", "clip", "crop", "keep", "val_every", "panels",
                   "workers", "num_classes", "val_samples", "proximal_steps", "seed",
                   "focal_gamma")  # fmt: skip
        problems += [f"{name}: {getattr(self, name)}, expected at least 0"
                     for name in natural if getattr(self, name) < 0]  # fmt: skip
        above = "crf_sigma_rgb", "crf_sigma_xy", "crf_scale", "proximal_lam", "proximal_lam_half"
        problems += [f"{name}: {getattr(self, name)}, expected more than 0"
                     for name in above if getattr(self, name) <= 0]  # fmt: skip
        if self.crf_scale > 1:
            problems.append(f"crf_scale: {self.crf_scale}, expected at most 1")
        if any(one <= 0 for one in self.scales):
            problems.append(f"scales: {self.scales}, expected more than 0")
        if self.arch and self.arch not in ARCHITECTURES:
            problems.append(f"arch: {self.arch!r}, expected one of {', '.join(ARCHITECTURES)}")
        if not 0 <= self.ema < 1:
            problems.append(f"ema: {self.ema}, expected at least 0 and less than 1")
        if self.sampling in ("balanced", "exclusive") and not self.binary:
            problems.append(f"sampling: {self.sampling}, expected binary to name the class")
        if self.proximal and self.loss not in ("ce", "lovasz-hinge", "proximal"):
            problems.append(f"proximal: with loss {self.loss!r}, expected lovasz-hinge")
        if self.nesterov and not (self.solver == "sgd" and self.momentum > 0):
            problems.append(
                f"nesterov: with solver {self.solver} and momentum {self.momentum}, expected sgd "
                "and more than 0"
            )
        if self.sbd and (found := [one for one in SBD_HAS if getattr(self, one)]):
            problems.append(f"{', '.join(found)}: with sbd, whose folders and classes are its own")
        if self.activation_checkpointing and self.batch_norm != "frozen":
            problems.append(
                "activation_checkpointing: with moving BatchNorm statistics, which would move "
                "twice; expected batch_norm frozen"
            )
        if problems:
            raise UsageError(f"config: {len(problems)} values cannot be:\n{listing(problems)}")


TYPES: Mapping[str, Any] = get_type_hints(TrainConfig)
KEYS = {one.name: one for one in fields(TrainConfig)}


def from_mapping(values: Mapping[str, Any], place: str = "config") -> TrainConfig:
    """Make a config of keys and values; the others have their defaults.

    Raises
    ------
    UsageError
        What `typed` raises, or values that no run can have.

    """
    return TrainConfig(**typed(values, place))


def typed(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the fields that keys and values of YAML or flags mean.

    Raises
    ------
    UsageError
        Unknown keys, with the nearest names, or values of another type, all in one error that
        names the ``place``.

    """
    problems, read = [], {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in KEYS:
            near = get_close_matches(name, KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(KEYS)}"
            problems.append(f"{key}: no key of a config, {hint}")
            continue
        try:
            read[name] = _typed(TYPES[name], value)
        except (TypeError, ValueError, OverflowError):
            wanted = getattr(TYPES[name], "__name__", str(TYPES[name]))
            problems.append(f"{key}: {value!r}, expected {_WORDS.get(wanted, wanted)}")
    if problems:
        raise UsageError(f"{place}: {len(problems)} keys are wrong:\n{listing(problems)}")
    return read


def refuse_idle(config: TrainConfig, given: Iterable[str]) -> None:
    """Raise `UsageError` if keys that someone gave belong to losses that the config has not."""
    losses = {*config.loss.split("+"), *(["proximal"] if config.proximal else [])}
    idle = {
        "crf_": ("--regularizer densecrf", config.regularizer == "densecrf"),
        "focal_": ("--loss focal", "focal" in losses),
        "proximal_": ("--proximal", "proximal" in losses),
        "per_image": (
            "--loss lovasz",
            not config.per_image or bool(losses & {"lovasz", "lovasz-hinge", "proximal"}),
        ),
    }
    problems = [
        f"--{name.replace('_', '-')}: does nothing without {needed}"
        for name in given
        for start, (needed, there) in idle.items()
        if name.startswith(start) and not there
    ]
    if problems:
        raise UsageError(f"{len(problems)} options have no use:\n{listing(problems)}")


_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word",
          "tuple": "numbers"}  # fmt: skip


def _typed(kind: Any, value: Any) -> Any:
    """Return a value as its field has it; YAML reads 1e-3 as text and 32 as a number."""
    if get_origin(kind) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        parts = [parts] if isinstance(parts, int | float) else parts
        return tuple(float(one) for one in parts if one != "")
    if kind is bool:
        if not isinstance(value, bool):
            raise TypeError
        return value
    if isinstance(value, bool) or value is None:
        raise TypeError
    if kind is int and float(value) != int(float(value)):
        raise ValueError
    if kind is str and isinstance(value, list | tuple):
        return ",".join(str(one) for one in value)
    return kind(float(value)) if kind is int else kind(value)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a recipe or a saved config; raise `FormatError` if it is no mapping."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise FormatError(f"{path}: cannot be read as YAML ({error}).") from None
    if not isinstance(found, dict):
        raise FormatError(f"{path}: {type(found).__name__}, expected keys and values.")
    return found


def recipe(name: str) -> dict[str, Any]:
    """Return the values of a recipe of ours by its name, or of a file."""
    if Path(name).suffix in (".yaml", ".yml"):
        return read_yaml(Path(name))
    known = recipe_names()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Name a file with .yaml for your own."
        raise UsageError(f"recipe {name!r} is unknown, expected one of {', '.join(known)}. {hint}")
    return read_yaml(RECIPES / f"{name}.yaml")


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the program."""
    return sorted(one.stem for one in RECIPES.glob("*.yaml"))


def to_yaml(config: TrainConfig) -> str:
    """Return every key, in the order of the fields; `from_mapping` reads it back."""
    import yaml

    values = {name: getattr(config, name) for name in KEYS}
    plain = {key: list(one) if isinstance(one, tuple) else one for key, one in values.items()}
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def differences(one: TrainConfig, other: TrainConfig, skip: Iterable[str] = ()) -> list[str]:
    """Say which keys differ of those that change what a run computes."""
    return [
        f"{name}: {getattr(one, name)!r}, now {getattr(other, name)!r}"
        for name, key in KEYS.items()
        if not key.metadata["free"] and name not in skip
        and getattr(one, name) != getattr(other, name)
    ]  # fmt: skip

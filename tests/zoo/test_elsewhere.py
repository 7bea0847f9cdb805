"""What a GPU would run, on a pretended one: the CPU's values, no mixing, and few waits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from deeplab_zoo.converters.architectures import config_of, drawn, find
from deeplab_zoo.converters.largefov import LargeFOVConfig
from deeplab_zoo.converters.numerics import TF_SLIM, profile
from deeplab_zoo.converters.weights import Weights
from deeplab_zoo.zoo.evaluation.metrics import count
from deeplab_zoo.zoo.evaluation.protocol import Crf, Protocol, decide, score
from deeplab_zoo.zoo.losses.registry import LOSSES, build_loss
from deeplab_zoo.zoo.models.inference import scoring
from deeplab_zoo.zoo.models.load import build
from deeplab_zoo.zoo.training.config import TrainConfig
from deeplab_zoo.zoo.training.groups import parameter_groups
from deeplab_zoo.zoo.training.model import RunningMean, make_model, train_mode
from deeplab_zoo.zoo.training.objective import make_objective
from deeplab_zoo.zoo.training.solver import make_solver, set_rate

from .pretended import ELSEWHERE, pretending, sent
from .training.conftest import CONFIG, random_weights

# What the DenseCRF loss waits for: a check of the regions, the range of the lattice's features,
# and the number of its vertices.
LATTICE = {"nonzero": 1, "scalar": 2, "copy": 1, "unique": 1}
CASES = [
    (name, options)
    for name, row in LOSSES.items()
    for options in ({}, {"per_image": True}, {"weight": [1.0, 2, 3, 4, 5]})
    if set(options) <= set(row.options)
]


def net(name: str) -> Weights:
    if name == "vgg":
        return random_weights(LargeFOVConfig(classes=4, widths=(4, 5, 6, 7, 8), hidden=9))
    if name == "v3+":
        arch = "deeplabv3plus-mobilenet"
        return drawn(config_of(arch), 0, profile(find(arch).numerics))
    if name == "scales":
        return random_weights(replace(CONFIG, scales=(1.0, 0.75, 0.5)))
    return replace(random_weights(CONFIG), numerics=TF_SLIM)


def moved(one: Any) -> Any:
    return one.to(ELSEWHERE) if isinstance(one, Tensor) else one


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_loss_has_the_cpus_value_and_gradient_and_waits_for_nothing(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(0)
    shape = (2, 9, 11) if LOSSES[name].binary else (2, 5, 9, 11)
    logits = torch.randn(shape, generator=random)
    labels = torch.randint(0, 2, (2, 9, 11), generator=random)
    labels[0, :3] = 255
    here = logits.clone().requires_grad_()
    expected = build_loss(name, **options)(here, labels)
    expected.backward()
    with pretending(monkeypatch) as mode:
        away = moved(logits).requires_grad_()
        found = sent(build_loss(name, **options))(away, moved(labels))
        found.backward()
        # The proximal step is computed on the CPU.
        assert set(mode.waits) == ({"copy", "scalar"} if name == "proximal" else set())
        assert torch.equal(found.detach().cpu(), expected.detach())
        assert away.grad is not None
        assert torch.equal(away.grad.cpu(), here.grad)


def trained(weights: Weights, config: TrainConfig, place: Callable[[Any], Any]) -> list[Tensor]:
    """Return the losses of two updates, then the weights and their running mean."""
    model = place(make_model(weights, config))
    classes = weights.config.classes
    objective = place(
        make_objective(
            config, weights.numerics, classes, class_weights=[1.0 + one for one in range(classes)]
        )
    )
    torch.manual_seed(1)
    label = torch.randint(0, classes, (2, 65, 65))
    label[:, :5], label[:, -7:] = 255, 254
    batch: Any = {"image": place(torch.randn(2, 3, 65, 65) * 30), "label": place(label)}
    train_mode(model, config)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    groups = parameter_groups(model.named_parameters(), config.groups, config.weight_decay)
    solver = make_solver(config.solver, groups, config.lr, config.momentum)
    set_rate(solver, config.lr)
    mean = RunningMean(model, 0.5)
    found = []
    for _ in range(2):
        terms = objective(model(batch["image"]), batch)
        loss = sum(terms.values(), torch.zeros(()))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        solver.step()
        solver.zero_grad()
        mean.update(model)
        found.append(loss.detach())
    return [*found, *model.state_dict().values(), *mean.state.values()]


@pytest.mark.parametrize(
    ("name", "settings", "waits"),
    [
        ("v2", {}, {}),
        ("scales", {"targets": "full"}, {}),
        ("vgg", {"solver": "adamw", "groups": "flat"}, {}),
        ("v2", {"activation_checkpointing": True}, {}),
        ("v2", {"regularizer": "densecrf"}, {key: 2 * value for key, value in LATTICE.items()}),
    ],
    ids=["v2", "scales", "vgg", "checkpointing", "densecrf"],
)
def test_updates_come_to_the_cpus_weights_and_wait_for_the_lattice_alone(
    name: str, settings: dict[str, Any], waits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(data="x", loss="ce+lovasz", lr=1e-3, **settings)
    weights = net(name)
    expected = trained(weights, config, lambda one: one)

    def away(one: Any) -> Any:
        return sent(one) if isinstance(one, torch.nn.Module) else moved(one)

    with pretending(monkeypatch) as mode:
        found = trained(weights, config, away)
        assert mode.waits == waits
        for one, other in zip(found, expected, strict=True):
            assert one.device == ELSEWHERE
            # The lattice of a GPU is another one than the CPU's.
            torch.testing.assert_close(one.cpu(), other, rtol=1e-5 if waits else 0, atol=1e-7)


VIEWS = Protocol(scales=(0.75, 1.0), flip=True, window=40, average="probabilities", size=0)


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("v2", Protocol()),
        ("scales", Protocol()),
        ("vgg", Protocol()),
        ("v3+", Protocol()),
        ("v2", VIEWS),
        ("v2", Protocol(crf=Crf(2))),
    ],
    ids=["v2", "scales", "vgg", "v3+", "views", "crf"],
)
def test_scores_and_counts_are_the_cpus(
    name: str, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(0)
    weights = net(name)
    classes = weights.config.classes
    images = torch.randn(1, 3, 61, 67, generator=random) * 30
    truth = torch.randint(0, classes, (61, 67), generator=random)
    truth[:4] = 255

    def found(model: Any, images: Tensor, truth: Tensor) -> list[Tensor]:
        with scoring(model):
            scores = score(model, images, protocol)
            ids = decide(scores)[0]
            counts = count(ids, truth, "x", classes, trimap=3, boundary=True)
        assert counts.trimap is not None
        assert counts.boundary is not None
        return [scores.cpu(), ids.cpu(), counts.confusion, counts.trimap, counts.boundary]

    with torch.no_grad():
        expected = found(build(weights), images, truth)
        with pretending(monkeypatch):
            again = found(sent(build(weights)), moved(images), moved(truth))
    atol = 1e-6 if protocol.crf else 0.0
    torch.testing.assert_close(again, expected, rtol=0, atol=atol)

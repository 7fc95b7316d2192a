"""How gradients flow: norms of weights, activations and their gradients, layer by layer, for any classifier.

Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", section 4.2, look at networks
in this way. What is measured is measured on a copy, with statistics of the batch, as in training.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from convatlas.errors import UserError
from convatlas.inspection.running import check_runs, copied, run
from convatlas.records.gradients import GradientFlow, LayerGradient

WEIGHERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
STARTS = ("own", "fan-in", "torch")
"""How weights start: as the network has it; normal with variance 1 / fan-in; as torch's layers have it (1 / (3 fan-in))."""
STEPS = 32
"""Images on the way from one image to another, for the similarity of gradients."""


class _Kept:
    """What is learnt of one layer on the way: its output's deviation, and the gradient by it."""

    activation = float("nan")
    gradient = 0.0


@torch.inference_mode(False)
def gradient_flow(
    model: nn.Module, images: Tensor, labels: Tensor, *, name: str = "", seed: int = 0, epoch: int = 0
) -> GradientFlow:
    """Norms for one batch: `images` (N, C, H, W), `labels` (N,), cross-entropy averaged over the batch.

    The model, its statistics and gradients, and the random state are left as they were; dropout draws from `seed`. A layer that
    is passed several times counts with its last pass. Raises UserError if the model gives no logits (N, classes).
    """
    device = check_runs(model, images)
    _check_labels(images, labels)
    copy = copied(model).train().requires_grad_(True)
    copy.zero_grad(set_to_none=True)
    images, labels = images.detach().clone().to(device), labels.clone().to(device)
    with torch.enable_grad(), torch.random.fork_rng(devices=_devices(images)):
        torch.manual_seed(seed)
        with _watched(copy, len(images)) as seen:
            logits = run(copy, images)
            _check(logits, labels)
            loss = functional.cross_entropy(logits.float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
    names = {module: path for path, module in copy.named_modules()}
    layers = tuple(_record(names[layer], layer, kept) for layer, kept in seen.items())
    return GradientFlow(name or type(model).__name__, seed, epoch, loss.item(), layers)


@torch.inference_mode(False)
def gradient_similarity(model: nn.Module, first: Tensor, second: Tensor) -> float:
    """Mean cosine between the gradients by neighbouring images on the straight way from `first` to `second`, (C, H, W) each.

    In deep plain networks with BatchNorm it is near 0: gradients are like white noise (Balduzzi et al. 2017, "The Shattered
    Gradients Problem", sections 2 and 3, who look at one unit's gradient as a function of the input). Here the gradient is that
    of the sum of all logits times fixed random signs, and the images on the way are the batch.
    """
    device = check_runs(model, first[None])
    first, second = (each.detach().clone().to(device=device, dtype=torch.float32) for each in (first, second))
    copy = copied(model).train()
    share = torch.linspace(0, 1, STEPS, device=first.device, dtype=first.dtype).view(-1, 1, 1, 1)
    images = ((1 - share) * first + share * second).detach().requires_grad_(True)
    with torch.enable_grad(), torch.random.fork_rng(devices=_devices(images)):
        torch.manual_seed(0)
        logits = run(copy, images)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise UserError(
                "the network gives no logits of shape (images, classes)", fix="Gradients are measured of classifiers."
            )
        signs = torch.randint(0, 2, logits.shape[1:], generator=torch.Generator().manual_seed(0)).to(logits) * 2 - 1
        (gradient,) = torch.autograd.grad((logits * signs).sum(), images)
    rows = gradient.flatten(1).double()
    return float(functional.cosine_similarity(rows[1:], rows[:-1], dim=1).mean())


def changed(model: nn.Module, *, norm: str, start: str) -> nn.Module:
    """The model itself, with `norm` "none" without its normalisation layers, and with its weights started as `start` says.

    Random numbers come from torch's global state. Raises UserError for other words.
    """
    check_change(norm=norm, start=start)
    if norm == "none":
        for parent in list(model.modules()):
            for path, child in list(parent.named_children()):
                if isinstance(child, NORMS):
                    setattr(parent, path, nn.Identity())
    for module in model.modules():
        if isinstance(module, WEIGHERS) and start != "own":
            _start(module, start)
    return model


def check_change(*, norm: str, start: str) -> None:
    """Raise UserError for words that `changed` does not know."""
    if norm not in ("own", "none"):
        raise UserError(f"norm is {norm!r}", fix="Give own or none.")
    if start not in STARTS:
        raise UserError(f"start is {start!r}", fix=f"Give {', '.join(STARTS)}.")


def _start(module: nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear, start: str) -> None:
    if start == "torch":
        module.reset_parameters()
        return
    nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
    if module.bias is not None:
        nn.init.zeros_(module.bias)


@contextmanager
def _watched(copy: nn.Module, images: int) -> Iterator[dict[nn.Module, _Kept]]:
    """While it lasts, layers with weights tell what they give, in the order of the data, and what comes back to them."""
    seen: dict[nn.Module, _Kept] = {}

    def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        kept = seen.setdefault(module, _Kept())
        kept.activation = float(output.detach().float().std(correction=0))

        def back(gradient: Tensor) -> None:
            kept.gradient = float(gradient.float().pow(2).mean().sqrt()) * images

        if output.requires_grad:
            output.register_hook(back)  # type: ignore[no-untyped-call]

    handles = [module.register_forward_hook(after) for module in copy.modules() if isinstance(module, WEIGHERS)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _record(name: str, layer: nn.Module, kept: _Kept) -> LayerGradient:
    # Of a weight that is computed (spectral norm, weight norm), what is trained are the parameters that it is computed from.
    weights = [each for name, each in layer.named_parameters() if name != "bias"]
    gradients = [each.grad for each in weights if each.grad is not None]
    return LayerGradient(
        name=name,
        operation=type(layer).__name__,
        params=sum(each.numel() for each in layer.parameters()),
        weight=_norm([each.detach() for each in weights]),
        weight_gradient=_norm(gradients),
        activation=kept.activation,
        activation_gradient=kept.gradient,
    )


def _norm(tensors: Sequence[Tensor]) -> float:
    """Of all their numbers together."""
    return float(sum(float(each.float().pow(2).sum()) for each in tensors) ** 0.5)


def _check_labels(images: Tensor, labels: Tensor) -> None:
    if labels.dim() != 1 or len(labels) != len(images) or labels.dtype != torch.int64 or (len(labels) and int(labels.min()) < 0):
        raise UserError(
            f"the labels are {labels.dtype} of shape {tuple(labels.shape)}",
            fix="Give one class index of 0 or more for each image.",
        )


def _check_logits(logits: object, images: int) -> None:
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != images:
        raise UserError("the network gives no logits of shape (images, classes)", fix="Gradients are measured of classifiers.")


def _check(logits: Tensor, labels: Tensor) -> None:
    _check_logits(logits, len(labels))
    if int(labels.max()) >= logits.shape[1]:
        raise UserError(f"a label is {int(labels.max())}, and there are {logits.shape[1]} classes", fix="Give a fitting network.")


def _devices(images: Tensor) -> list[torch.device]:
    return [images.device] if images.device.type == "cuda" else []

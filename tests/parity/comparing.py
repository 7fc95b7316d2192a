"""Our network and another library's with the same random weights and the same input: how far apart are they?"""

from dataclasses import dataclass

import torch
from torch import nn

from convatlas.models.keymaps import counterpart, layouts
from convatlas.models.loading import load
from convatlas.models.registry import MODELS, create_model
from tests.parity.reference_libraries import timm, torchvision

PAIRS = [(name, library) for name in MODELS for library in ("torchvision", "timm") if counterpart(name, library)]
IN_FLOAT64 = {
    "alexnet",
    "vgg11_bn",
    "googlenet",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_lite0",
    "efficientnet_v2_s",
    "convnext_tiny",
}
"""Every block of every family stands in one of these; in float64 the others take too much time and memory."""
IMAGE_SIZE = {"alexnet": 96}
SMALL_IMAGE_SIZE = 48


@dataclass(frozen=True)
class Difference:
    """Largest differences relative to the largest value compared: logits in evaluation and in training mode, gradients after
    one step's backward pass, and BatchNorm's statistics after it."""

    params: int
    dtype: torch.dtype
    evaluation: float
    training: float
    gradients: float
    statistics: float

    @property
    def largest(self) -> float:
        return max(self.evaluation, self.training, self.gradients, self.statistics)

    @property
    def allowed(self) -> float:
        return 1e-9 if self.dtype == torch.float64 else 1e-4


def compare(name: str, library: str) -> Difference:
    """Draw weights and BatchNorm statistics in the reference, rename them to ours, and compare everything."""
    dtype = torch.float64 if name in IN_FLOAT64 else torch.float32
    with torch.device("meta"):
        theirs, ours = reference(name, library), create_model(name)
    theirs, ours = theirs.to_empty(device="cpu").to(dtype), ours.to_empty(device="cpu").to(dtype)
    draw(theirs)
    no_dropping(theirs)
    no_dropping(ours)
    report = load(ours, theirs.state_dict(), where=library, name=name, classes_chosen=False)
    assert (report.fresh, report.left_out, report.adapted) == ((), (), ())
    size = IMAGE_SIZE.get(name, SMALL_IMAGE_SIZE)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)
    with torch.no_grad():
        evaluation = far(ours.eval()(x), theirs.eval()(x))
    mine, yours = ours.train().training_logits(x), in_training(theirs.train(), x)
    training = max(far(a, b) for (_, a), b in zip(mine, yours, strict=True))
    weights = [weight for weight, _ in mine]
    backward([logits for _, logits in mine], weights)
    backward(yours, weights)
    names = {theirs: ours for ours, theirs in layouts(MODELS[name].family)[library].rename(list(ours.state_dict())).items()}
    gradients = far_all(
        {key: p.grad for key, p in ours.named_parameters()},
        {names[key]: p.grad for key, p in theirs.named_parameters()},
    )
    statistics = far_all(
        {key: b for key, b in ours.named_buffers() if b.is_floating_point()},
        {names[key]: b for key, b in theirs.named_buffers() if b.is_floating_point()},
    )
    params = sum(p.numel() for p in ours.parameters())
    return Difference(params, dtype, evaluation, training, gradients, statistics)


def reference(name: str, library: str) -> nn.Module:
    """The other library's network, built just as `convatlas convert` says that it is to be built."""
    expression = counterpart(name, library)
    options = ", aux_logits=True, init_weights=False)" if name == "googlenet" else ")"
    return eval(expression.removesuffix(")") + options, {"torchvision": torchvision, "timm": timm})


def draw(model: nn.Module) -> None:
    """Fresh random weights, and random BatchNorm statistics: a norm that is the identity hides what comes before it."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
        with torch.no_grad():
            if not tensor.is_floating_point():
                tensor.zero_()
            elif name.endswith(("running_var", "layer_scale", "gamma")) or (tensor.dim() == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dim() == 1:
                tensor.uniform_(-0.2, 0.2, generator=generator)
            else:
                bound = (3 / tensor[0].numel()) ** 0.5
                tensor.uniform_(-bound, bound, generator=generator)


def no_dropping(model: nn.Module) -> None:
    """Dropout and drop path with rate 0, by all the names that the libraries have for it."""
    for module in model.modules():
        for rate in ("p", "rate", "drop_rate", "drop_prob"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)


def in_training(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    out = model(x)
    return [out] if isinstance(out, torch.Tensor) else [out.logits, out.aux_logits1, out.aux_logits2]


def backward(logits: list[torch.Tensor], weights: list[float]) -> None:
    labels = torch.tensor([3, 7])
    sum(w * nn.functional.cross_entropy(each, labels) for w, each in zip(weights, logits, strict=True)).backward()


def far(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((a.detach() - b.detach()).abs().max() / b.detach().abs().max())


def far_all(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The same over many tensors, relative to the largest value in the layer: the gradient of a bias before BatchNorm is 0 in
    theory and nothing but rounding in practice."""
    assert set(ours) == set(theirs)
    largest: dict[str, float] = {}
    for key, tensor in theirs.items():
        layer = key.rpartition(".")[0]
        largest[layer] = max(largest.get(layer, 0.0), float(tensor.abs().max()))
    return max(
        (float((ours[key].reshape(b.shape) - b).abs().max()) / largest[key.rpartition(".")[0]] for key, b in theirs.items()),
        default=0.0,
    )

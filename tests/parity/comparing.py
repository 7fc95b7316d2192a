"""Our network and another library's with the same random weights and the same input: how far apart are they?"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn

from convatlas.layers.network import Network
from convatlas.models.keymaps import counterpart, layouts
from convatlas.models.loading import load
from convatlas.models.registry import MODELS, create_model
from tests.parity.reference_libraries import timm, torchvision

REBUILT = "torchvision, rebuilt"
"""torchvision's network or its blocks, changed by hand into one that it does not have."""


def _rebuilt(name: str) -> nn.Module | None:
    """The reference of a variant that no library has, from torchvision's parts; None for other variants."""
    if name in ("resnet18.paper", "resnet34.paper"):
        return zero_padding(torchvision.models.get_model(name.removesuffix(".paper")))
    if name in ("resnet50.paper", "resnet101.paper", "resnet152.paper"):
        return stride_first(torchvision.models.get_model(name.removesuffix(".paper")))
    if name in ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110"):
        return cifar_resnet(int(name.removeprefix("resnet")))
    return cifar_densenet() if name == "densenet_bc_100_12" else None


IN_FLOAT64 = {
    "alexnet",
    "googlenet",
    "resnet18",
    "resnet50",
    "resnet50.paper",
    "resnet20",
    "resnext50_32x4d",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_lite0",
    "convnext_tiny",
}
"""Every block of every family stands in one of these, but for EfficientNetV2's, which has a test of its own: in float64 the
others take too much time and memory."""
IMAGE_SIZE = {"alexnet": 96, **{name: 32 for name, variant in MODELS.items() if variant.image_size == 32}}
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
    """How far our variant `name` is from the library's."""
    dtype = torch.float64 if name in IN_FLOAT64 else torch.float32
    with torch.device("meta"):
        theirs, ours = reference(name, library), create_model(name)
    theirs, ours = theirs.to_empty(device="cpu").to(dtype), ours.to_empty(device="cpu").to(dtype)
    size = IMAGE_SIZE.get(name, SMALL_IMAGE_SIZE)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return apart(ours, theirs, MODELS[name].family, library.partition(",")[0], x)


def apart(ours: Network, theirs: nn.Module, family: str, layout: str, x: torch.Tensor) -> Difference:
    """Draw weights and BatchNorm statistics in the reference, rename them to ours, and compare everything for the images x."""
    draw(theirs)
    no_dropping(theirs)
    no_dropping(ours)
    report = load(ours, theirs.state_dict(), where=layout, name=family, classes_chosen=False)
    assert (report.fresh, report.left_out, report.adapted) == ((), (), ())
    with torch.no_grad():
        evaluation = far(ours.eval()(x), theirs.eval()(x))
    mine, yours = ours.train().training_logits(x), in_training(theirs.train(), x)
    training = max(far(a, b) for (_, a), b in zip(mine, yours, strict=True))
    weights = [weight for weight, _ in mine]
    backward([logits for _, logits in mine], weights)
    backward(yours, weights)
    names = {theirs: ours for ours, theirs in layouts(family)[layout].rename(list(ours.state_dict())).items()}
    gradients = far_all(
        {key: p.grad for key, p in ours.named_parameters()},
        {names[key]: p.grad for key, p in theirs.named_parameters()},
    )
    statistics = far_all(
        {key: b for key, b in ours.named_buffers() if b.is_floating_point()},
        {names[key]: b for key, b in theirs.named_buffers() if b.is_floating_point()},
    )
    params = sum(p.numel() for p in ours.parameters())
    return Difference(params, x.dtype, evaluation, training, gradients, statistics)


def reference(name: str, library: str) -> nn.Module:
    """The other library's network, built just as `convatlas convert` says that it is to be built."""
    if library == REBUILT:
        model = _rebuilt(name)
        assert model is not None
        return model
    expression = counterpart(name, library)
    options = ", aux_logits=True, init_weights=False)" if name == "googlenet" else ")"
    return eval(expression.removesuffix(")") + options, {"torchvision": torchvision, "timm": timm})


class ZeroPadding(nn.Module):
    """A shortcut of the paper's option A, in place of torchvision's downsample."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.width, self.stride = width, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        thin = x[:, :, :: self.stride, :: self.stride]
        before = torch.zeros(len(x), (self.width - x.shape[1]) // 2, *thin.shape[2:], dtype=x.dtype)
        return torch.cat([before, thin, before], dim=1)


def zero_padding(model: nn.Module) -> nn.Module:
    for layer in (model.layer2, model.layer3, model.layer4):
        layer[0].downsample = ZeroPadding(layer[0].conv2.out_channels, 2)
    return model


def stride_first(model: nn.Module) -> nn.Module:
    for layer in (model.layer2, model.layer3, model.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return model


def cifar_resnet(depth: int) -> nn.Module:
    """The paper's network for CIFAR-10 out of torchvision's blocks; its names are torchvision's but for the classifier."""
    block = torchvision.models.resnet.BasicBlock

    def layer(inputs: int, width: int) -> nn.Sequential:
        stride = 1 if inputs == width else 2
        first = block(inputs, width, stride, downsample=None if stride == 1 else ZeroPadding(width, stride))
        return nn.Sequential(first, *(block(width, width) for _ in range((depth - 2) // 6 - 1)))

    parts = {"conv1": nn.Conv2d(3, 16, 3, padding=1, bias=False), "bn1": nn.BatchNorm2d(16), "relu": nn.ReLU()}
    parts |= {"layer1": layer(16, 16), "layer2": layer(16, 32), "layer3": layer(32, 64)}
    parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(64, 10)}
    return nn.Sequential(OrderedDict(parts))


def cifar_densenet() -> nn.Module:
    model = torchvision.models.DenseNet(12, (16, 16, 16), num_init_features=24, num_classes=10)
    model.features.conv0 = nn.Conv2d(3, 24, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(model.features, name, nn.Identity())
    return model


BLOCK = 1_000_003
"""Random numbers drawn for one tensor; a larger one repeats them, which a prime keeps from falling into step with its rows."""


def draw(model: nn.Module) -> None:
    """Fresh random weights, and random BatchNorm statistics: a norm that is the identity hides what comes before it."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
        with torch.no_grad():
            if not tensor.is_floating_point():
                tensor.zero_()
                continue
            positive = name.endswith(("running_var", "layer_scale", "gamma")) or (tensor.dim() == 1 and name.endswith("weight"))
            bound = 0.2 if tensor.dim() == 1 else (3 / tensor[0].numel()) ** 0.5
            low, high = (0.5, 1.5) if positive else (-bound, bound)
            numbers = torch.empty(min(BLOCK, tensor.numel()), dtype=tensor.dtype).uniform_(low, high, generator=generator)
            flat = tensor.view(-1)
            for start in range(0, len(flat), BLOCK):
                flat[start : start + BLOCK] = numbers[: len(flat) - start]


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
    pairs = ((key, ours[key].reshape(b.shape), b) for key, b in theirs.items())
    return max(
        (float((a - b).abs().max()) / largest[key.rpartition(".")[0]] for key, a, b in pairs if not torch.equal(a, b)),
        default=0.0,
    )


def _pairs() -> list[tuple[str, str]]:
    """Every variant with every library that has it."""
    found = []
    with torch.device("meta"):
        for name in MODELS:
            found += [(name, library) for library in ("torchvision", "timm") if counterpart(name, library)]
            found += [(name, REBUILT)] if _rebuilt(name) is not None else []
    return found


PAIRS = _pairs()

"""Our network and another library's with the same random weights and the same input: how far apart are they?"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

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
    mine = computed(name)
    with torch.device("meta"):
        theirs = reference(name, library)
    theirs = theirs.to_empty(device="cpu").to(mine.x.dtype)
    return mine.apart(theirs, MODELS[name].family, library.partition(",")[0])


@lru_cache(maxsize=1)
def computed(name: str) -> "Computed":
    """What ours computes, once for all libraries that have it."""
    dtype = torch.float64 if name in IN_FLOAT64 else torch.float32
    with torch.device("meta"):
        ours = create_model(name)
    size = IMAGE_SIZE.get(name, SMALL_IMAGE_SIZE)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return Computed(ours.to_empty(device="cpu").to(dtype), x)


class Computed:
    """Our network with random weights and BatchNorm statistics, and all that is compared of it for the images x."""

    def __init__(self, ours: Network, x: torch.Tensor) -> None:
        self.ours, self.x = ours, x
        draw(ours)
        no_dropping(ours)
        self.before = {key: b.clone() for key, b in ours.named_buffers()}
        with torch.no_grad():
            self.evaluation = ours.eval()(x)
        answers = ours.train().training_logits(x)
        self.weights, self.logits = [weight for weight, _ in answers], [logits.detach() for _, logits in answers]
        backward([logits for _, logits in answers], self.weights)
        self.gradients = {key: p.grad for key, p in ours.named_parameters()}
        self.statistics = {key: b.clone() for key, b in ours.named_buffers() if b.is_floating_point()}

    def apart(self, theirs: nn.Module, family: str, layout: str) -> Difference:
        """Give the reference our weights under its names, load them from it as from a file, and compare everything."""
        x, state = self.x, {**self.ours.state_dict(), **self.before}
        names = {theirs: ours for ours, theirs in layouts(family)[layout].rename(list(state)).items()}
        no_dropping(theirs)
        with torch.no_grad():
            for key, tensor in theirs.state_dict().items():
                tensor.copy_(state[names[key]].reshape(tensor.shape))
        self._load(theirs, family, layout, names)
        with torch.no_grad():
            evaluation = far(self.evaluation, theirs.eval()(x))
        yours = in_training(theirs.train(), x)
        training = max(far(a, b) for a, b in zip(self.logits, yours, strict=True))
        backward(yours, self.weights)
        gradients = far_all(self.gradients, {names[key]: p.grad for key, p in theirs.named_parameters()})
        floating = {names[key]: b for key, b in theirs.named_buffers() if b.is_floating_point()}
        params = sum(p.numel() for p in self.ours.parameters())
        return Difference(params, x.dtype, evaluation, training, gradients, far_all(self.statistics, floating))

    def _load(self, theirs: nn.Module, family: str, layout: str, names: dict[str, str]) -> None:
        """What `load` makes of the reference's tensors is the network that computed: ours is emptied first, and has them again."""
        state = self.ours.state_dict()
        with torch.no_grad():
            for tensor in state.values():
                tensor.fill_(-1)
        report = load(self.ours, theirs.state_dict(), where=layout, name=family, classes_chosen=False)
        assert (report.fresh, report.left_out, report.adapted) == ((), (), ())
        for key, tensor in theirs.state_dict().items():
            assert torch.equal(state[names[key]], tensor.reshape(state[names[key]].shape)), key


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
    apart: dict[str, float] = {}
    for key, b in theirs.items():
        a, layer = ours[key].reshape(b.shape), key.rpartition(".")[0]
        if not torch.equal(a, b):
            apart[layer] = max(apart.get(layer, 0.0), float((a - b).abs().max()))
    largest = dict.fromkeys(apart, 0.0)
    for key, tensor in theirs.items():
        layer = key.rpartition(".")[0]
        if layer in largest:
            largest[layer] = max(largest[layer], float(tensor.abs().max()))
    return max((apart[layer] / largest[layer] for layer in apart), default=0.0)


def _pairs() -> list[tuple[str, str]]:
    """Every variant with every library that has it."""
    found = []
    with torch.device("meta"):
        for name in MODELS:
            found += [(name, library) for library in ("torchvision", "timm") if counterpart(name, library)]
            found += [(name, REBUILT)] if _rebuilt(name) is not None else []
    return found


PAIRS = _pairs()

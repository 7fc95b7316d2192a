"""How the other libraries name the tensors of a network: from our state-dict keys to theirs, family by family.

A layout is one way of naming them. `torchvision` and `timm` are the libraries'; `idelbayev` is that of Y. Idelbayev's
CIFAR-10 ResNets, `lukemelas` that of the EfficientNets that L. Melas-Kyriazi ported (EfficientNet-Lite0 on PyPI). No torch here.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]
Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A regular expression for the beginning of our key, and what stands there in theirs."""


def _same(key: str, shape: Shape) -> Shape:
    return shape


@dataclass(frozen=True)
class Layout:
    """`rename` gives their key for each of ours; `reshape` their shape of a tensor from our key and shape."""

    name: str
    rename: Callable[[Collection[str]], dict[str, str]]
    reshape: Callable[[str, Shape], Shape] = _same


def family_of(keys: Collection[str]) -> str | None:
    """The family whose networks have tensors of these names here; None if no network of the atlas has."""
    for family, pattern in _SIGNS.items():
        if any(re.match(pattern, key) for key in keys):
            return family
    return None


_SIGNS = {
    "compact": r"stem\.whitening\.",
    "lenet": r"head\.c5\.",
    "googlenet": r"stages\.0\.inception0\.",
    "resnet": r"stages\.0\.0\.conv1\.",
    "densenet": r"stages\.0\.layer0\.",
    "efficientnet": r"stages\.0\.0\.residual\.",
    "convnext": r"stages\.0\.block0\.",
    "alexnet": r"stem\.\w+\.weight$",
    "vgg": r"stages\.0\.0\.weight$",
}
"""Tried in this order: the last two also fit others."""


def layouts(family: str) -> dict[str, Layout]:
    """The layouts in which networks of a family are published, by name; ours is among them, as `convatlas`."""
    return {layout.name: layout for layout in (OURS, *_LAYOUTS.get(family, ()))}


def _by_rules(*rules: Rule) -> Callable[[Collection[str]], dict[str, str]]:
    """Renames each key by the first rule that fits its beginning."""

    def renamed(key: str) -> str:
        for pattern, replacement in rules:
            new, found = re.subn("^" + pattern, replacement, key, count=1)
            if found:
                return new
        return key

    return lambda keys: {key: renamed(key) for key in keys}


def _resnet(head: str) -> Callable[[Collection[str]], dict[str, str]]:
    return _by_rules(
        (r"stem\.0\.conv\.", "conv1."),
        (r"stem\.0\.norm\.", "bn1."),
        (r"stages\.(\d+)\.(\d+)\.conv(\d)\.conv\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.conv{m[3]}."),
        (r"stages\.(\d+)\.(\d+)\.conv(\d)\.norm\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.bn{m[3]}."),
        (r"stages\.(\d+)\.(\d+)\.shortcut\.conv\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.0."),
        (r"stages\.(\d+)\.(\d+)\.shortcut\.norm\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.1."),
        (r"head\.classifier\.", f"{head}."),
    )


_densenet = _by_rules(
    (r"stem\.0\.", "features.conv0."),
    (r"stem\.1\.", "features.norm0."),
    (r"stages\.(\d+)\.layer(\d+)\.", lambda m: f"features.denseblock{int(m[1]) + 1}.denselayer{int(m[2]) + 1}."),
    (r"stages\.(\d+)\.downsample\.", lambda m: f"features.transition{m[1]}."),
    (r"head\.norm\.", "features.norm5."),
    (r"head\.classifier\.", "classifier."),
)

_alexnet = _by_rules(
    (r"stem\.0\.", "features.0."),
    (r"stages\.0\.0\.", "features.3."),
    (r"stages\.1\.(\d)\.", lambda m: f"features.{int(m[1]) + 6}."),
    (r"head\.linear1\.", "classifier.1."),
    (r"head\.linear2\.", "classifier.4."),
    (r"head\.classifier\.", "classifier.6."),
)


def _vgg(linear1: str, linear2: str, head: str) -> Callable[[Collection[str]], dict[str, str]]:
    """Their convolutions stand in one sequence, ours in one a stage, which a ReLU and a pooling end."""

    def rename(keys: Collection[str]) -> dict[str, str]:
        lengths = [last + 3 for last in _last_indices(keys)]
        return _by_rules(
            (r"stages\.(\d+)\.(\d+)\.", lambda m: f"features.{sum(lengths[: int(m[1])]) + int(m[2])}."),
            (r"head\.linear1\.", f"{linear1}."),
            (r"head\.linear2\.", f"{linear2}."),
            (r"head\.classifier\.", f"{head}."),
        )(keys)

    return rename


def _last_indices(keys: Iterable[str]) -> list[int]:
    """For each stage, the place of its last layer that has parameters."""
    last: dict[int, int] = {}
    for found in filter(None, (re.match(r"stages\.(\d+)\.(\d+)\.", key) for key in keys)):
        last[int(found[1])] = max(last.get(int(found[1]), 0), int(found[2]))
    return [last[i] for i in sorted(last)]


def _timm_vgg_shape(key: str, shape: Shape) -> Shape:
    """timm writes the hidden linear layers as convolutions over the 7x7 map and over one pixel."""
    if key == "head.linear1.weight" and shape[1] % 49 == 0:
        return (shape[0], shape[1] // 49, 7, 7)
    return (*shape, 1, 1) if key == "head.linear2.weight" else shape


_MODULES = (("3a", "3b"), ("4a", "4b", "4c", "4d", "4e"), ("5a", "5b"))
_BRANCHES = {"branch1": "branch1", "branch3": "branch2", "branch5": "branch3", "branch_pool": "branch4"}


def _googlenet(keys: Collection[str]) -> dict[str, str]:
    stem = sorted({int(found[1]) for found in filter(None, (re.match(r"stem\.(\d+)\.", key) for key in keys))})

    def branch(m: re.Match[str]) -> str:
        # Ours: a convolution with its norm and ReLU is one more sequence.
        inner = m[4][:-2] if m[4] else ""
        return f"inception{_MODULES[int(m[1])][int(m[2])]}.{_BRANCHES[m[3]]}{inner}."

    named = _by_rules(
        (r"stem\.(\d+)\.0\.", lambda m: f"conv{stem.index(int(m[1])) + 1}."),
        (r"stages\.(\d)\.inception(\d)\.(branch\w+?)((?:\.\d)*)\.", branch),
        (r"auxiliary\.(\d)\.conv\.0\.", lambda m: f"aux{int(m[1]) + 1}.conv."),
        (r"auxiliary\.(\d)\.linear\.", lambda m: f"aux{int(m[1]) + 1}.fc1."),
        (r"auxiliary\.(\d)\.classifier\.", lambda m: f"aux{int(m[1]) + 1}.fc2."),
        (r"head\.classifier\.", "fc."),
    )(keys)
    return {ours: re.sub(r"\.norm\.", ".bn.", theirs) for ours, theirs in named.items()}


def _inside(keys: Iterable[str]) -> dict[tuple[int, int], list[str]]:
    """For each block (stage, place) of an EfficientNet its layers with parameters, in order."""
    order = ("expand", "depthwise", "squeeze_excite", "project")
    found: dict[tuple[int, int], set[str]] = {}
    for m in filter(None, (re.match(r"stages\.(\d+)\.(\d+)\.residual\.(\w+)\.", key) for key in keys)):
        found.setdefault((int(m[1]), int(m[2])), set()).add(m[3])
    return {block: [name for name in order if name in found[block]] for block in sorted(found)}


_BLOCK = r"stages\.(\d+)\.(\d+)\.residual\.(expand|depthwise|project)\.(conv|norm)\."
_GATE = r"stages\.(\d+)\.(\d+)\.residual\.squeeze_excite\.(reduce|expand)\."


def _torchvision_efficientnet(keys: Collection[str]) -> dict[str, str]:
    inside = _inside(keys)
    last = max((stage for stage, _ in inside), default=0) + 2

    def block(m: re.Match[str]) -> str:
        place = inside[int(m[1]), int(m[2])].index(m[3])
        return f"features.{int(m[1]) + 1}.{m[2]}.block.{place}.{'01'[m[4] == 'norm']}."

    def gate(m: re.Match[str]) -> str:
        place = inside[int(m[1]), int(m[2])].index("squeeze_excite")
        return f"features.{int(m[1]) + 1}.{m[2]}.block.{place}.fc{'12'[m[3] == 'expand']}."

    return _by_rules(
        (r"stem\.0\.conv\.", "features.0.0."),
        (r"stem\.0\.norm\.", "features.0.1."),
        (_BLOCK, block),
        (_GATE, gate),
        (r"head\.conv\.conv\.", f"features.{last}.0."),
        (r"head\.conv\.norm\.", f"features.{last}.1."),
        (r"head\.classifier\.", "classifier.1."),
    )(keys)


_TIMM_BLOCKS = {
    ("expand", "depthwise", "project"): {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"},
    ("depthwise", "project"): {"depthwise": "conv_dw", "project": "conv_pw"},
    ("expand", "project"): {"expand": "conv_exp", "project": "conv_pwl"},
    ("expand",): {"expand": "conv"},
}
"""timm's names of the convolutions in a block, by which of them it has."""


def _timm_efficientnet(keys: Collection[str]) -> dict[str, str]:
    inside = _inside(keys)

    def block(m: re.Match[str]) -> str:
        layers = [name for name in inside[int(m[1]), int(m[2])] if name != "squeeze_excite"]
        return f"blocks.{m[1]}.{m[2]}.{_TIMM_BLOCKS[tuple(layers)][m[3]] if m[4] == 'conv' else f'bn{layers.index(m[3]) + 1}'}."

    return _by_rules(
        (r"stem\.0\.conv\.", "conv_stem."),
        (r"stem\.0\.norm\.", "bn1."),
        (_BLOCK, block),
        (_GATE, lambda m: f"blocks.{m[1]}.{m[2]}.se.conv_{m[3]}."),
        (r"head\.conv\.conv\.", "conv_head."),
        (r"head\.conv\.norm\.", "bn2."),
        (r"head\.classifier\.", "classifier."),
    )(keys)


def _lukemelas_efficientnet(keys: Collection[str]) -> dict[str, str]:
    places = {block: i for i, block in enumerate(_inside(keys))}
    norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}

    def block(m: re.Match[str]) -> str:
        return f"_blocks.{places[int(m[1]), int(m[2])]}.{f'_{m[3]}_conv' if m[4] == 'conv' else norms[m[3]]}."

    return _by_rules(
        (r"stem\.0\.conv\.", "_conv_stem."),
        (r"stem\.0\.norm\.", "_bn0."),
        (_BLOCK, block),
        (_GATE, lambda m: f"_blocks.{places[int(m[1]), int(m[2])]}._se_{m[3]}."),
        (r"head\.conv\.conv\.", "_conv_head."),
        (r"head\.conv\.norm\.", "_bn1."),
        (r"head\.classifier\.", "_fc."),
    )(keys)


_CONVNEXT_PLACES = {"depthwise": "block.0", "norm": "block.2", "expand": "block.3", "project": "block.5"}
_torchvision_convnext = _by_rules(
    (r"stem\.", "features.0."),
    (r"stages\.(\d)\.downsample\.", lambda m: f"features.{2 * int(m[1])}."),
    (
        r"stages\.(\d)\.block(\d+)\.(depthwise|norm|expand|project)\.",
        lambda m: f"features.{2 * int(m[1]) + 1}.{m[2]}.{_CONVNEXT_PLACES[m[3]]}.",
    ),
    (r"stages\.(\d)\.block(\d+)\.layer_scale", lambda m: f"features.{2 * int(m[1]) + 1}.{m[2]}.layer_scale"),
    (r"head\.norm\.", "classifier.0."),
    (r"head\.classifier\.", "classifier.2."),
)
_timm_convnext = _by_rules(
    (r"stages\.(\d)\.block(\d+)\.depthwise\.", r"stages.\1.blocks.\2.conv_dw."),
    (r"stages\.(\d)\.block(\d+)\.norm\.", r"stages.\1.blocks.\2.norm."),
    (r"stages\.(\d)\.block(\d+)\.expand\.", r"stages.\1.blocks.\2.mlp.fc1."),
    (r"stages\.(\d)\.block(\d+)\.project\.", r"stages.\1.blocks.\2.mlp.fc2."),
    (r"stages\.(\d)\.block(\d+)\.layer_scale", r"stages.\1.blocks.\2.gamma"),
    (r"head\.classifier\.", "head.fc."),
)


def _torchvision_convnext_shape(key: str, shape: Shape) -> Shape:
    """torchvision scales maps of (C, H, W), we scale pixels of C channels."""
    return (*shape, 1, 1) if key.endswith(".layer_scale") else shape


OURS = Layout("convatlas", lambda keys: {key: key for key in keys})
_LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "alexnet": (Layout("torchvision", _alexnet),),
    "vgg": (
        Layout("torchvision", _vgg("classifier.0", "classifier.3", "classifier.6")),
        Layout("timm", _vgg("pre_logits.fc1", "pre_logits.fc2", "head.fc"), _timm_vgg_shape),
    ),
    "googlenet": (Layout("torchvision", _googlenet),),
    "resnet": (Layout("torchvision", _resnet("fc")), Layout("timm", _resnet("fc")), Layout("idelbayev", _resnet("linear"))),
    "densenet": (Layout("torchvision", _densenet), Layout("timm", _densenet)),
    "efficientnet": (
        Layout("torchvision", _torchvision_efficientnet),
        Layout("timm", _timm_efficientnet),
        Layout("lukemelas", _lukemelas_efficientnet),
    ),
    "convnext": (
        Layout("torchvision", _torchvision_convnext, _torchvision_convnext_shape),
        Layout("timm", _timm_convnext),
    ),
}


def counterpart(name: str, library: str) -> str | None:
    """How the network that computes the same as the variant `name` is built in `library`, in Python; None if there is none.

    timm gives BatchNorm other settings than some EfficientNets' published weights want; it must be told theirs. Its
    `efficientnet_lite0` is not the published one, which it calls `tf_efficientnet_lite0`: the padding differs.
    """
    if library == "torchvision":
        return None if "." in name or name in _NOT_IN_TORCHVISION else f"torchvision.models.get_model({name!r})"
    if library != "timm" or "." in name or name in _NOT_IN_TORCHVISION - {"efficientnet_lite0"} or name in _NOT_IN_TIMM:
        return None
    return f"timm.create_model({_TIMM_NAMES.get(name, name)!r}{_TIMM_NORMS.get(name, '')})"


_NOT_IN_TORCHVISION = {
    "lenet5",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "densenet_bc_100_12",
    "efficientnet_lite0",
    "compact94",
    "compact96",
    "compact1m",
    "compact300k",
}
_NOT_IN_TIMM = {"alexnet", "googlenet"}
_TIMM_NAMES = {
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_v2_s": "efficientnetv2_s",
    "efficientnet_v2_m": "efficientnetv2_m",
    "efficientnet_v2_l": "efficientnetv2_l",
}
_TIMM_NORMS = {
    **dict.fromkeys((f"efficientnet_{member}" for member in ("v2_s", "v2_m", "v2_l")), ", bn_eps=1e-3"),
    **dict.fromkeys((f"efficientnet_{member}" for member in ("b5", "b6", "b7", "lite0")), ", bn_eps=1e-3, bn_momentum=0.01"),
}

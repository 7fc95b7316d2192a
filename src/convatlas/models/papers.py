"""The landmark architectures: who, when, what was new, and what accuracy was published how. No torch here.

Teaching tables often mix protocols in one column: an ensemble's figure, a multi-crop figure and a single-crop one. Here each
figure says its protocol, and the paper's own stands beside the one of the weights people load, measured in one way for all
(one centre crop of 224 pixels, ImageNet validation set; torchvision, weights IMAGENET1K_V1).
"""

import importlib.resources
import json

from convatlas.records import codec
from convatlas.records.model import GoldenRow, Paper, Published

LIBRARY_PROTOCOL = "one centre crop of 224 pixels"


def _library(top1: float, weights: str) -> Published:
    return Published(top1, LIBRARY_PROTOCOL, f"torchvision, {weights}.IMAGENET1K_V1")


PAPERS: dict[str, Paper] = {
    "lenet": Paper(
        family="lenet",
        title="LeNet-5",
        year=1998,
        innovation="convolution, subsampling, trained end to end",
        authors="LeCun, Bottou, Bengio & Haffner",
        paper="Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 86(11)",
        landmark="lenet5",
        pocket="lenet.pocket",
        own_figure=None,
        library_figure=None,
        teaching_table=None,
    ),
    "alexnet": Paper(
        family="alexnet",
        title="AlexNet",
        year=2012,
        innovation="ReLU, dropout, trained on GPUs",
        authors="Krizhevsky, Sutskever & Hinton",
        paper="ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012",
        landmark="alexnet",
        pocket="alexnet.pocket",
        own_figure=Published(59.3, "ten crops, two-tower network, validation", "table 2, 1 CNN (40.7 % error)"),
        library_figure=_library(56.52, "AlexNet_Weights"),
        teaching_table=Published(63.3, "seven networks averaged", "table 2, 7 CNNs* (36.7 % error)"),
    ),
    "vgg": Paper(
        family="vgg",
        title="VGG",
        year=2014,
        innovation="nothing but 3x3, stacked deep",
        authors="Simonyan & Zisserman",
        paper="Very Deep Convolutional Networks for Large-Scale Image Recognition, arXiv:1409.1556",
        landmark="vgg16",
        pocket="vgg.pocket",
        own_figure=Published(
            74.4, "dense over the whole image at one scale of 384, validation", "table 3, network D (25.6 % error)"
        ),
        library_figure=_library(71.59, "VGG16_Weights"),
        teaching_table=Published(74.4, "dense evaluation, not one crop", "table 3, network D"),
    ),
    "googlenet": Paper(
        family="googlenet",
        title="GoogLeNet",
        year=2014,
        innovation="parallel branches, 1x1 reductions, no large linear layers",
        authors="Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke & Rabinovich",
        paper="Going Deeper with Convolutions, arXiv:1409.4842",
        landmark="googlenet",
        pocket="googlenet.pocket",
        own_figure=None,
        library_figure=_library(69.78, "GoogLeNet_Weights"),
        teaching_table=Published(74.8, "another network: BN-Inception", "arXiv:1502.03167, figure 4 (25.2 % error)"),
    ),
    "resnet": Paper(
        family="resnet",
        title="ResNet",
        year=2015,
        innovation="shortcuts: blocks learn a residual",
        authors="He, Zhang, Ren & Sun",
        paper="Deep Residual Learning for Image Recognition, arXiv:1512.03385",
        landmark="resnet50",
        pocket="resnet.pocket",
        own_figure=Published(77.15, "ten crops, validation", "table 3, ResNet-50 (22.85 % error)"),
        library_figure=_library(76.13, "ResNet50_Weights"),
        teaching_table=None,
    ),
    "densenet": Paper(
        family="densenet",
        title="DenseNet",
        year=2016,
        innovation="every layer sees all before it",
        authors="Huang, Liu, van der Maaten & Weinberger",
        paper="Densely Connected Convolutional Networks, arXiv:1608.06993",
        landmark="densenet121",
        pocket="densenet.pocket",
        own_figure=Published(74.98, "one centre crop, validation", "table 3, DenseNet-121 (25.02 % error)"),
        library_figure=_library(74.43, "DenseNet121_Weights"),
        teaching_table=None,
    ),
    "efficientnet": Paper(
        family="efficientnet",
        title="EfficientNet",
        year=2019,
        innovation="compound scaling of depth, width, resolution",
        authors="Tan & Le",
        paper="EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv:1905.11946",
        landmark="efficientnet_b0",
        pocket="efficientnet.pocket",
        own_figure=Published(77.1, "one crop, validation", "table 2, EfficientNet-B0"),
        library_figure=_library(77.69, "EfficientNet_B0_Weights"),
        teaching_table=None,
    ),
    "convnext": Paper(
        family="convnext",
        title="ConvNeXt",
        year=2022,
        innovation="a ResNet modernised after vision transformers",
        authors="Liu, Mao, Wu, Feichtenhofer, Darrell & Xie",
        paper="A ConvNet for the 2020s, arXiv:2201.03545",
        landmark="convnext_tiny",
        pocket="convnext.pocket",
        own_figure=Published(82.1, "one centre crop of 224 pixels, validation", "table 1, ConvNeXt-T"),
        library_figure=_library(82.52, "ConvNeXt_Tiny_Weights"),
        teaching_table=None,
    ),
}
"""By family, in the order of publication."""
OURS: dict[str, Paper] = {
    "compact": Paper(
        family="compact",
        title="Compact",
        year=2026,
        innovation="as right as a budget of time or parameters buys",
        authors="ConvAtlas",
        paper="no paper: a family of this atlas, docs/compact.md",
        landmark="compact94",
        pocket="compact300k",
        own_figure=None,
        library_figure=None,
        teaching_table=None,
    ),
}
"""Families of this atlas that are no landmarks: they stand in no list of those."""


def paper_of(family: str) -> Paper:
    """The paper of a family, a landmark's or ours."""
    return OURS[family] if family in OURS else PAPERS[family]


def titled(family: str) -> tuple[str, int | None]:
    """The title of a family and the year of its paper; a user's own network has neither paper nor year."""
    if family not in OURS and family not in PAPERS:
        return family, None
    return paper_of(family).title, paper_of(family).year


def golden_rows() -> dict[str, GoldenRow]:
    """Every variant's committed numbers by name. `scripts/golden` writes the table from the networks; a test holds it to them."""
    text = importlib.resources.files("convatlas.models").joinpath("golden.json").read_text(encoding="utf-8")
    return {name: codec.from_plain(GoldenRow, row, where=f"golden.json: {name}") for name, row in json.loads(text).items()}

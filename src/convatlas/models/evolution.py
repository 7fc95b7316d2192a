"""The line of descent of the landmark architectures: what each took from whom. No torch here.

A debt is told where the taker's paper tells it; where the paper names the work between the two, so does the debt. Years,
numbers and accuracies are those of `papers` and of the golden table.
"""

from convatlas.models.papers import PAPERS, golden_rows
from convatlas.records.evolution import Debt, Milestone

DEBTS: dict[str, tuple[Debt, ...]] = {
    "lenet": (),
    "alexnet": (Debt("lenet", "convolution and pooling, trained end to end", "section 1"),),
    "vgg": (Debt("alexnet", "ReLU and dropout", "sections 2.1 and 3.1"),),
    "googlenet": (Debt("alexnet", "ReLU and dropout", "sections 2 and 5"),),
    "resnet": (
        Debt("vgg", "stacks of 3x3 convolutions", "section 3.3: plain baselines inspired by VGG nets"),
        Debt("googlenet", "a short branch beside deep ones; BatchNorm, from its successor", "sections 2 and 3.4"),
    ),
    "densenet": (
        Debt("resnet", "shortcuts past layers, and BatchNorm", "sections 1 and 3"),
        Debt("googlenet", "joining maps along the channels", "section 2"),
    ),
    "efficientnet": (Debt("resnet", "shortcuts, through MobileNetV2; scaling by depth", "sections 3.2 and 4"),),
    "convnext": (
        Debt("resnet", "ResNet-50, modernised step by step", "section 2"),
        Debt("efficientnet", "the inverted bottleneck", "section 2.4"),
    ),
}
"""By family: what it took, and from whom."""


def milestones() -> tuple[Milestone, ...]:
    """The eight architectures in the order of publication, with what each took from those before it."""
    golden = golden_rows()
    return tuple(
        Milestone(
            family=family,
            title=paper.title,
            year=paper.year,
            innovation=paper.innovation,
            variant=paper.landmark,
            params=golden[paper.landmark].params,
            macs=golden[paper.landmark].macs,
            image_size=golden[paper.landmark].image_size,
            own_figure=paper.own_figure,
            library_figure=paper.library_figure,
            debts=DEBTS[family],
        )
        for family, paper in PAPERS.items()
    )

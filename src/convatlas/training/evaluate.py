"""Judging a network on one split: accuracy, loss, confusion and the worst errors. Always in fp32, whatever it was trained in."""

import base64
import io
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from convatlas.data.batches import evaluation_batches
from convatlas.data.dataset import DataSet, ImageSet
from convatlas.records.findings import Answers
from convatlas.records.run import Evaluation, Mistake
from convatlas.training.precision import without_tf32
from convatlas.training.views import TEST_AVERAGES

WORST = 12
Progress = Callable[[str, int, int], None]


def predict_logits(
    model: nn.Module,
    images: ImageSet,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    average: str = "none",
    size: int | None = None,
    told: Callable[[int], None] | None = None,
) -> Tensor:
    """Logits (N, num_classes) in float32 on the CPU for all images, in their order. The model's mode is given back.

    `average` names the views over which the answers for an image are averaged (`TEST_AVERAGES`); of each image the middle `size`
    x `size` pixels are seen (None: all). `told(n)` is called after every n images.
    """
    device = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]  # not one for all: what is frozen stays so
    model.eval()
    try:
        with torch.inference_mode(), without_tf32():
            batches = evaluation_batches(
                images,
                batch_size=at_once(len(images), size or images.images.shape[-1]),
                mean=mean,
                std=std,
                dtype=torch.float32,
                memory_format=torch.channels_last,
                device=device,
                size=size,
            )
            logits = []
            for x, _ in batches:
                logits.append(TEST_AVERAGES[average](model, x).float().cpu())
                if told is not None:
                    told(len(x))
            return torch.cat(logits)
    finally:
        for module, mode in modes:
            module.training = mode


def counting(progress: Progress | None, what: str, total: int) -> Callable[[int], None] | None:
    """A function that adds up numbers of images, and tells `progress` how many there are by now."""
    if progress is None:
        return None
    done = 0

    def told(n: int) -> None:
        nonlocal done
        done += n
        progress(what, done, total)

    return told


def at_once(n: int, size: int) -> int:
    """How many of n images of `size` pixels are computed at once: 256 small ones or 16 photographs, which caches can hold."""
    return max(1, min(n, max(16, 256 * 32**2 // max(size, 32) ** 2)))


def score(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Cross-entropy in nats and top-1 accuracy in [0, 1] of logits (N, num_classes) against labels (N,)."""
    loss = F.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).float().mean().item()


def evaluate(model: nn.Module, data: DataSet, *, split: str, average: str = "none") -> Evaluation:
    """The network's outcome on the `train`, `val` or `test` split of `data`; `average` as in `predict_logits`."""
    return judge(model, data, split=split, average=average)[0]


def judge(
    model: nn.Module,
    data: DataSet,
    *,
    split: str,
    average: str = "none",
    temperature: float = 1.0,
    progress: Progress | None = None,
) -> tuple[Evaluation, Answers]:
    """As `evaluate`, with the answer for each image. Logits are divided by `temperature`: loss and confidences follow it.

    `progress(what, done, total)` counts images.
    """
    images: ImageSet = {"train": data.train, "val": data.val, "test": data.test}[split]
    begun = time.monotonic()
    told = counting(progress, "judging images", len(images))
    logits = predict_logits(model, images, mean=data.mean, std=data.std, average=average, size=data.image_size, told=told)
    logits = logits / temperature
    seconds = time.monotonic() - begun
    loss, top1 = score(logits, images.labels)
    outcome = Evaluation(
        split=split,
        average=average,
        n=len(images),
        top1=top1,
        top5=_top5(logits, images.labels),
        loss=loss,
        seconds=seconds,
        classes=data.classes,
        confusion=_confusion(logits, images.labels),
        worst=_worst(logits, images, data.classes),
    )
    return outcome, _answers(logits, images.labels, split=split)


def _answers(logits: Tensor, labels: Tensor, *, split: str) -> Answers:
    confidence, predicted = logits.softmax(1).max(1)
    return Answers(split, tuple(labels.tolist()), tuple(predicted.tolist()), tuple(confidence.tolist()))


def _top5(logits: Tensor, labels: Tensor) -> float | None:
    """The share of images whose class is among the five likeliest; None for five classes or fewer, where it says nothing."""
    if logits.shape[1] <= 5:
        return None
    return (logits.topk(5, dim=1).indices == labels[:, None]).any(1).float().mean().item()


def _confusion(logits: Tensor, labels: Tensor) -> tuple[tuple[int, ...], ...]:
    """Counts, one row for each true class, one column for each predicted one."""
    classes = logits.shape[1]
    counts = torch.bincount(labels * classes + logits.argmax(1), minlength=classes * classes)
    return tuple(tuple(row) for row in counts.view(classes, classes).tolist())


def _worst(logits: Tensor, images: ImageSet, classes: tuple[str, ...]) -> tuple[Mistake, ...]:
    """The wrong answers of which the network was surest, surest first."""
    confidence, predicted = logits.softmax(1).max(1)
    wrong = (predicted != images.labels).nonzero().flatten()
    surest = wrong[confidence[wrong].argsort(descending=True, stable=True)][:WORST]
    return tuple(
        Mistake(
            index=i,
            truth=classes[int(images.labels[i])],
            predicted=classes[int(predicted[i])],
            confidence=confidence[i].item(),
            picture=picture_url(images.images[i]),
        )
        for i in surest.tolist()
    )


def picture_url(image: Tensor) -> str:
    """A uint8 image (C, H, W) as a PNG data URL."""
    pixels = image[0].numpy() if image.shape[0] == 1 else image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

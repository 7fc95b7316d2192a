"""What the tests, which run without a GPU, cannot see: a GPU held against the processor beside it, in a minute or two.

    python benchmarks/gpu_checks.py [--device cuda] [--only NAME ...]

Prints a line for each check, with the figures, and ends with code 1 if one failed. What needs more than one GPU is left out where
there is one, and says so. With `--device cpu` the processor is held against itself, which shows that the checks themselves work.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from convatlas.data.batches import training_batches
from convatlas.data.dataset import DataSet, ImageSet
from convatlas.data.loading import load_data
from convatlas.data.mixing import Mixing
from convatlas.errors import UserError
from convatlas.models.registry import create_model
from convatlas.records.run import Recipe, read_metrics
from convatlas.training.apply import evaluate_run
from convatlas.training.checkpoint import load_model
from convatlas.training.engine import applied, choose
from convatlas.training.inference import Engine
from convatlas.training.loop import resume, train
from convatlas.training.outcome import Stopped
from convatlas.training.watch import Unwatched

GREY_LEVEL = 1 / 255
CLASSES = 10
MIXED = Mixing(mixup=0.2, cutmix=1.0, num_classes=CLASSES)
AUGMENTATIONS: tuple[dict[str, Any], ...] = (
    {"flip": True, "crop": 4, "cutout": 8},
    {"flip": True, "crop": 4, "cutout": 0, "flip_rule": "alternating", "crop_fill": "reflect", "size": 24},
    {"flip": True, "crop": 4, "cutout": 0, "augment": "trivial"},
    {"flip": True, "crop": 4, "cutout": 0, "augment": "rand"},
    {"flip": False, "crop": 0, "cutout": 0, "mixing": MIXED},
)
TOLERANCE = {"gradient": 2e-5, "loss": 2e-3, "weight": 1e-3, "accuracy": 0.02}
"""The relative error of fp32's gradients through some ten layers, which TF32, with 10 bits of mantissa instead of 23, exceeds;
differences of losses in nats after some dozen steps, of weights, and of shares of images."""


class Failed(Exception):
    """A check found what should not be, and says what."""


def _demand(holds: bool, what: str) -> str:
    if not holds:
        raise Failed(what)
    return what


class StopAfter(Unwatched):
    """Stops a run after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def stopping(self) -> bool:
        """Whether that step is reached."""
        self.left -= 1
        return self.left == 0


def digits() -> DataSet:
    """Built in, and small."""
    return load_data("digits", image_size=32)


def recipe_for(device: str, data: DataSet, **changes: Any) -> Recipe:
    """Two epochs of LeNet's pocket member in fp32."""
    settings: dict[str, Any] = {"epochs": 2, "precision": "fp32", "compile": "off", "flip": False, "lr": 0.003} | changes
    return Recipe(model="lenet.pocket", data="digits", data_fingerprint=data.fingerprint, device=device, **settings)


def noise() -> ImageSet:
    """Images for two batches of `batches_of`."""
    pixels = torch.randint(0, 256, (512, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(pixels, torch.arange(512) % CLASSES)


def batches_of(images: ImageSet, device: str, settings: dict[str, Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What training makes of them in one epoch."""
    options = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "dtype": torch.float32, "memory_format": torch.channels_last}
    return training_batches(images, batch_size=256, seed=0, epoch=1, device=device, **settings, **options)


def batches(device: str, folder: Path) -> str:
    """Every augmentation makes the same images on the device as on the processor, to a grey level."""
    images = noise()
    largest = differing = 0.0
    for settings in AUGMENTATIONS:
        (x, labels), (there, labels_there) = (next(batches_of(images, place, settings)) for place in ("cpu", device))
        off = (x - there.cpu()).abs()
        largest, differing = max(largest, float(off.max())), max(differing, float((off > GREY_LEVEL / 2).float().mean()))
        _demand(torch.allclose(labels.float(), labels_there.cpu().float()), f"labels differ with {settings}")
    what = f"largest difference {255 * largest:.3f} grey levels, {differing:.2%} of the pixels by half a level or more"
    return _demand(largest < 1.01 * GREY_LEVEL and differing < 0.01, what)


def ahead(device: str, folder: Path) -> str:
    """Batches are made while the GPU is busy with those before: nothing in them waits for it."""
    if device == "cpu":
        return "left out: a processor computes at once"
    images, slowest = noise(), 0.0
    for settings in AUGMENTATIONS:
        made = batches_of(images, device, settings)
        next(made)  # for which the images go there, once for all
        torch.cuda.set_sync_debug_mode("error")
        begun = time.perf_counter()
        try:
            next(made)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        slowest = max(slowest, time.perf_counter() - begun)
    return f"the slowest batch of {images.images.shape[0] // 2} took the processor {1000 * slowest:.1f} ms"


def fp32(device: str, folder: Path) -> str:
    """Gradients in fp32 are fp32's: no TF32 in between, which the same network would show."""
    ours, torchs = (_gradient_error(device, choose_ours=own) for own in (True, False))
    what = f"relative error of the gradients {ours:.1e}; {torchs:.1e} as torch has it by itself"
    return _demand(ours < TOLERANCE["gradient"], what)


def _gradient_error(device: str, *, choose_ours: bool) -> float:
    """Of all gradients of a network on `device`, against float64 on the processor."""
    torch.manual_seed(0)
    model = create_model("vgg11", num_classes=CLASSES, image_size=32).eval()
    x, y = torch.randn(4, 3, 32, 32), torch.arange(4)
    exact = torch.autograd.grad(F.cross_entropy(model.double()(x.double()), y), list(model.parameters()))
    model, x, y = model.float().to(device), x.to(device), y.to(device)
    choices = choose(Recipe("vgg11", "shapes", "", epochs=1, precision="fp32", device=device), model)
    if choose_ours:
        with applied(choices, model) as answer:
            found = torch.autograd.grad(F.cross_entropy(answer(x)[0][1], y), list(model.parameters()))
    else:
        found = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    off = torch.cat([(a.double().cpu() - b).flatten() for a, b in zip(found, exact, strict=True)])
    return float(off.norm() / torch.cat([each.flatten() for each in exact]).norm())


def losses(device: str, folder: Path) -> str:
    """A training comes to the losses of the processor's, launched kernel by kernel and recorded."""
    data = digits()
    wanted = _trained(recipe_for("cpu", data), folder / "cpu", data)
    said = []
    for way in ("off", "graphs") if device == "cuda" else ("off",):
        found = _trained(recipe_for(device, data, compile=way), folder / f"{device} {way}", data)
        off = max(abs(a - b) for a, b in zip(wanted, found, strict=True))
        said.append(f"{off:.1e} nats with compile {way}")
        _demand(off < TOLERANCE["loss"], said[-1])
    return "largest difference of an epoch's loss " + ", ".join(said)


def _trained(recipe: Recipe, folder: Path, data: DataSet) -> list[float]:
    """Each epoch's loss."""
    train(recipe, folder, data=data)
    return [each.train_loss for each in read_metrics(folder / "metrics.jsonl")]


def resumed(device: str, folder: Path) -> str:
    """A run that was stopped goes on to where an unbroken one ends, with every augmentation that training has."""
    data = digits()
    recipe = recipe_for(device, data, augment="rand", mixup=0.2, cutmix=1.0, cutout=4, ema=0.9)
    train(recipe, folder / "unbroken", data=data)
    try:
        train(recipe, folder / "stopped", data=data, watch=StopAfter(7))
        raise Failed("the run was not stopped")
    except Stopped:
        resume(folder / "stopped", data=data)
    states = [load_model(folder / name)[0].state_dict() for name in ("unbroken", "stopped")]
    off = max(float((states[0][name].float() - states[1][name].float()).abs().max()) for name in states[0])
    return _demand(off < TOLERANCE["weight"], f"largest difference of a weight {off:.1e}")


def judged(device: str, folder: Path) -> str:
    """A GPU's judgement and that of the processor's engines are the same, but for images on the edge."""
    data = digits()
    train(recipe_for(device, data), folder / "run", data=data)
    engines = {"by itself": None, "eager": Engine("eager"), "folded": Engine("folded")}
    found = {name: evaluate_run(folder / "run", data=data, split="test", engine=engine).top1 for name, engine in engines.items()}
    what = ", ".join(f"{name} {top1:.2%}" for name, top1 in found.items())
    return _demand(max(found.values()) - min(found.values()) < TOLERANCE["accuracy"], what)


def several(device: str, folder: Path) -> str:
    """Two processes train as one does: with gloo on processors, with NCCL on two GPUs."""
    if device == "cuda" and torch.cuda.device_count() < 2:
        return "left out: there is one GPU"
    words = "-m convatlas train lenet.pocket --data digits --image-size 32 --epochs 2 --precision fp32 --compile off --threads 1"
    starts = {"one": [sys.executable], "two": [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]}
    ends = []
    for name, start in starts.items():
        command = [*start, *words.split(), "--device", device, "--out", str(folder / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        _demand(done.returncode == 0, f"{name}: {done.stderr.strip()[-300:]}")
        ends.append([each.train_loss for each in read_metrics(folder / name / "metrics.jsonl")])
    off = max(abs(a - b) for a, b in zip(*ends, strict=True))
    return _demand(off < TOLERANCE["loss"], f"largest difference of an epoch's loss {off:.1e} nats")


CHECKS: dict[str, Callable[[str, Path], str]] = {
    check.__name__: check for check in (batches, ahead, fp32, losses, resumed, judged, several)
}


def main() -> None:
    """Run the checks, and end with 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", nargs="*", default=list(CHECKS), choices=list(CHECKS))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here that PyTorch can use: --device cpu shows that the checks work")
    name = torch.cuda.get_device_name() if options.device == "cuda" else "the processor itself"
    print(f"torch {torch.__version__}, {name}", flush=True)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for each in options.only:
            place = Path(folder) / each
            place.mkdir()
            try:
                print(f"ok      {each}: {CHECKS[each](options.device, place)}", flush=True)
            except (Failed, UserError, RuntimeError) as failure:  # what torch raises ends no other check
                bad += 1
                print(f"FAILED  {each}: {failure}", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()

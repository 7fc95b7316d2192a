"""What is fuzzed: every reader of something that strangers may have written. A target takes bytes and may raise UserError only.

Each has seeds, which are sound, so that a fuzzer begins within the format and not outside of it.
"""

import io
import json
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from convatlas.data.pictures import decode_picture, quiet_pillow
from convatlas.data.readers import cifar, csv_list, idx
from convatlas.data.readers.folder import read_folder
from convatlas.data.readers.picture_files import Request
from convatlas.errors import UserError
from convatlas.models.checkpoints import read_checkpoint
from convatlas.models.configuration import model_name
from convatlas.models.registry import create_model
from convatlas.records import codec, manifest
from convatlas.records.naming import short_name
from convatlas.records.plan import FORMAT, Factor, Held, PlannedComparison, StudyPlan, Variant
from convatlas.records.run import Choices, EpochMetrics, ModelConfig, Recipe, RunSummary, read_metrics
from convatlas.study import levels, plan_file, resolve
from convatlas.study.folder import read_plan
from convatlas.training import checkpoint
from convatlas.training.environment import environment
from convatlas.training.recipe import check_recipe

PLACE = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
"""Where files lie that readers want by name."""


@dataclass(frozen=True)
class Target:
    """A reader: what it does with bytes, and sound ones to begin with."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def admitted(target: Target, data: bytes) -> bool:
    """Whether the reader takes the bytes; False if it refuses them as it should. Whatever else it raises is a fault."""
    try:
        target.read(data)
    except UserError as error:
        text = str(error)
        assert text.isprintable(), "the message would change the terminal"
        assert text.endswith((".", "?", "!")), text
        return False
    return True


def _file(name: str, data: bytes) -> Path:
    path = PLACE / name
    path.write_bytes(data)
    return path


def _recipe(data: bytes) -> object:
    recipe = codec.read(Recipe, _file("recipe.json", data))
    check_recipe(recipe)
    assert codec.from_text(Recipe, codec.to_text(recipe), where="again") == recipe
    return recipe


def _record(kind: type, data: bytes) -> object:
    record = codec.read(kind, _file("record.json", data))
    assert codec.from_text(kind, codec.to_text(record), where="again") == record
    return record


def _metrics(data: bytes) -> object:
    return read_metrics(_file("metrics.jsonl", data))


def _manifest(data: bytes) -> object:
    _file(manifest.FILE, data)
    try:
        return manifest.read(PLACE)
    finally:
        (PLACE / manifest.FILE).unlink()


def _run_folder(data: bytes) -> object:
    """A finished run whose configuration or weights, by the first byte, are the bytes."""
    folder = PLACE / "run"
    folder.mkdir(exist_ok=True)
    which, data = data[:1], data[1:]
    sound = _RUN_FILES
    for name, content in sound.items():
        (folder / name).write_bytes(data if name == ("config.json", "model.safetensors")[bool(which > b"\x7f")] else content)
    return checkpoint.load_model(folder)


def _state(data: bytes) -> object:
    folder = PLACE / "state"
    folder.mkdir(exist_ok=True)
    (folder / "state-1.pt").write_bytes(data)
    return checkpoint.load_state(folder, note=lambda text: None)


def _checkpoint(data: bytes) -> object:
    return read_checkpoint(_file("weights.pth", data))


def _cifar(data: bytes) -> object:
    return cifar._batch(data, b"labels", 10, where="the fuzzed batch")


def _idx(data: bytes) -> object:
    return idx._values(data, dimensions=3, where="the fuzzed file")


def _study(data: bytes) -> object:
    """A plan as far as it goes without data: its factors, the cells they make, and the first one's recipe."""
    study = plan_file.read_study(str(_file("plan.yaml", data)))
    found = levels.levels_of(study, where="f")
    cells = levels.cells_of(found, study.design)
    levels.check_names([levels.name_of(cell, found, study.design) for cell in cells], where="f")
    return resolve._recipe(study, cells[0], where="f")


def _kept_plan(data: bytes) -> object:
    _file("plan.json", data)
    return read_plan(PLACE)


def _model(data: bytes) -> object:
    """The name of a model: canonical names are their own canonical names."""
    name = model_name(data.decode("utf-8", "surrogateescape"))
    assert model_name(name) == name
    assert short_name(name) == short_name(name)
    return name


def _picture(data: bytes) -> object:
    with quiet_pillow():
        return decode_picture(data, size=8, channels=3, where="the fuzzed picture")


def _pictures_folder() -> Path:
    folder = PLACE / "pictures"
    if not folder.exists():
        for name in ("ant", "bee"):
            (folder / name).mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (8, 8), (i * 9, 20, 30)).save(folder / name / f"{i}.png")
    return folder


def _csv(data: bytes) -> object:
    path = _pictures_folder() / "list.csv"
    path.write_bytes(data)
    return csv_list.read_csv_list(path, Request(path, 8, 0.2, 0, True, None))


def _names(data: bytes) -> object:
    """A folder of pictures in which the bytes name class folders and files, one of them a line."""
    with tempfile.TemporaryDirectory(dir=PLACE) as place:
        root = Path(place)
        for i, name in enumerate(data.split(b"\n")[:12]):
            try:
                path = root / Path(name.decode("utf-8", "surrogateescape"))
                if not path.is_relative_to(root) or ".." in path.parts:
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_PNGS[i % len(_PNGS)])
            except (OSError, ValueError):
                continue
        return read_folder(root, Request(root, 8, 0.2, 0, True, None))


def _saved(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def _image(kind: str, mode: str = "RGB", size: int = 9, **options: Any) -> bytes:
    buffer = io.BytesIO()
    channels = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(0).integers(0, 255, (size, size, channels), dtype=np.uint8)
    pixels = noise if channels > 1 else noise[:, :, 0]
    (Image.fromarray(pixels, mode="L" if channels == 1 else None).convert(mode)).save(buffer, kind, **options)
    return buffer.getvalue()


def _batch_of_cifar() -> bytes:
    import pickle

    value = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
    return pickle.dumps(value, protocol=2)


_RECIPE = Recipe(model="resnet.pocket", data="shapes", data_fingerprint="f" * 32, epochs=3)
_METRICS = EpochMetrics(1, 2, 3, 4.0, 0.1, 0.2, 0.3, None, 0.5, 100.0)
_CONFIG = ModelConfig("lenet.pocket", 2, 3, 32, (0.5,) * 3, (0.2,) * 3, ("a", "b"), "0.1.0")
_SUMMARY = RunSummary(
    status="interrupted",
    cause=None,
    model="lenet.pocket",
    family="lenet",
    data="shapes",
    seed=0,
    image_size=32,
    in_chans=3,
    num_classes=2,
    params=10,
    macs=20,
    n_train=3,
    n_val=2,
    n_test=1,
    epochs_done=1,
    images_seen=3,
    train_seconds=0.5,
    images_per_second=6.0,
    val_accuracy=0.5,
    test_accuracy=None,
    test_looks=0,
    skipped_images=("a.png",),
    choices=Choices("cpu", "fp32", "channels_last", 1, "as the recipe says"),
    environment=environment(),
)
_PLANS = [
    b"question: Which?\nrecipe: {data: digits, epochs: 2}\nmodel: resnet.pocket\n"
    b"factors:\n  norm: [batch, none]\n  lr: [1e-3, 1e-2]\n",
    b"question: Which?\nrecipe: {base: standard}\nseeds: [1, 2]\n"
    b"factors: {model: {a: vgg.pocket, b: {family: resnet, depths: [1, 1]}}}\n"
    b"hold: {params: first}\ncompare: baseline\ntune: {trials: 2, epochs: 1, searched: {lr: {low: 1e-4, high: 1, log: true}}}\n",
]
_PLAN = StudyPlan(
    format=FORMAT,
    name="n",
    question="Which?",
    date="2026-01-01",
    convatlas="0.1.0",
    factors=(Factor("lr", ("1", "2")),),
    design="full",
    variants=(Variant("lr=1", {"lr": "1"}, _RECIPE, 1, 2, 32, 3), Variant("lr=2", {"lr": "2"}, _RECIPE, 1, 2, 32, 3, 0.5)),
    seeds=(0, 1),
    held=(Held("params", 1.0, 0.1),),
    comparisons=(PlannedComparison("lr=1", "lr=2"),),
    equivalence=0.005,
    tuning=None,
    threads=1,
    processes=1,
    watched=False,
    data="shapes",
    data_description="",
    n_train=3,
    n_val=2,
    n_test=1,
    classes=("a", "b"),
    source="plan.yaml",
)
_WEIGHTS = safetensors.torch.save(create_model("lenet.pocket", num_classes=2, in_chans=3, image_size=32).state_dict())
_RUN_FILES = {"config.json": codec.to_text(_CONFIG).encode(), "model.safetensors": _WEIGHTS}
_TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.zeros(2, dtype=torch.int64)}
_PNGS = (_image("PNG"), _image("JPEG"), b"", b"<html>")
_ENTRY = manifest.entry_of("state-1.pt", b"x")

TARGETS: dict[str, Target] = {
    "recipe": Target(_recipe, (codec.to_text(_RECIPE).encode(), codec.to_text(replace(_RECIPE, sizes=((0.5, 24),))).encode())),
    "metrics": Target(_metrics, (codec.to_line(_METRICS).encode() * 2, codec.to_line(_METRICS).encode()[:-9])),
    "config": Target(partial(_record, ModelConfig), (codec.to_text(_CONFIG).encode(),)),
    "summary": Target(partial(_record, RunSummary), (codec.to_text(_SUMMARY).encode(),)),
    "study": Target(_study, tuple(_PLANS)),
    "plan": Target(_kept_plan, (codec.to_text(_PLAN).encode(),)),
    "model": Target(
        _model,
        (
            b"resnet.pocket",
            b"resnet{depths: [3,3,3], shortcut: false, norm: none, act: tanh}",
            b'vgg{"kernel_size": 5, "width": 0.5}',
        ),
    ),
    "manifest": Target(_manifest, (codec.to_text(manifest.Manifest((_ENTRY,), manifest._seal((_ENTRY,)))).encode(),)),
    "run folder": Target(_run_folder, (b"\x00" + _RUN_FILES["config.json"], b"\xff" + _WEIGHTS[:2000])),
    "state": Target(_state, (_saved({"format": 1, "model": _TENSORS, "position": {"epoch": 1}}),)),
    "checkpoint": Target(
        _checkpoint,
        (
            _saved(_TENSORS),
            _saved({"state_dict": _TENSORS}, _use_new_zipfile_serialization=False),
            safetensors.torch.save(_TENSORS),
        ),
    ),
    "safetensors": Target(
        lambda data: _checkpoint(struct.pack("<Q", len(data)) + b"{" + data[1:] + bytes(64)),
        (json.dumps({"w": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}).encode(),),
    ),
    "cifar": Target(_cifar, (_batch_of_cifar(),)),
    "idx": Target(_idx, (struct.pack(">4I", 2051, 2, 28, 28) + bytes(2 * 784),)),
    "csv": Target(
        _csv,
        (
            b"path,label\n" + b"".join(f"{c}/{i}.png,{c}\n".encode() for c in ("ant", "bee") for i in range(8)),
            b"path,label,split\nant/0.png,a,train\nbee/0.png,b,train\nant/1.png,a,test\n",
        ),
    ),
    "folder": Target(
        _names, (b"ant/0.png\nbee/0.png\nant/1.png\nbee/1.png", b"train/a/0.png\ntrain/b/0.png\ntest/a/1.png\ntest/b/1.png")
    ),
    "picture": Target(
        _picture,
        (
            _image("PNG"),
            _image("PNG", "P"),
            _image("PNG", "LA"),
            _image("JPEG"),
            _image("JPEG", "CMYK"),
            _image("GIF"),
            _image("BMP"),
            _image("WEBP"),
            _image("TIFF"),
        ),
    ),
}
"""By name."""

"""`convatlas look`: pictures of every kind into a page, a record and files."""

import json

import numpy as np
import pytest
from PIL import Image

from convatlas.records import codec
from convatlas.records.look import Look

from .zygote import command

QUICK = ["--only", "maps,filters,activations,field"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("look")
    colours = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype="uint8")
    image = Image.fromarray(colours)
    image.save(place / "rgb.png")
    image.convert("L").save(place / "grey.png")
    image.convert("RGBA").save(place / "rgba.png")
    image.convert("CMYK").save(place / "cmyk.jpg")
    Image.fromarray(colours[..., 0].astype("uint16") * 257).save(place / "deep.png")
    exif = Image.Exif()
    exif[274] = 6
    image.save(place / "turned.jpg", exif=exif)
    Image.new("RGB", (1, 1)).save(place / "dot.png")
    Image.new("RGB", (20_000, 10)).save(place / "wide.png")
    (place / "text.png").write_text("no picture")
    (place / "empty.png").write_bytes(b"")
    (place / "pictures").mkdir()
    (place / "there").mkdir()
    done = command(
        "train",
        "lenet.pocket",
        "--data",
        "shapes",
        "--epochs",
        "1",
        "--batch-size",
        "256",
        "--gradients",
        "--out",
        "run",
        folder=place,
    )
    assert done.returncode == 0, done.stderr
    (place / "unfinished").mkdir()
    (place / "unfinished" / "recipe.json").write_text((place / "run" / "recipe.json").read_text())
    return place


def test_a_run_and_pictures_of_every_kind(folder):
    names = ["rgb.png", "grey.png", "rgba.png", "cmyk.jpg", "deep.png", "turned.jpg", "dot.png"]
    done = command("look", "run", *names, *QUICK, "--out", "kinds", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    record = codec.from_plain(Look, json.loads(done.stdout), where="x")
    assert record.trained
    assert [each.image for each in record.images] == names
    assert all(len(each.maps) == 2 and len(each.prediction.classes) == 5 for each in record.images)
    assert codec.read(Look, folder / "kinds" / "look.json") == record
    files = {path.name for path in (folder / "kinds").iterdir()}
    assert {"look.html", "look.json", "filters.png", "field-stages.0.png", "00-image.png", "06-maps-stages.1.png"} <= files


def test_everything_of_a_run(folder):
    done = command("look", "run", "rgb.png", "--out", "whole", folder=folder)
    assert done.returncode == 0, done.stderr
    page = (folder / "whole" / "look.html").read_text()
    assert "What came back to each layer while it was trained" in page, "it was trained with --gradients"
    assert "Untrained" not in page
    assert "grad-cam" in page
    assert "Content-Security-Policy" in page
    assert "<script" not in page
    assert "grad-cam" in done.stdout


def test_random_weights_say_so(folder):
    done = command(
        "look", "resnet.pocket", "rgb.png", *QUICK, "--layer", "stem", "--layer", "stages.1.0", "--out", "random", folder=folder
    )
    assert done.returncode == 0, done.stderr
    page = (folder / "random" / "look.html").read_text()
    assert "Untrained" in page
    assert "with random weights, seed 0" in page
    assert {"00-maps-stem.png", "00-maps-stages.1.0.png"} <= {path.name for path in (folder / "random").iterdir()}


OWN = """
from torch import nn

class Slash(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleDict({"a/b": nn.Conv2d(1, 4, 3), "c" * 300: nn.Conv2d(4, 4, 3)})
        self.head = nn.Linear(4, 3)
    def forward(self, x):
        for stage in self.stages.values():
            x = stage(x)
        return self.head(x.mean((2, 3)))
"""


def test_ones_own_grey_network_with_odd_names(folder):
    (folder / "own.py").write_text(OWN)
    done = command(
        "look", "own.py:Slash", "rgb.png", *QUICK, "--in-chans", "1", "--image-size", "16", "--out", "own", folder=folder
    )
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (folder / "own").iterdir()}
    assert "00-maps-stages.a-b.png" in files
    assert "whether they are trained is not known" in (folder / "own" / "look.html").read_text()


def test_two_pictures_of_one_name_and_a_name_that_is_no_text(folder):
    (folder / "more").mkdir(exist_ok=True)
    (folder / "more" / "rgb.png").write_bytes((folder / "rgb.png").read_bytes())
    (folder / "more" / "\udcff.png").write_bytes((folder / "rgb.png").read_bytes())
    words = ["look", "run", "rgb.png", "more/rgb.png", "more/\udcff.png", "--only", "maps", "--out", "names", "--json"]
    done = command(*words, folder=folder)
    assert done.returncode == 0, done.stderr
    names = [each["image"] for each in json.loads(done.stdout)["images"]]
    assert names == ["rgb.png", "more/rgb.png", "more/\\udcff.png"]


def test_what_cannot_be_had_is_a_note_where_nobody_asked_for_it(folder):
    done = command("look", "resnet20", "dot.png", "--image-size", "1", "--out", "notes", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "note: attributions: " in done.stderr
    assert "Left out" in (folder / "notes" / "look.html").read_text()


BAD = [
    (["look", "run", "rgb.png", "--layer", "nope"], "no layer called 'nope'"),
    (["look", "resnet.pocket", "rgb.png", "--in-chans", "1"], "--in-chans is for networks from files"),
    (["look", "resnt18", "rgb.png"], "no model called 'resnt18'. Did you mean resnet18"),
    (["look", "resnet.pocket"], "Missing argument"),
    (["look", "resnet.pocket", "text.png"], "text.png is no picture"),
    (["look", "resnet.pocket", "empty.png"], "empty.png is empty"),
    (["look", "resnet.pocket", "none.png"], "none.png cannot be read"),
    (["look", "resnet.pocket", "pictures"], "pictures is no regular file"),
    (["look", "resnet.pocket", "wide.png"], "20000x10 pixels, too narrow for its middle square"),
    (["look", "resnet.pocket", "rgb.png", "--layer", "stages.9"], "no layer called 'stages.9'. Did you mean stages."),
    (["look", "resnet.pocket", "rgb.png", "--only", "map"], "no part called 'map'. Did you mean maps"),
    (["look", "resnet.pocket", "rgb.png", "--out", "there"], "there exists already"),
    (["look", "pictures", "rgb.png"], "pictures holds no finished model"),
    (["look", "unfinished", "rgb.png"], "unfinished holds no finished model"),
    (["look", "run", "rgb.png", "--pretrained", "default"], "a run has its own weights"),
    (["look", "resnet.pocket", "rgb.png", "--pretrained", "default"], "no weights are published for 'resnet.pocket'"),
    (["look", "resnet.pocket", "rgb.png", "--image-size", "0"], "image_size is 0"),
    (
        ["look", "resnet.pocket", "rgb.png", "--target", "10", "--only", "attributions"],
        "--target is 10, and there are 10 classes",
    ),
    (["look", "resnet.pocket", "rgb.png", "--target", "1", "--only", "maps"], "--target is for attributions"),
    (["look", "resnet.pocket", "rgb.png", "--layer", "nope", "--only", "filters"], "--layer is for maps and field"),
    (["look", "resnet.pocket", "rgb.png", "--only", "gradients"], "resnet.pocket kept no gradients"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input(words, message, folder):
    before = sorted(path.name for path in folder.iterdir())
    done = command(*words, folder=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert sorted(path.name for path in folder.iterdir()) == before

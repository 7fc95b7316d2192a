"""The pages below docs/ are read here: a number, shape, formula, command or path that is not so fails a test.

How the pages are written so that this can be done: tables whose second column is `made of`, `fed`, or whose first is `member`
or `layer` are rendered anew from the networks and compared line by line (`counted as`: see test_derivations.py); a `formula`
block is evaluated on every row of the table after it; `python` blocks are run and `sh` blocks parsed; an `output` block is what
the block before it prints when it is run; inline code with a digit must be one of `_check_code`'s kinds; what remains, prose and
`text` blocks, may hold no other number than those that `_stray_numbers` can look up.
The file is longer than 400 lines because the reading and the rules it serves are of no use to any other test.
"""

import dataclasses
import importlib
import inspect
import math
import re
import shlex
import sys
import tomllib
from functools import cache, partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import typer
from torch import nn

import convatlas
from convatlas import create_model
from convatlas.arith.cost import conv_macs
from convatlas.arith.receptive_field import Extent, through_window, union
from convatlas.arith.scaling import ALPHA, BETA, GAMMA, PUBLISHED, cost_factor, scaled_depth, scaled_width
from convatlas.arith.shapes import conv_output_size
from convatlas.cli.console import OUT
from convatlas.cli.main import app, main
from convatlas.data.catalog import CATALOG
from convatlas.errors import UserError
from convatlas.inspection.shapes_only import short_way
from convatlas.inspection.trace import trace
from convatlas.models.keymaps import counterpart
from convatlas.models.papers import OURS, PAPERS, golden_rows
from convatlas.models.pretrained import in_layout
from convatlas.models.published import published
from convatlas.models.registry import MODELS
from convatlas.records.model import GoldenRow
from convatlas.records.run import Recipe
from convatlas.training.recipe import check_recipe

pytestmark = pytest.mark.untraced  # long computations, whose lines other tests reach

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FAMILY_PAGES = sorted((DOCS / "families").glob("*.md"))
PAGES = [*FAMILY_PAGES, DOCS / "formulas.md", DOCS / "weights.md", DOCS / "adding-a-family.md", DOCS / "looking-inside.md"]
README = ROOT / "README.md"
GUIDES = ("compact", "runs", "studies", "training", "transfer")
"""Pages of which the commands are read, and not each number."""
HEADINGS = [
    "What changed",
    "The block",
    "The network",
    "Departures from the paper",
    "Small images and the pocket member",
    "Build and train it",
    "Exercises",
    "Citation",
]
NUMBER_WORDS = "three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|sixteen|twenty|thirty|hundred|thousand|million"
NUMBER = re.compile(r"-?[\d,.]+(?:e-?\d+)?")
REFERENCE = r"\b(?:[Ss]ection|[Ff]igure|[Tt]able|[Ee]quation) (?:\d+(?:\.\d+)*(?:\([a-z]\))?|\(\d\)|[IVX]+(?:\.[A-Z])?)"

on_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
on_each_page_and_the_readme = pytest.mark.parametrize("page", [*PAGES, README], ids=lambda page: page.stem)
on_each_family = pytest.mark.parametrize("family", PAPERS)


class Piece(NamedTuple):
    """A part of a page: `kind` is a fence's word, or `table`, `quote` or `prose`."""

    kind: str
    lines: list[str]


@cache
def pieces(page: Path) -> list[Piece]:
    found: list[Piece] = []
    fence: str | None = None
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fence = line[3:] if fence is None else None
            found.append(Piece(fence or "prose", []))
            continue
        kind = fence or {"|": "table", ">": "quote"}.get(line[:1], "prose")
        if not found or found[-1].kind != kind:
            found.append(Piece(kind, []))
        found[-1].lines.append(line)
    assert fence is None, f"{page.name}: a fence is not closed"
    return found


def of_kind(page: Path, *kinds: str) -> list[Piece]:
    return [piece for piece in pieces(page) if piece.kind in kinds]


def prose(page: Path) -> str:
    return "\n".join("\n".join(piece.lines) for piece in of_kind(page, "prose", "table"))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def row(*values: object) -> str:
    return "| " + " | ".join(str(value) for value in values) + " |"


def model_in(cell: str) -> str | None:
    """The model that a table's first cell names in inline code."""
    found = re.match("`([^`]+)`", cell)
    return found[1] if found else None


def tables(page: Path, heading: str, *, column: int) -> list[Piece]:
    """The tables of a page whose heading says `heading` in that column."""
    return [t for t in of_kind(page, "table") if cells(t.lines[0])[column].split(" of ")[0] == heading]


# What the networks say


@cache
def on_meta(name: str, image_size: int | None = None) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, in_chans=MODELS[name].in_chans, image_size=image_size).eval()


@cache
def traced(name: str):
    return trace(on_meta(name), (MODELS[name].in_chans, MODELS[name].image_size, MODELS[name].image_size))


def side_by_side(values: tuple[int, ...] | list[int]) -> str:
    return "x".join(str(value) for value in values)


def _window(module: nn.Module) -> str:
    """The window of a convolution or pooling, such as `7x7/2`."""
    kernel, stride = (v if isinstance(v, tuple) else (v, v) for v in (module.kernel_size, module.stride))
    return side_by_side(kernel) + (f"/{stride[0]}" if stride[0] > 1 else "")


def atoms(module: nn.Module) -> list[str]:
    """What a part is made of, in order: the family's own blocks by name, otherwise convolutions, poolings and linear layers."""
    children = list(module.children())
    if children:
        own = type(module).__module__.startswith("convatlas.models.")
        return [type(module).__name__] if own else [atom for child in children for atom in atoms(child)]
    match module:
        case nn.Conv2d():
            return [("depthwise " if module.groups == module.in_channels > 1 else "conv ") + _window(module)]
        case nn.MaxPool2d():
            return ["max pool " + _window(module)]
        case nn.AvgPool2d():
            return ["average pool " + _window(module)]
        case nn.AdaptiveAvgPool2d():
            return [f"average to {module.output_size}x{module.output_size}"]
        case nn.Linear():
            return ["linear"]
    return []


def made_of(module: nn.Module) -> str:
    runs = ((atom, len(list(same))) for atom, same in groupby(atoms(module)))
    return ", ".join(atom if n == 1 else f"{n} {atom}" for atom, n in runs) or "-"


def stage_table(name: str) -> list[str]:
    """The rows that the page's table of this network must have, after its heading."""
    model, record, golden = on_meta(name), traced(name), golden_rows()[name]
    channels, size = golden.in_chans, golden.image_size
    with torch.no_grad():
        stem_shape = tuple(model.stem(torch.empty(1, channels, size, size, device="meta")).shape[1:])
    parts = [("stem", "stem.", model.stem, stem_shape)]
    parts += [
        (f"stage {i + 1}", f"stages.{i}.", m, shape)
        for i, (m, shape) in enumerate(zip(model.stages, golden.stage_shapes, strict=True))
    ]
    parts += [("head", "head.", model.head, (golden.num_classes,))]
    rows = []
    for label, prefix, module, (width, *sides) in parts:
        params = sum(p.numel() for p in module.parameters())
        macs = sum(layer.macs for layer in record.layers if f"{layer.name}.".startswith(prefix))
        rows.append(row(label, made_of(module), width, side_by_side(sides) or "-", f"{params:,}", f"{macs:,}"))
    return [*rows, row("total", "-", "-", "-", f"{golden.params:,}", f"{golden.macs:,}")]


def image_row(name: str, built_for: int, fed: int) -> str:
    """The map's size after the stem and after each stage, for a network built for one image size and fed another."""
    model, channels = on_meta(name, built_for), MODELS[name].in_chans
    try:
        shapes = trace(model, (channels, fed, fed)).stage_shapes
    except UserError:
        return row(built_for, fed, *["does not fit"] * (len(model.stages) + 1))
    with torch.no_grad():
        stem = model.stem(torch.empty(1, channels, fed, fed, device="meta"))
    return row(built_for, fed, *(side_by_side(shape[-2:]) for shape in (tuple(stem.shape), *shapes)))


def members_table(family: str) -> list[str]:
    return [
        row(f"`{name}`", g.in_chans, f"{g.image_size}x{g.image_size}", g.num_classes, f"{g.params:,}", f"{g.macs:,}", sees(g))
        for name, g in golden_rows().items()
        if g.family == family
    ]


def sees(golden: GoldenRow) -> str:
    """The side of what a unit of the last stage's map sees, in pixels."""
    return "whole image" if golden.receptive_field is None else f"{golden.receptive_field:,}"


@cache
def sizes(family: str) -> frozenset[str]:
    """Every kernel and every map of a family's variants, such as `3x3`."""
    found = set()
    for name in (name for name, variant in MODELS.items() if variant.family == family):
        for size in {MODELS[name].image_size, 32}:
            model = on_meta(name, size)
            found |= {
                side_by_side(shape) for shape in _maps(model, torch.empty(1, MODELS[name].in_chans, size, size, device="meta"))
            }
            found |= {_window(m).split("/")[0] for m in model.modules() if isinstance(m, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d))}
    return frozenset(found)


def _maps(model: nn.Module, image: torch.Tensor) -> set[tuple[int, ...]]:
    """Height and width of the image and of every layer's map. A trace would do, but takes ten times as long."""
    found = {tuple(image.shape[2:])}
    handles = [
        module.register_forward_hook(lambda _, args, output: found.add(tuple(output.shape[2:])) if output.dim() == 4 else None)
        for module in model.modules()
    ]
    with torch.no_grad(), short_way():
        model(image)
    for handle in handles:
        handle.remove()
    return found


# What stands in the pages


def same(value: float, written: str, *, rounded: bool) -> bool:
    """Whether `written` is the value: exactly, or rounded to the decimals that it shows."""
    plain = written.replace(",", "")
    if not rounded:
        return math.isclose(value, float(plain), rel_tol=1e-12)
    style = f".{len(plain.split('e')[0].partition('.')[2])}{'e' if 'e' in plain else 'f'}"
    return f"{value:{style}}" == f"{float(plain):{style}}"


def _names() -> dict[str, object]:
    known = {name: getattr(math, name) for name in ("floor", "ceil", "sqrt", "tanh")}
    counts = {field: partial(_golden, field) for field in ("params", "macs", "auxiliary_params")}
    parts = {"part": lambda name, part: sum(p.numel() for p in on_meta(name).get_submodule(part).parameters())}
    return known | counts | parts | {"field": partial(_golden, "receptive_field"), "part_macs": _part_macs}


def _part_macs(name: str, part: str) -> int:
    return sum(layer.macs for layer in traced(name).layers if f"{layer.name}.".startswith(f"{part}."))


def _golden(field: str, name: str) -> int:
    count: int = getattr(golden_rows()[name], field)
    return count


def _claim_holds(claim: str) -> bool:
    left, sign, right = re.split(r"\s(=|≈)\s", claim)
    return same(eval(left, _names()), right, rounded=sign == "≈")


def _command(line: str) -> tuple[dict[str, str], list[str]]:
    """What a command line sets in the environment, and its words."""
    words = shlex.split(line, comments=True)
    settings = [word for word in words if re.match("[A-Z_]+=", word)]
    return dict(word.split("=", 1) for word in settings), words[len(settings) :]


def _command_parses(line: str) -> bool:
    """Whether the command line knows every word, and the models, data and settings exist. Raises what is wrong."""
    _, (_, name, *words) = _command(line)
    group = typer.main.get_command(app)
    command = group.commands[name]
    if name == "calc":
        name, *words = words
        command = command.commands[name]
    given = command.make_context(name, words).params
    models = [given.get("model"), *(given.get("models") or "").split(",")]
    models += [given["first"], given["second"]] if name == "diff" else []
    models += [given.get("name"), *(given.get("names") or [])] if name in ("show", "draw", "look", "gradients") else []
    assert all(model in MODELS or model.startswith("runs/") or ".py:" in model for model in models if model), line
    if {"batch_size", "data"} <= given.keys() and name != "finetune":
        assert given["data"] in CATALOG, line
        fields = {field.name for field in dataclasses.fields(Recipe)}
        settings = {k: v for k, v in given.items() if k in fields and v is not None}
        budget = {} if settings.keys() & {"epochs", "minutes"} else {"epochs": 1}
        check_recipe(Recipe(**{"model": "", "data_fingerprint": "", **budget, **settings}))
    return True


def _check_code(code: str) -> bool:
    """Whether inline code is true: a claim, settings of `train`, a command, a path, a layer, a model, or what it and its weights are called."""
    if re.search(r"\s(=|≈)\s", code) and re.search(r"\d", code):
        return _claim_holds(code)
    if code.startswith("--"):
        return _command_parses(f"convatlas train {code}")
    if code.startswith("convatlas "):
        words = code.split()
        return words[1] in typer.main.get_command(app).commands if len(words) == 2 else _command_parses(code)
    if "/" in code and " " not in code and "<" not in code:
        return (ROOT / code).exists()
    if re.match(r"(stem|stages|head)\.", code):
        return any(code in dict(on_meta(name).named_modules()) for name in MODELS)
    return code in MODELS or not re.search(r"\d", code) or code in _names_elsewhere()


@cache
def _names_elsewhere() -> frozenset[str]:
    """What published weights are called here, and what our networks are called in other libraries."""
    built = [counterpart(name, library) for name in MODELS for library in ("torchvision", "timm")]
    return frozenset({row.name for row in published()} | {found.split("'")[1] for found in built if found is not None})


def _sources(page: Path) -> str:
    """What a page's references are looked up in: its family's file and paper, or for general pages all of them."""
    families = [page.stem] if page.stem in PAPERS else list(PAPERS)
    modules = [importlib.import_module(f"convatlas.models.{family}") for family in families]
    modules += [importlib.import_module(f"convatlas.arith.{name}") for name in ("shapes", "cost", "receptive_field", "scaling")]
    modules += [importlib.import_module("convatlas.layers.conv_norm")]
    texts = [inspect.getsource(module) for module in modules]
    texts += [f"{PAPERS[family].paper} {PAPERS[family].year} {PAPERS[family].innovation}" for family in families]
    texts += [] if page.stem in PAPERS else [(ROOT / "pyproject.toml").read_text(encoding="utf-8")]
    return _flat(" ".join([*texts, *(paper.title for paper in PAPERS.values()), *MODELS]))


def _is_word(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?!\w)", text) is not None


def _flat(text: str) -> str:
    return " ".join(text.split())


def _neighbours(page: Path) -> list[str]:
    """The page's family and, first, the one before it, which it is compared with; for general pages all families."""
    order = list(PAPERS)
    at = order.index(page.stem) if page.stem in PAPERS else None
    return order[::-1] if at is None else order[max(at - 1, 0) : at + 1]


def _stray_numbers(page: Path, text: str) -> list[str]:
    """Numbers in words that no test reads. Sizes such as 3x3, references and years are looked up; names may hold digits."""
    sources = _sources(page)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|^\s*\d+\. |^# .*$", " ", text, flags=re.M)
    text = _flat(text).replace(PAPERS[page.stem].paper if page.stem in PAPERS else "\0", " ")
    stray = []

    def look_up(pattern: str, holds) -> None:
        nonlocal text
        stray.extend(found[0] for found in re.finditer(pattern, text) if not holds(found[0]))
        text = re.sub(pattern, " ", text)

    # The page's own family first: sizes take seconds to collect.
    look_up(
        r'"?\b\d+x\d+\b"?',
        lambda size: size in sources if size[0] == '"' else any(size in sizes(family) for family in _neighbours(page)[::-1]),
    )
    look_up(r"arXiv:\d+\.\d+", lambda reference: reference in sources)
    look_up(REFERENCE, lambda found: re.search(re.escape(found) + r"(?!\.?\d)", sources, flags=re.I) is not None)
    look_up(r"\b(?:19|20)\d\d\b", lambda year: year in sources or int(year) in {PAPERS[f].year for f in _neighbours(page)})
    look_up(rf"\b(?i:{NUMBER_WORDS}) [a-zA-Z]+", lambda phrase: phrase.lower() in sources.lower())
    look_up(r"\b[A-Za-z][\w-]*(?:\.\d+)?\b", lambda name: not re.search(r"\d", name) or _is_word(name, sources))
    return stray + re.findall(r"\S*\d\S*", text)


# The tests


def test_every_family_has_a_page() -> None:
    assert {page.stem for page in FAMILY_PAGES} == set(PAPERS) == {variant.family for variant in MODELS.values()} - set(OURS)


@on_each_family
def test_family_page_has_its_parts(family: str) -> None:
    text = (DOCS / f"families/{family}.md").read_text(encoding="utf-8")
    paper, order = PAPERS[family], list(PAPERS)
    assert text.startswith(f"# {paper.title} ({paper.year})\n\n*{paper.innovation}*\n")
    assert re.findall(r"^## (.+)$", text, flags=re.M) == HEADINGS
    assert _flat(text.split("## Citation")[1]).startswith(f"{paper.authors} ({paper.year}). {paper.paper}.")
    near = [order[i] for i in (order.index(family) - 1, order.index(family) + 1) if 0 <= i < len(order)]
    assert re.findall(r"\]\((\w+)\.md\)", text.split("## ")[0]) == near


@on_each_family
def test_members_and_stages_are_those_of_the_networks(family: str) -> None:
    page = DOCS / f"families/{family}.md"
    (members,) = tables(page, "member", column=0)
    assert cells(members.lines[0])[1:] == ["channels", "image", "classes", "parameters", "MACs", "receptive field"]
    assert members.lines[2:] == members_table(family)
    staged = tables(page, "made of", column=1)
    names = [model_in(cells(table.lines[0])[0]) for table in staged]
    assert {PAPERS[family].landmark, PAPERS[family].pocket} <= set(names)
    for name, table in zip(names, staged, strict=True):
        assert MODELS[name].family == family
        assert cells(table.lines[0])[2:] == ["channels", "map", "parameters", "MACs"]
        assert table.lines[2:] == stage_table(name)


@on_each_family
def test_maps_for_other_image_sizes(family: str) -> None:
    (table,) = tables(DOCS / f"families/{family}.md", "fed", column=1)
    heading, name = cells(table.lines[0]), model_in(table.lines[0].lstrip("| "))
    assert name is not None and MODELS[name].family == family
    assert heading[2:] == ["stem", *(f"stage {i + 1}" for i in range(len(on_meta(name).stages)))]
    sizes_given = [tuple(int(cell) for cell in cells(line)[:2]) for line in table.lines[2:]]
    assert any(built != fed for built, fed in sizes_given) and any(built == fed <= 64 for built, fed in sizes_given)
    assert table.lines[2:] == [image_row(name, built, fed) for built, fed in sizes_given]


@on_each_family
def test_departures_are_those_of_the_family_file(family: str) -> None:
    """The page quotes the end of the header, from its departures on, word for word."""
    header = inspect.getdoc(importlib.import_module(f"convatlas.models.{family}"))
    assert header is not None
    (quote,) = of_kind(DOCS / f"families/{family}.md", "quote")
    start = re.search(r"^(Departure|No departure)", header, flags=re.M)
    assert start is not None
    assert _flat(" ".join(line.removeprefix(">") for line in quote.lines)) == _flat(header[start.start() :])


@on_each_page_and_the_readme
def test_blocks_run_and_print_what_stands_below_them(page: Path, tmp_path, monkeypatch, capsys) -> None:
    """Every `python` block, and every `sh` block that an `output` block follows, one after the other in one empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convatlas.models.pretrained.obtain", stand_in)
    monkeypatch.setattr(OUT, "size", (110, 40))
    if page.stem == "weights":
        importlib.import_module("tests.parity.reference_libraries")
    blocks = [piece for piece in pieces(page) if piece.kind in ("python", "sh", "output")]
    assert any(block.kind == "python" for block in blocks) and blocks[0].kind != "output"
    for block, after in pairwise([*blocks, None]):
        capsys.readouterr()
        expected = after.lines if after is not None and after.kind == "output" else None
        if block.kind == "python":
            with torch.random.fork_rng(devices=[]):
                exec(compile("\n".join(block.lines), f"{page.name}, python block", "exec"), {"__name__": page.stem})
        elif block.kind == "sh" and expected is not None:
            for line in block.lines:
                _run(line)
        if expected is not None:
            printed = capsys.readouterr()
            assert _prints(expected, printed.out + printed.err), "\n".join([*block.lines, printed.out, printed.err])


def stand_in(weights, **_) -> Path:
    """A file of random weights instead of the published ones: no test uses the network."""
    path = Path(weights.file)
    model = create_model(weights.model, in_chans=weights.in_chans)
    torch.save(in_layout(model.state_dict(), weights.layout), path)
    return path


def _run(line: str) -> None:
    """The command line, in this process."""
    settings, words = _command(line)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", words)
        main()


def _prints(expected: list[str], printed: str) -> bool:
    """Whether this was printed, whatever the line breaks and spaces; `...` stands for anything."""
    pattern = re.escape(_flat(" ".join(expected))).replace(r"\.\.\.", ".*")
    return re.fullmatch(pattern, _flat(printed)) is not None


@on_each_family
def test_page_builds_the_landmark_and_trains_the_pocket_member(family: str) -> None:
    page, paper = DOCS / f"families/{family}.md", PAPERS[family]
    build = page.read_text(encoding="utf-8").split("## Build and train it")[1].split("## ")[0]
    assert f'create_model("{paper.landmark}"' in build
    assert f"\nconvatlas train {paper.pocket}" in build


@pytest.mark.parametrize("page", [*PAGES, README, *(DOCS / f"{name}.md" for name in GUIDES)], ids=lambda page: page.stem)
def test_commands_parse(page: Path) -> None:
    for block in of_kind(page, "sh"):
        for line in block.lines:
            if page not in PAGES and _command(line)[1][:1] != ["convatlas"]:
                continue  # make, pip, torchrun
            assert _command_parses(line)


@on_each_page
def test_inline_code_holds(page: Path) -> None:
    spans = re.findall(r"`([^`]+)`", prose(page))
    assert spans
    assert [code for code in spans if not _check_code(code)] == []


@on_each_page
def test_no_number_stands_in_prose_that_no_test_reads(page: Path) -> None:
    text = "\n\n".join("\n".join(piece.lines) for piece in of_kind(page, "prose", "text"))
    if page.stem not in PAPERS:
        labels = (cell for table in of_kind(page, "table") for line in table.lines for cell in cells(line))
        text += "\n\n" + " | ".join(cell for cell in labels if not NUMBER.fullmatch(cell))
    assert _stray_numbers(page, text) == []


@on_each_page
def test_blocks_and_tables_are_of_a_kind_that_is_read(page: Path) -> None:
    assert {piece.kind for piece in pieces(page)} <= {"prose", "table", "quote", "python", "sh", "output", "text", "formula"}
    assert page.stem in PAPERS or not of_kind(page, "quote")
    headed = [cells(table.lines[0]) for table in of_kind(page, "table")]
    if page.stem in PAPERS:
        assert all(heading[0] == "member" or heading[1] in ("made of", "fed", "counted as") for heading in headed)


@on_each_page_and_the_readme
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if found := re.fullmatch(r"https://arxiv\.org/abs/(\d+\.\d+)", target):
            assert found[1] in _sources(page), target
            continue
        file, _, anchor = target.partition("#")
        other = (page.parent / file).resolve() if file else page
        assert other.is_relative_to(ROOT) and other.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), flags=re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}, target


# docs/formulas.md

FORMULAS = DOCS / "formulas.md"


def formula_blocks() -> list[tuple[list[str], Piece]]:
    """Each formula block's lines with the table that works it out."""
    parts = [piece for piece in pieces(FORMULAS) if piece.kind != "prose"]
    found = [(piece.lines, after) for piece, after in pairwise(parts) if piece.kind == "formula"]
    assert all(after.kind == "table" for _, after in found)
    return found


def evaluate(lines: list[str], given: dict[str, float]) -> dict[str, float]:
    """The given values with those that the formulas add, line by line."""
    values: dict[str, float] = dict(given)
    for line in lines:
        name, _, expression = line.partition(" = ")
        values[name] = eval(expression, {"floor": math.floor, "ceil": math.ceil, "log": math.log, "max": max}, values)
    return values


def value(cell: str) -> float:
    return float(cell.replace(",", ""))


def _numbers(heading: list[str], line: str) -> dict[str, str]:
    return {name: cell for name, cell in zip(heading, cells(line), strict=True) if NUMBER.fullmatch(cell)}


def test_every_row_follows_from_its_formula() -> None:
    assert len(formula_blocks()) == len(of_kind(FORMULAS, "table"))
    for lines, table in formula_blocks():
        heading = cells(table.lines[0])
        results = [line.partition(" = ")[0] for line in lines]
        assert len(table.lines) > 2 and results[-1] in heading
        assert set(heading) <= {*re.findall(r"[a-z_]+", " ".join(lines)), "layer", "stage", "block", "network"}
        for line in table.lines[2:]:
            written = _numbers(heading, line)
            values = evaluate(lines, {k: value(v) for k, v in written.items() if k not in results})
            wrong = {k: values[k] for k in results if k in written and not same(values[k], written[k], rounded="." in written[k])}
            assert not wrong, line


def _formula(result: str) -> list[str]:
    (lines,) = (lines for lines, _ in formula_blocks() if lines[-1].startswith(f"{result} = "))
    return lines


def worked(result: str) -> list[dict[str, str]]:
    """The rows of the table after the block that ends with `result`."""
    (table,) = (table for lines, table in formula_blocks() if lines == _formula(result))
    return [_numbers(cells(table.lines[0]), line) for line in table.lines[2:]]


def test_formulas_are_those_of_the_code() -> None:
    for size, kernel, stride, padding, dilation in [(224, 7, 2, 3, 1), (31, 3, 2, 1, 1), (55, 3, 2, 0, 1), (32, 3, 1, 2, 2)]:
        window = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
        expected = conv_output_size(size, **window)
        assert evaluate(_formula("output"), {"size": size, **window})["output"] == expected
        conv = nn.Conv2d(1, 1, kernel, stride, padding, dilation, device="meta")
        assert conv(torch.empty(1, 1, size, size, device="meta")).shape[-1] == expected
    for groups, bias in [(1, 1), (4, 0), (12, 1)]:
        given = {"in_channels": 12, "out_channels": 24, "kernel": 5, "groups": groups, "bias": bias, "map": 9}
        found = evaluate(_formula("macs"), given)
        conv = nn.Conv2d(12, 24, 5, groups=groups, bias=bool(bias), device="meta")
        assert found["parameters"] == sum(p.numel() for p in conv.parameters())
        assert found["macs"] == conv_macs(in_channels=12, out_channels=24, kernel_area=25, groups=groups, out_pixels=81)


def test_branches_are_followed_as_in_the_code() -> None:
    rows = [{name: value(cell) for name, cell in r.items()} for r in worked("seen")]
    entering = Extent(rows[0]["before_start"], rows[0]["before_stop"], int(rows[0]["jump"]))
    after = [through_window(entering, kernel=int(r["kernel"]), padding=int(r["padding"])) for r in rows]
    assert [(r["start"], r["stop"]) for r in rows] == [(extent.start, extent.stop) for extent in after]
    joined = union(after)
    assert (joined.start, joined.stop) == (min(r["start"] for r in rows), max(r["stop"] for r in rows))
    ends = [r.receptive_field for r in traced("googlenet.paper").layers if r.name.startswith("stages.0.inception0.")]
    assert max(ends) == joined.receptive_field


def test_scaling_is_that_of_the_code_and_of_the_published_networks() -> None:
    for r in worked("cost"):
        assert (value(r["alpha"]), value(r["beta"]), value(r["gamma"])) == (ALPHA, BETA, GAMMA)
        assert same(cost_factor(value(r["phi"])), r["cost"], rounded=True)
    for r in worked("scaled_width"):
        assert scaled_width(int(r["width"]), value(r["factor"])) == int(r["scaled_width"])
    for r in worked("scaled_depth"):
        assert scaled_depth(int(r["depth"]), value(r["factor"])) == int(r["scaled_depth"])
    (table,) = (table for _, table in formula_blocks() if cells(table.lines[0])[0] == "network")
    rows = {line.split("`")[1]: _numbers(cells(table.lines[0]), line) for line in table.lines[2:]}
    expected = {f"efficientnet_b{member}": (s.depth, s.width, s.resolution) for member, s in PUBLISHED.items()}
    assert {name: tuple(value(r[k]) for k in ("depth", "width", "resolution")) for name, r in rows.items()} == expected


def _named_layer(table: Piece, line: str):
    """The module, its record, and the row's numbers, for a row that names a network and a layer; else None."""
    named = re.findall("`([^`]+)`", line)
    if len(named) != 2:
        return None
    name, layer = named
    (record,) = (record for record in traced(name).layers if record.name == layer)
    return dict(on_meta(name).named_modules())[layer], record, _numbers(cells(table.lines[0]), line)


def _first(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]


def test_layers_named_in_tables_are_those_of_the_networks() -> None:
    compared = 0
    for lines, table in formula_blocks():
        for found in filter(None, (_named_layer(table, line) for line in table.lines[2:])):
            module, record, written = found
            if "seen" in written:
                window = [_first(getattr(module, name)) for name in ("kernel_size", "padding")]
                expected, columns = [*window, record.receptive_field, record.jump], ["kernel", "padding", "seen", "jump"]
            elif "size" in written:
                window = [_first(getattr(module, name)) for name in ("kernel_size", "stride", "padding", "dilation")]
                expected = [record.input_shape[1], *window, record.output_shape[1]]
                columns = ["size", "kernel", "stride", "padding", "dilation", "output"]
            else:
                shape = (*record.output_shape, 1)
                expected = [record.input_shape[0], shape[0], shape[1], record.params, record.macs]
                columns = ["in_channels", "out_channels", "map", "parameters", "macs"]
            assert [int(written[name].replace(",", "")) for name in columns] == expected, lines
            compared += 1
    assert compared > 5


def test_the_receptive_field_is_followed_through_every_layer_of_vgg16() -> None:
    rows = worked("next_jump")
    windows = [
        (i + 1, _first(m.kernel_size), _first(m.stride))
        for i, stage in enumerate(on_meta("vgg16").stages)
        for m in stage.children()
        if isinstance(m, (nn.Conv2d, nn.MaxPool2d))
    ]
    assert [(int(r["stage"]), int(r["kernel"]), int(r["stride"])) for r in rows] == windows
    assert (rows[0]["before"], rows[0]["jump"]) == ("1", "1")
    for here, after in pairwise(rows):
        assert (here["receptive_field"], here["next_jump"]) == (after["before"], after["jump"])


def test_dense_growth_is_that_of_densenet121() -> None:
    rows = worked("channels")
    entering = [
        [layer.norm1.num_features for layer in stage.children() if type(layer).__name__ == "DenseLayer"]
        for stage in on_meta("densenet121").stages
    ]
    ends = [shape[0] for shape in golden_rows()["densenet121"].stage_shapes]
    expected = [(inputs[0], len(inputs), inputs[1] - inputs[0], end) for inputs, end in zip(entering, ends, strict=True)]
    assert [
        tuple(int(r[k].replace(",", "")) for k in ("entering", "layers", "growth_rate", "channels")) for r in rows
    ] == expected


# docs/adding-a-family.md

ADDING = DOCS / "adding-a-family.md"


def test_the_table_of_places_names_every_package() -> None:
    places = {
        code for table in of_kind(ADDING, "table") for line in table.lines for code in re.findall("`(src/convatlas/[^`]*)`", line)
    }
    packages = {f"src/convatlas/{p.name}" for p in (ROOT / "src/convatlas").iterdir() if (p / "__init__.py").exists()}
    missing = {package for package in packages if not any(place.startswith(f"{package}/") for place in places)}
    assert packages and not missing


def test_the_contract_between_families_is_quoted_and_complete() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (contract,) = (c for c in contracts if c["type"] == "independence")
    assert f"*{contract['name']}*" in ADDING.read_text(encoding="utf-8")
    assert contract["modules"] == [f"convatlas.models.{family}" for family in (*PAPERS, *OURS)]
    assert set(convatlas.__all__) >= {"create_model", "trace"}

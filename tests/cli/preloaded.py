"""What the commands import when they are called, and torch at the first step of an optimizer (most of a second); see zygote.py."""

import gc
from importlib import import_module

import PIL.Image
import sklearn.datasets  # noqa: F401
import torch
import torch._dynamo
import torch.fx.experimental.symbolic_shapes

import convatlas.cli.main
import convatlas.cli.working
import convatlas.data.loading
import convatlas.report.html
import convatlas.training.apply
import convatlas.training.inference
import convatlas.training.loop  # noqa: F401

PIL.Image.init()
import_module("typer._adapters")  # pydantic, which typer imports when it reads the words of a command
torch.set_num_threads(1)
# Otherwise each command's first collection looks through all that was imported: a tenth of a second, and memory that is no longer shared.
gc.collect()
gc.freeze()

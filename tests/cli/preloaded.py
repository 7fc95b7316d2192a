"""What the commands import when they are called; see zygote.py."""

import sklearn.datasets  # noqa: F401
import torch

import convatlas.cli.main
import convatlas.cli.working
import convatlas.data.loading
import convatlas.report.html
import convatlas.training.apply
import convatlas.training.inference
import convatlas.training.loop  # noqa: F401

torch.set_num_threads(1)

"""The plain twins of the CIFAR-10 ResNets (He et al. 2015, section 4.2)."""

import pytest
import torch

from convatlas.models.registry import create_model, list_models


@pytest.mark.parametrize("name", list_models("*.plain"))
def test_a_plain_twin_has_the_same_parameters(name):
    with torch.device("meta"):
        plain, residual = create_model(name), create_model(name.removesuffix(".plain"))
    shapes = [{path: p.shape for path, p in model.named_parameters()} for model in (plain, residual)]
    assert shapes[0] == shapes[1], "option A has no parameters"


def test_a_plain_twin_computes_what_the_residual_one_does_without_its_shortcuts():
    plain, residual = create_model("resnet20.plain").eval(), create_model("resnet20").eval()
    plain.load_state_dict(residual.state_dict())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.allclose(plain(x), residual(x))
        for module in residual.modules():
            if type(module).__name__ == "BasicBlock":
                module.shortcut.register_forward_hook(lambda module, args, output: output * 0)
        assert torch.equal(plain(x), residual(x))

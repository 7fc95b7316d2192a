"""Model names as configurations: their canonical form, what they build, and what is refused."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from convatlas.errors import UserError
from convatlas.models.configuration import CONFIGURATION_KEYS, configured, is_configuration_key, is_user_file, model_name, parsed
from convatlas.models.families import FAMILIES, FAMILY_OF, structure_of
from convatlas.models.registry import MODELS, create_model, find_variant
from convatlas.models.resnet import PlainBlock
from convatlas.models.settings import keys_of

SMALL = {"num_classes": 10, "image_size": 32}


def small(name, **options):
    torch.manual_seed(0)
    return create_model(name, **{**SMALL, **options}).eval()


def count(name, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **{**SMALL, **options}).parameters())


# Canonical names


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("resnet.pocket", "resnet.pocket"),
        ("resnet{}", "resnet.pocket"),
        ({"family": "resnet"}, "resnet.pocket"),
        ("resnet{depths: [3,3,3], act: tanh}", 'resnet{"act": "tanh", "depths": [3, 3, 3]}'),
        ('resnet {"act": "tanh", "depths": [3, 3, 3]}', 'resnet{"act": "tanh", "depths": [3, 3, 3]}'),
        ({"family": "resnet", "depths": [3, 3, 3], "act": "tanh"}, 'resnet{"act": "tanh", "depths": [3, 3, 3]}'),
        ({"variant": "resnet.pocket", "depths": (3, 3, 3), "act": "tanh"}, 'resnet{"act": "tanh", "depths": [3, 3, 3]}'),
        ("resnet{width: 1}", 'resnet{"width": 1.0}'),
        ("resnet{norm: null, act: ~}", "resnet.pocket"),
        ("googlenet{act: tanh}", 'googlenet{"act": "tanh"}'),
        ({"family": "googlenet", "act": "tanh"}, 'googlenet.pocket{"act": "tanh"}'),
        ({"variant": "net.py:make", "norm": "none"}, 'net.py:make{"norm": "none"}'),
        ("./a/../net.py:make{}", "a/../net.py:make"),
    ],
)
def test_equal_configurations_have_equal_names(given, canonical):
    assert model_name(given) == canonical
    assert model_name(canonical) == canonical


def test_a_yaml_file_is_resolved_at_once(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text("family: resnet\ndepths: [3, 3, 3]\nshortcut: false\nnorm: none\nact: tanh\n")
    inline = "resnet{depths: [3,3,3], shortcut: false, norm: none, act: tanh}"
    assert model_name(str(path)) == model_name(inline)
    assert model_name(f"{path}{{act: relu}}") == model_name(inline.replace("tanh", "relu"))
    path.unlink()
    assert find_variant(model_name(inline)).family == "resnet"


def test_settings_are_added_replaced_and_taken_away():
    name = configured("resnet.pocket", {"act": "tanh", "width": 2})
    assert name == 'resnet{"act": "tanh", "width": 2.0}'
    assert configured(name, {"act": None}) == 'resnet{"width": 2.0}'
    assert configured({"family": "resnet", "norm": "none"}, {"norm": "layer"}) == 'resnet{"norm": "layer"}'


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "act": st.sampled_from(["relu", "tanh", "none"]),
            "norm": st.sampled_from(["batch", "layer", "none"]),
            "width": st.floats(0.1, 4),
            "dropout": st.floats(0, 0.9),
            "shortcut": st.booleans(),
            "depths": st.lists(st.integers(1, 3), min_size=3, max_size=3),
        },
    )
)
def test_a_name_says_all_that_it_was_made_of(settings):
    name = model_name({"family": "resnet", **settings})
    assert parsed(name) == ("resnet.pocket", settings)


def test_the_keys_of_all_families():
    assert {"norm", "width", "growth_rate", "depths"} <= set(CONFIGURATION_KEYS)
    assert is_configuration_key("act") and not is_configuration_key("lr")
    for family in FAMILIES:
        assert set(keys_of(family)) <= set(CONFIGURATION_KEYS)
    assert structure_of("lenet") == {}
    assert set(structure_of("resnet")) == {"depths", "widths", "stem"}
    assert set(structure_of("convnext")) == {"depths", "widths", "layer_scale", "deviation"}


def test_families_have_every_variant_and_each_a_member():
    assert list(FAMILY_OF) == list(MODELS)
    assert {FAMILY_OF[name]: variant.family for name, variant in MODELS.items()} == {family: family for family in FAMILIES}
    for family, each in FAMILIES.items():
        assert each.member in each.variants and MODELS[each.member].image_size == 32, family


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("resnet{dephts: [1]}", "no setting of resnet called 'dephts'. Did you mean depths"),
        ("vgg{growth_rate: 3}", "no setting of vgg called 'growth_rate'"),
        ("resnet{depths: [1,2]}", "depths has 2 and widths has 3 as in resnet.pocket, and both have one entry for each stage"),
        ("resnet{depths: [1,2], widths: [8]}", "Make them equally long"),
        ("resnet{depths: []}", "depths is []. Give a list of 1 to 16"),
        ("resnet{depths: 3}", "depths is 3"),
        ("resnet{depths: [1, 2.5, 1]}", "depths[1] is 2.5. Give a whole number from 1 to 500"),
        ("resnet{depths: [true, 1, 1]}", "depths[0] is True"),
        ("resnet{widths: [0, 1, 1]}", "widths[0] is 0"),
        ("resnet{width: 0}", "width is 0. Give a number from 0.0001 to 64"),
        ("resnet{width: 1e400}", "width is inf"),
        ("resnet{width: wide}", "width is 'wide'"),
        ("resnet{dropout: 1}", "dropout is 1. Give a number from 0 up to, but not including, 1"),
        ("resnet{norm: bach}", "no norm called 'bach'. Did you mean batch"),
        ("resnet{act: [relu]}", "no act called"),
        ("resnet{shortcut: no}", "shortcut is 'no'. Give true or false"),
        ("resnet{kernel_size: 4}", "kernel_size is 4. Give an odd number"),
        ("resnet{drop_path: 0.1}", "resnet.pocket has no drop path. Leave drop_path out; efficientnet, convnext have it"),
        ("convnext{drop_path: 0.1, shortcut: false}", "drop_path drops what shortcuts pass by"),
        (
            "vgg{shortcut: false}",
            "vgg.pocket has no shortcuts that could be taken away. Leave shortcut out; resnet, efficientnet",
        ),
        ("resnet50{shortcut: false}", "bottleneck blocks have no form without shortcut"),
        ("lenet{width: 2}", "lenet.pocket has no widths to multiply"),
        ("alexnet{widths: [1, 2, 3]}", "Give a list of 5"),
        ("compact{pooled: [1, 1, 1]}", "pooled is [1, 1, 1]. Give a list of true and false"),
        ("net.py:make{width: 2}", "no setting of a network from a file called 'width'"),
        ("resnet18x{act: tanh}", "no model called 'resnet18x'. Did you mean resnet18"),
        ("resnet", "no model called 'resnet'"),
        ("resnet{act: tanh", "no model called"),
        ("resnet{act: tanh, act: relu}", "the key 'act' stands twice"),
        ("resnet{[1]: 2}", "a key is no text"),
        ("net.py", "names no factory"),
        ("none.yaml", "none.yaml does not exist"),
        ({"family": "resnet", "variant": "resnet20"}, "must say either family or variant"),
        ({"act": "tanh"}, "must say either family or variant"),
        ({"family": "resnett"}, "no family called 'resnett'. Did you mean resnet"),
        ({"family": ["resnet"]}, "no family called"),
        ({"variant": "resnet{act: tanh}"}, "variant is 'resnet{act: tanh}'"),
        ({"variant": "a.yaml"}, "variant is 'a.yaml'"),
        (3, "is 3. Give a name"),
        ("x" * 20_000, "20,000 letters"),
    ],
)
def test_what_is_refused(given, said):
    with pytest.raises(UserError) as refused:
        model_name(given, where="plan.yaml: model")
    assert said in str(refused.value)


def test_too_many_parameters_are_refused_before_any_is_made():
    with pytest.raises(UserError, match="558,012,720,474 parameters"):
        create_model("resnet{widths: [60000, 60000, 60000]}")


def test_widths_that_do_not_fit_together_are_torchs_words_in_a_line():
    with pytest.raises(UserError, match=r"cannot be built: .*divisible by groups"):
        create_model("resnext50_32x4d{widths: [100, 100, 100, 100]}")


def test_only_python_files_are_users():
    assert is_user_file("net.py:make{norm: none}") and is_user_file("net.py")
    assert not is_user_file("resnet{act: tanh}") and not is_user_file("net.yaml")


# What is built


EVERY = [
    "resnet{depths: [3,3,3], shortcut: false, norm: none, act: tanh}",
    "resnet{depths: [1,1], widths: [8, 12], stem: 8, dropout: 0.2}",
    "resnext50_32x4d{width: 0.3}",
    "vgg{kernel_size: 5, width: 0.5}",
    "vgg11_bn{norm: group, width: 0.1}",
    "densenet{norm: none, growth_rate: 7.5}",
    "densenet{norm: layer, act: gelu, kernel_size: 5}",
    "googlenet{norm: group, act: silu, width: 0.25, kernel_size: 1}",
    "googlenet.pocket{stem: [4, 4, 8], kernel5: 5}",
    "efficientnet{shortcut: false, norm: layer, act: gelu, width: 0.7}",
    "convnext{shortcut: false, norm: batch, act: relu, kernel_size: 3}",
    "convnext{norm: group, width: 1.3, drop_path: 0.2}",
    "alexnet.paper{width: 0.1}",
    "lenet{act: relu}",
    "compact{norm: layer, width: 0.5, kernel_size: 5}",
]


@pytest.mark.parametrize("name", EVERY)
def test_a_configured_network_keeps_the_contract(name):
    model, x = small(name), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        y = model(x)
        assert torch.equal(y, model.head(model.stages(model.stem(x))))
    assert y.shape == (2, 10) and y.isfinite().all()
    assert count(name) == sum(p.numel() for p in model.parameters())
    with torch.device("meta"):
        assert all(p.is_meta for p in create_model(name, **SMALL).parameters())
    again = small(model_name(name)).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_of_a_configured_network_learns(name):
    torch.manual_seed(0)
    model = small(name, drop_rate=0.0).train()
    answers = model.training_logits(torch.randn(4, 3, 32, 32))
    labels = torch.tensor([0, 1, 2, 3])
    sum(weight * nn.functional.cross_entropy(logits, labels) for weight, logits in answers).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_configuration_that_changes_nothing_builds_the_member(family):
    member = FAMILIES[family].member
    own, same = (
        small(member).state_dict(),
        small({"lenet": "lenet{dropout: 0}"}.get(family, f"{member}{{width: 1}}")).state_dict(),
    )
    assert all(torch.equal(value, same[key]) for key, value in own.items()) and len(own) == len(same)


def test_a_plain_network_is_that_of_the_paper():
    model, plain = small("resnet{shortcut: false}"), small("resnet20.plain")
    assert all(isinstance(block, PlainBlock) for block in model.units())
    assert [p.shape for p in model.parameters()] == [p.shape for p in plain.parameters()]
    assert count("resnet20.plain{shortcut: true}") == count("resnet20")


@pytest.mark.parametrize("family", ["efficientnet", "convnext"])
def test_without_shortcuts_a_block_of_zeros_gives_zeros(family):
    x = torch.randn(1, 3, 32, 32)
    for name, passed in ((f"{family}.pocket", True), (f"{family}{{shortcut: false}}", False)):
        model = small(name)
        block = model.stages[1][-1]
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.zero_()
            before = model.stages[1][:-1](model.stages[0](model.stem(x)))
            after = block(before)
        assert torch.equal(after, before if passed else torch.zeros_like(before))


def test_without_shortcuts_no_path_is_dropped():
    with pytest.raises(UserError, match="drop path drops what shortcuts pass by"):
        create_model("convnext{shortcut: false}", drop_path_rate=0.1)
    model = small("efficientnet_b0{shortcut: false}").train()
    assert all(block.drop_path.rate == 0 and not block.has_shortcut for block in model.units())


def test_dropout_is_the_heads_and_the_caller_has_the_last_word():
    assert small("resnet{dropout: 0.25}").head.dropout.p == 0.25
    assert small("resnet{dropout: 0.25}", drop_rate=0.5).head.dropout.p == 0.5
    assert {m.p for m in small("vgg{dropout: 0.25}").modules() if isinstance(m, nn.Dropout)} == {0.25}


def test_a_fractional_growth_rate_is_dealt_out():
    model = small("densenet{growth_rate: 12.5}")
    added = [m.conv2.out_channels for stage in model.stages for name, m in stage.named_children() if name.startswith("layer")]
    assert set(added) == {12, 13}
    assert sum(added) == int(12.5 * len(added) + 0.5)
    assert model.stem[0].out_channels == 25


def test_widths_keep_to_groups_and_never_vanish():
    model = small("resnext50_32x4d{width: 0.001}")
    assert {m.groups for m in model.modules() if isinstance(m, nn.Conv2d)} == {1, 32}
    assert model.stem[0].conv.out_channels == 1
    assert small("convnext{width: 0.0001}")(torch.randn(1, 3, 32, 32)).shape == (1, 10)


def test_a_configured_variant_is_for_the_variants_images():
    found = find_variant("efficientnet_b4{act: relu}")
    assert (found.family, found.image_size, found.num_classes) == ("efficientnet", 380, 1000)
    assert find_variant("lenet5{act: relu}").in_chans == 1


def test_published_weights_are_for_variants():
    with pytest.raises(UserError, match="weights are published for variants"):
        create_model("resnet18{act: tanh}", pretrained=True)


def test_names_are_json_after_the_base():
    name = model_name("resnet{depths: [3,3,3], act: tanh}")
    assert json.loads(name.removeprefix("resnet")) == {"act": "tanh", "depths": [3, 3, 3]}

import re
from dataclasses import replace

import pytest

from convatlas.errors import UserError
from convatlas.study.plan_file import Study, from_mapping, read_study, seeds_of

GOOD = """
question: Which?   # a comment
recipe: {data: digits, lr: 1e-3, epochs: 2}
factors:
  model: [resnet.pocket, {family: resnet, shortcut: false, norm: none}]
seeds: [3, 1]
hold: {params: first, tolerance: 0.05}
"""


def written(folder, text, name="plan.yaml"):
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_file_of_yaml_is_a_study(tmp_path):
    study = read_study(written(tmp_path, GOOD))
    assert study.question == "Which?"
    assert study.recipe == {"data": "digits", "lr": 0.001, "epochs": 2}
    assert study.seeds == [3, 1]
    assert study.factors["model"][1] == {"family": "resnet", "shortcut": False, "norm": "none"}
    assert seeds_of(study, "x") == (3, 1)
    assert seeds_of(replace(study, seeds=3), "x") == (0, 1, 2)


@pytest.mark.parametrize("made", ["study = Study", "def study(): return Study"])
def test_a_file_of_python_is_the_same(tmp_path, made):
    arguments = "(question='Which?', recipe={'data': 'digits'}, factors={'lr': [0.1, 0.2]})"
    name = written(tmp_path, f"from convatlas import Study\n{made}{arguments}\n", "plan.py")
    assert read_study(f"{name}:study") == Study("Which?", {"data": "digits"}, {"lr": [0.1, 0.2]})
    with pytest.raises(UserError, match="gives a dict. It must be, or give, a convatlas Study"):
        read_study(f"{written(tmp_path, 'study = {}', 'other.py')}:study")


BAD = {
    "questoin: a": "has an unknown key 'questoin'. Did you mean 'question'",
    "question: Why?": "lacks the key 'recipe'",
    "": "holds no study",
    "- a": "holds no study",
    "a: &x [*x]": "an alias",
    "question: !!python/object:os.system x": "a tag",
    "question: a\nquestion: b": "stands twice",
    "question: [": "expected",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_study_is_refused_in_a_line(tmp_path, text):
    with pytest.raises(UserError, match=re.escape(BAD[text])) as caught:
        read_study(written(tmp_path, text))
    assert "\n" not in str(caught.value)


WRONG = [
    ({"question": 3}, "question is '3'. Give a text"),
    ({"question": " "}, "the question is empty"),
    ({"recipe": []}, "recipe is '[]'. Give a mapping"),
    ({"factors": 3}, "factors is '3'"),
    ({"design": "half"}, "design is 'half'. Choose full or one-at-a-time"),
    ({"seeds": 0}, "seeds is 0"),
    ({"seeds": True}, "seeds is 'True'"),
    ({"seeds": []}, "there are 0 seeds"),
    ({"seeds": [1, 1]}, "the seed 1 stands twice"),
    ({"seeds": [-1]}, "'-1' is no seed"),
    ({"seeds": [2**63]}, "is no seed"),
    ({"seeds": ["a"]}, "'a' is no seed"),
    ({"threads": 0}, "threads is 0. Give 1 to 1024"),
    ({"processes": 65}, "processes is 65"),
    ({"equivalence": -1}, "equivalence is -1"),
    ({"watch_test": 1}, "watch_test is '1'. Give true or false"),
    ({"tune": 3}, "tune is '3'"),
    ({"name": ""}, "the name is ''"),
    ({"name": "../up"}, "the name is '../up'"),
    ({"name": "a/b"}, "the name is 'a/b'"),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_each_part_is_checked(change, said):
    content = {"question": "Which?", "recipe": {}, "factors": {"lr": [1, 2]}, **change}
    with pytest.raises(UserError, match=re.escape(said)):
        from_mapping(content, where="plan.yaml")

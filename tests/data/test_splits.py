import pytest

from convatlas.data.splits import hold_out


def labels_of(counts):
    return [label for label, count in enumerate(counts) for _ in range(count)]


@pytest.mark.parametrize(
    ("counts", "share", "held"),
    [((10, 20), 0.1, (1, 2)), ((10, 20), 0.0, (0, 0)), ((1, 2, 3), 0.1, (0, 1, 1)), ((4, 4), 0.99, (3, 3))],
)
def test_each_class_gives_its_share_but_never_all_of_itself(counts, share, held):
    labels = labels_of(counts)
    kept, out = hold_out([str(i) for i in range(len(labels))], labels, share=share, seed=0)
    assert sorted(kept + out) == list(range(len(labels)))
    assert tuple(sum(labels[i] == c for i in out) for c in range(len(counts))) == held


def test_the_split_follows_the_names_whatever_their_order():
    names, labels = [f"{i}.png" for i in range(40)], labels_of((20, 20))
    _, out = hold_out(names, labels, share=0.25, seed=3)
    _, reversed_out = hold_out(names[::-1], labels[::-1], share=0.25, seed=3)
    assert {names[i] for i in out} == {names[::-1][i] for i in reversed_out}
    assert {names[i] for i in out} != {names[i] for i in hold_out(names, labels, share=0.25, seed=4)[1]}


def test_adding_a_file_moves_at_most_one_other_across():
    names = [f"{i}.png" for i in range(40)]
    before = {names[i] for i in hold_out(names, [0] * 40, share=0.25, seed=0)[1]}
    longer = [*names, "new.png"]
    after = {longer[i] for i in hold_out(longer, [0] * 41, share=0.25, seed=0)[1]}
    assert len(before - after) <= 1
    assert len(after - before) <= 1

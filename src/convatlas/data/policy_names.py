"""The names of the augmentation policies, for what does without torch. They are made in `convatlas.data.policies`."""

POLICIES: dict[str, str] = {
    "none": "the middle square, nothing is drawn",
    "light": "a random, nearly square cut, half of them mirrored where flips are on",
    "trivial": "light, and one operation of any strength (TrivialAugment)",
    "rand": "light, and two operations of about one strength (RandAugment)",
}
"""Each policy in a few words, from the weakest on."""
OPERATIONS_DRAWN = ("none", "trivial", "rand")
"""What may be drawn of operations alone, where images are shifted and mirrored and not cut."""

"""How much memory training takes, from what its parts take. All in bytes."""

OPTIMIZER_COPIES = {"sgd": 1, "adamw": 2}
"""Numbers that an optimizer keeps for each that is trained: the momentum; the means of the gradient and of its square."""


def training_bytes(*, weights: int, trained: int, peak: int, kept_once: int, batch_size: int, optimizer: str = "adamw") -> int:
    """The estimate for one step of training on `batch_size` images.

    `weights` is what the network itself takes, `trained` the part of it that has gradients; `peak` what one image takes at the
    fullest moment of the backward pass, `kept_once` what is kept of a batch of any size. The library's own memory and the
    workspaces of its kernels are not in it.
    """
    optimizer_state = trained * OPTIMIZER_COPIES[optimizer]
    return weights + trained + optimizer_state + kept_once + batch_size * peak

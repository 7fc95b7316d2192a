"""The test accuracy after every epoch, for a study that shows what choosing by it would have feigned. Training never reads it."""

from pathlib import Path

from convatlas.records import codec, storage
from convatlas.records.run import TEST_EPOCHS, TestEpoch, read_test_epochs
from convatlas.training.evaluate import predict_logits, score
from convatlas.training.state import Run


def keep_test_epoch(run: Run) -> None:
    """Look at the test split, for the epoch that has just ended, and write what was seen."""
    data = run.data
    average = run.recipe.test_average
    logits = predict_logits(run.judged, data.test, mean=data.mean, std=data.std, average=average, size=data.image_size)
    _, top1 = score(logits, data.test.labels)
    storage.append_line(run.folder / TEST_EPOCHS, codec.to_line(TestEpoch(run.position.epoch + 1, top1)))


def forget_test_epochs(folder: Path, *, after: int) -> None:
    """Drop later epochs: they will be trained, and looked at, again."""
    path = folder / TEST_EPOCHS
    if path.exists():
        kept = [each for each in read_test_epochs(path) if each.epoch <= after]
        storage.write_text(path, "".join(codec.to_line(each) for each in kept))

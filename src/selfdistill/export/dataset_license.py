"""Licenses of well-known data sets, and their names on the Hugging Face Hub."""

import re
from pathlib import Path

_UNKNOWN = "not known to this program; ask where the data come from"
_NONE = "its authors state none; cite them"
_MEDMNIST = "CC BY 4.0, if this is MedMNIST's file of that name (https://medmnist.com)"
_BY_NAME = {
    "digits": (
        "CC BY 4.0: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, "
        "UCI Machine Learning Repository (https://archive.ics.uci.edu/dataset/80)"
    ),
    "cifar10": f"{_NONE}: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images",
    "cifar100": f"{_NONE}: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images",
    "fashion_mnist": "MIT (https://github.com/zalandoresearch/fashion-mnist)",
    "svhn": "for non-commercial use only (http://ufldl.stanford.edu/housenumbers)",
}
_BY_FILE = {
    f"{name}mnist": _MEDMNIST
    for name in (
        *("path", "oct", "pneumonia", "retina", "breast", "blood", "tissue"),
        *("organa", "organc", "organs"),
    )
} | {"dermamnist": _MEDMNIST.replace("CC BY 4.0", "CC BY-NC 4.0")}
_ON_THE_HUB = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "mnist": "ylecun/mnist",
    "svhn": "ufldl-stanford/svhn",
}


def hub_name(data: str) -> str:
    """The name, owner/name, of a data set on the Hugging Face Hub; "" of others.

    Args:
        data: its name in a recipe.
    """
    kind, _, name = data.partition(":")
    if kind == "hf" and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        stored = Path(name).exists() or name.endswith(".parquet")
        return "" if stored else name
    return _ON_THE_HUB.get(data, "")


def dataset_license(data: str) -> str:
    """The license of a data set, for a model card; `data` is its name in a recipe."""
    kind, _, path = data.partition(":")
    if kind == "npz":  # bloodmnist.npz, bloodmnist_64.npz
        return _BY_FILE.get(Path(path).stem.partition("_")[0], _UNKNOWN)
    return _BY_NAME.get(data, _UNKNOWN)

"""The licenses of data, as far as this program is sure of them."""

from pathlib import Path

_UNKNOWN = "not known to this program; ask where the images come from"
_NONE = "its authors state none; cite them"
_MEDMNIST = "CC BY 4.0, if this is MedMNIST's file of that name (https://medmnist.com)"
_KNOWN = {
    "digits": (
        "CC BY 4.0: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, "
        "UCI Machine Learning Repository (https://archive.ics.uci.edu/dataset/80)"
    ),
    "cifar10": f"{_NONE}: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images",
    "cifar100": f"{_NONE}: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images",
    "fashion_mnist": "MIT (https://github.com/zalandoresearch/fashion-mnist)",
    "svhn": "for non-commercial use only (http://ufldl.stanford.edu/housenumbers)",
}
_FILES = {
    f"{name}mnist": _MEDMNIST
    for name in (
        *("path", "oct", "pneumonia", "retina", "breast", "blood", "tissue"),
        *("organa", "organc", "organs"),
    )
} | {"dermamnist": _MEDMNIST.replace("CC BY 4.0", "CC BY-NC 4.0")}


def dataset_license(data: str) -> str:
    """What a model card says of the license of data, by the name that a recipe has for them."""
    kind, _, path = data.partition(":")
    if kind == "npz":  # bloodmnist.npz, bloodmnist_64.npz
        return _FILES.get(Path(path).stem.partition("_")[0], _UNKNOWN)
    return _KNOWN.get(data, _UNKNOWN)

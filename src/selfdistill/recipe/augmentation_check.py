"""Whether data and method can bear the augmentation that a recipe asks for."""

from ..core import ConfigError, Method
from ..data import ImageData
from .document import window_option
from .schema import Recipe


def check_augmentation(recipe: Recipe, data: ImageData, method: Method) -> None:
    """Refuse augmentation that targets do not follow, or that a method cannot learn from.

    Raises:
        ConfigError: boxes and automatic augmentation, labels and mosaics, mixtures of what has no
            class each, channels that the operations do not know, or a method that reads one class
            an image.
    """
    auto = "--auto-augment" if recipe.auto_augment != "off" else ""
    erasing = "--erase-probability" if recipe.erase_probability else ""
    mixed = {"--mixup": recipe.mixup, "--cutmix": recipe.cutmix}
    mixing = " and ".join(option for option, value in mixed.items() if value)
    if (option := auto or erasing) and not data.train.targets.follows_auto:
        raise ConfigError(
            f"{data.train.targets.unit} do not follow {option}; leave it out, or use --max-zoom, "
            "--flip and --color-jitter"
        )
    if (option := window_option(recipe)) and not data.train.targets.follows_windows:
        raise ConfigError(
            f"{option} is for images with boxes or masks, and in '{data.name}' "
            f"{data.train.targets.unit} have a class; leave it out"
        )
    if any(recipe.hsv_jitter) and data.train.shape[0] != 3:
        raise ConfigError(
            f"--hsv-jitter is for images of three channels, and these have {data.train.shape[0]}; "
            "leave it out, or use --color-jitter"
        )
    if auto and data.train.shape[0] not in (1, 3):
        raise ConfigError(
            f"{auto} is for images of one or three channels, and these have {data.train.shape[0]}; "
            "leave it out"
        )
    if mixing and data.train.targets.unit != "images":
        raise ConfigError(
            f"the labels that {mixing} would mix are of images, and in '{data.name}' "
            f"{data.train.targets.unit} have them; leave it out"
        )
    if mixing and not method.needs.mixtures:
        unread = method.needs.unlabeled or method.needs.embeddings
        reads = "reads no labels" if unread else "takes each image for one of one class"
        none = mixing.replace(" and", " 0 and")
        raise ConfigError(
            f"method '{recipe.method}' {reads} and learns from no mixtures; give {none} 0"
        )

"""The usage section of the model card of a folder for timm."""

from ..data import ImageData
from ..data.preparation import Preparation, preparation_of
from .usage_snippet import PRINT, preparation_code

_NETWORK = """{imports}
network = timm.create_model("local-dir:.", pretrained=True).eval()
config = timm.data.resolve_model_data_config(network)
{images}
with torch.no_grad():
    {name} = network(images)
{classes}{output}"""
_TRANSFORMED = """transform = timm.data.create_transform(**config, is_training=False)
image = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("{mode}")
images = transform(image)[None]  # (B, C, H, W)"""
_PREPARED = """mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
{images}
images = (torch.from_numpy(images).float() / 255 - mean) / std"""
_CLASSES = """classes = network.pretrained_cfg["label_names"]
"""


def timm_code(data: ImageData) -> str:
    """Python code that runs the folder on a picture by timm alone, and prints the prediction.

    Args:
        data: at the image size of the file; `task` is a task of this package.
    """
    preparation, embedding = preparation_of(data), data.task == "embedding"
    imports = ["import timm", "import torch", "from PIL import Image, ImageOps\n"]
    mode = "L" if preparation.shape[0] == 1 else "RGB"
    images = _TRANSFORMED.format(mode=mode)
    if not _takes_pictures(preparation):
        imports = ["import numpy as np", "import timm", "import torch\n"]
        images = _PREPARED.format(images=preparation_code(preparation)[1])
    return _NETWORK.format(
        imports="\n".join(imports),
        images=images,
        name="embedding" if embedding else "logits",
        classes="" if embedding else _CLASSES,
        output=PRINT[data.task],
    )


def timm_sentences(data: ImageData) -> str:
    """Where timm finds the network, and how far its transform is from `data.preparation`."""
    preparation = preparation_of(data)
    where = (
        '`"local-dir:."` is this folder; on the Hugging Face Hub it is `"hf-hub:USER/NAME"`, '
        "by the name of the upload."
    )
    if not _takes_pictures(preparation):
        return where
    where += " A picture of 16 bits is brought to 8 before, and a transparent one put on white."
    differences = _differences(preparation)
    if not differences:
        return f"{where} timm's transform prepares a picture as training did."
    prepare, images = preparation_code(preparation)
    code = f"{prepare}\n{_PREPARED.format(images=images)}"
    return f"""{where} timm's transform prepares a picture nearly as training did:
{" ".join(differences)} These lines prepare it exactly so:

```python
import numpy as np

{code}
```"""


def _takes_pictures(preparation: Preparation) -> bool:
    return preparation.shape[0] in (1, 3)


def _differences(preparation: Preparation) -> list[str]:
    """Sentences on what timm's transform does otherwise."""
    channels, height, width = preparation.shape
    differences = []
    if preparation.fit == "crop":
        differences.append(
            "It rounds the longer side and the corner of the crop otherwise, by one pixel at most."
        )
    if preparation.resize_ratio != 1:
        differences.append(
            f"It enlarges a picture of just {height} × {width} as well, which was left as it is."
        )
    if channels == 1:
        differences.append(
            "Color becomes gray before the resize and not behind it, which moves a pixel by two "
            "levels of 255 at most."
        )
    return differences

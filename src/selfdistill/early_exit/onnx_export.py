"""EarlyExitNetwork inference as an ONNX file whose later stages run for unsure images only."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from onnxscript.optimizer import remove_unused_nodes
from torch import Tensor, nn

from ..core import ArtifactError, ConfigError, DataError, atomic_file
from ..data import EvalLoader, ImageData
from ..export.normalized_input import NormalizedInput
from ..taps import as_map
from .network import EarlyExitNetwork, confidence

_BATCH = 256
_STRAY = 0.001  # of the images


class OnnxAgreement(NamedTuple):
    """An ONNX file beside the module that it was written from.

    Attributes:
        images: how many both were shown.
        same: how many of them left both at one exit, in one class.
        difference: the largest between two logits of an image that left both at one exit.
    """

    images: int
    same: int
    difference: float

    @property
    def holds(self) -> bool:
        """Whether it is the same: an image that is a rounding error from a threshold may differ."""
        return self.images - self.same <= _STRAY * self.images


def export_early_exit_onnx(anytime: EarlyExitNetwork, data: ImageData, path: Path) -> OnnxAgreement:
    """Write an ONNX file, and run it on the test images, else the validation images.

    Args:
        anytime: on the CPU.
        data: that it was trained on.
        path: the file; it appears when it is written and verified.

    Raises:
        ConfigError: the network holds an operation that cannot be traced, or that ONNX has not.
        ArtifactError: the file says something else than the module.
        ResourceError: the file cannot be written.
    """
    shape = data.train.shape
    notes = {"classes": json.dumps(data.classes), "shape": json.dumps(shape), "data": data.name}
    with atomic_file(path) as draft:
        write_early_exit_onnx(anytime, data.mean, data.std, shape, draft, notes=notes)
        agreement = compare_onnx(anytime, data, draft)
        if not agreement.holds:
            raise ArtifactError(
                f"the ONNX file lets {agreement.images - agreement.same} of {agreement.images} "
                "images leave elsewhere, or in another class, than torch does; it was not kept"
            )
    return agreement


def write_early_exit_onnx(
    anytime: EarlyExitNetwork,
    mean: Sequence[float],
    std: Sequence[float],
    shape: Sequence[int],
    path: Path,
    *,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write an ONNX file for one image at a time.

    Its input `images` is (1, C, H, W) float32 in 0 … 1. Its outputs are `logits` (1, K) and `exit`
    (1,) int64, the place of the exit that the image left at, as in `EarlyExitNetwork.names`. An
    exit is a node `If`, one inside the other, so what lies behind the exit that an image leaves at
    is not computed. The file's `metadata_props` name the exits and their thresholds.

    Args:
        anytime: on the CPU.
        mean, std: one number per channel, of pixels in [0, 1], as it was trained with.
        shape: (C, H, W) of an image.
        path: the file.
        notes: further texts by name for `metadata_props`.

    Raises:
        ConfigError: the network holds an operation that cannot be traced, or that ONNX has not.
    """
    network = NormalizedInput(_Start(anytime), mean, std).eval()
    made = _exported(network, torch.zeros(1, *shape))
    remove_unused_nodes(made.model)
    _move_weights(made.model.graph)
    thresholds = json.dumps([round(t, 9) for t in anytime.thresholds])
    about = {"exit_names": json.dumps(anytime.names), "thresholds": thresholds}
    made.model.metadata_props.update({**(notes or {}), **about})
    made.save(path, external_data=False)


def compare_onnx(anytime: EarlyExitNetwork, data: ImageData, path: Path) -> OnnxAgreement:
    """Show both the test images, else the validation images, one by one to the file.

    Raises:
        DataError: there are neither.
    """
    # slow to import, and nothing else needs it
    from onnxruntime import InferenceSession  # type: ignore[attr-defined]

    held_out = data.test or data.val
    if held_out is None:
        raise DataError(f"'{data.name}' has no images to compare the ONNX file with torch on")
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    module = NormalizedInput(anytime, data.mean, data.std)
    images = same = 0
    difference = 0.0
    nothing, one = (0.0,) * len(data.mean), (1.0,) * len(data.mean)
    for batch in EvalLoader(held_out, batch_size=_BATCH, mean=nothing, std=one):
        want = module(batch.inputs)
        said = [session.run(None, {"images": image[None].numpy()}) for image in batch.inputs]
        logits, exits = (torch.from_numpy(np.concatenate(part)) for part in zip(*said, strict=True))
        there = exits == want.exits
        gap = (logits - want.logits).abs().amax(1)[there]
        images += len(there)
        same += int((there & (logits.argmax(1) == want.logits.argmax(1))).sum())
        difference = max(difference, float(gap.max()) if len(gap) else 0.0)
    return OnnxAgreement(images, same, difference)


def _exported(network: nn.Module, example: Tensor) -> Any:
    # it tells of every constant that a branch gives back that it cannot be merged with another
    logging.getLogger("onnx_ir.passes").setLevel(logging.ERROR)
    try:
        with torch.no_grad():
            return torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["logits", "exit"],
            )
    except torch.onnx.OnnxExporterError as error:
        reason = (str(error.__cause__ or error).splitlines() or [""])[0]
        raise ConfigError(
            f"the exits cannot be written as ONNX ({reason}); "
            "`selfdistill export` writes one exit at a time"
        ) from error


def _move_weights(graph: Any) -> None:
    """Put each constant into the branch that alone uses it.

    The exporter leaves all of them outside, where onnxruntime does not look when it rearranges a
    convolution's weights for the processor; small networks took a quarter longer.
    """
    for name, value in list(graph.initializers.items()):
        places = {id(node.graph): node.graph for node, _ in value.uses()}
        if len(places) == 1 and id(graph) not in places:
            del graph.initializers[name]
            next(iter(places.values())).register_initializer(value)


class _Start(nn.Module):
    """All stages, and at their beginning no exit passed."""

    def __init__(self, anytime: EarlyExitNetwork) -> None:
        super().__init__()
        self.rest = _Rest(anytime, 0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(1, C, H, W) -> logits (1, K) and the exit's place (1,)."""
        said: tuple[Tensor, Tensor] = self.rest(x, torch.zeros(1, dtype=torch.int64))
        return said


class _Rest(nn.Module):
    """One stage, and either its exit's answer or the stages behind it.

    Args:
        anytime: gives stages, heads and thresholds.
        k: the place of the stage.
    """

    def __init__(self, anytime: EarlyExitNetwork, k: int) -> None:
        super().__init__()
        self.stage, self.last = anytime.stages[k], k == len(anytime.heads)
        if not self.last:
            self.head, self.threshold = anytime.heads[k], anytime.thresholds[k]
            self.rest = _Rest(anytime, k + 1)

    def forward(self, x: Tensor, passed: Tensor) -> tuple[Tensor, Tensor]:
        """The feature before the stage and how many exits were passed, to logits and exit."""
        x = self.stage(x)
        if self.last:
            return x, passed
        out = self.head(as_map(x))
        sure = (confidence(out) >= self.threshold).all()
        said: tuple[Tensor, Tensor] = torch.cond(sure, _leave, self._go_on, (x, out, passed))
        return said

    def _go_on(self, x: Tensor, out: Tensor, passed: Tensor) -> tuple[Tensor, Tensor]:
        said: tuple[Tensor, Tensor] = self.rest(x, passed + 1)
        return said


def _leave(x: Tensor, out: Tensor, passed: Tensor) -> tuple[Tensor, Tensor]:
    return out.clone(), passed.clone()  # a branch may not give back what it was given

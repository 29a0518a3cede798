"""Export of an `EarlyExitNetwork` to ONNX, whose later stages run conditionally."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..core import ArtifactError, ConfigError, DataError, atomic_file
from ..core.extras import require
from ..data import EvalLoader, ImageData
from ..export.normalized_input import NormalizedInput
from ..export.onnx_export import onnx_session
from ..taps import as_map
from .network import EarlyExitNetwork, confidence

_BATCH_SIZE = 256
_MAX_MISMATCHES = 0.001  # of the images


class OnnxAgreement(NamedTuple):
    """Agreement of an ONNX file with the module that it was exported from.

    Attributes:
        images: number of images compared.
        matched: of these, with the same exit and class.
        difference: largest difference of the logits of an image with the same exit.
    """

    images: int
    matched: int
    difference: float

    @property
    def holds(self) -> bool:
        """Whether both agree, except on a few images whose confidence rounds to a threshold."""
        return self.images - self.matched <= _MAX_MISMATCHES * self.images


def export_early_exit_onnx(network: EarlyExitNetwork, data: ImageData, path: Path) -> OnnxAgreement:
    """Write an ONNX file, verified on the test images, else the validation images.

    Args:
        network: on the CPU.
        data: of its run.
        path: of the file, which appears when it is written and verified.

    Raises:
        ConfigError: the network cannot be traced or written as ONNX, or the extra `export` is not
            installed.
        ArtifactError: the file's outputs differ from the module's.
        ResourceError: the file cannot be written.
    """
    shape = data.train.shape
    metadata = {"classes": json.dumps(data.classes), "shape": json.dumps(shape), "data": data.name}
    with atomic_file(path) as draft:
        write_early_exit_onnx(network, data.mean, data.std, shape, draft, metadata=metadata)
        agreement = compare_onnx(network, data, draft)
        if not agreement.holds:
            raise ArtifactError(
                f"the ONNX file lets {agreement.images - agreement.matched} of {agreement.images} "
                "images leave elsewhere, or in another class, than torch does; it was not kept"
            )
    return agreement


def write_early_exit_onnx(
    network: EarlyExitNetwork,
    mean: Sequence[float],
    std: Sequence[float],
    shape: Sequence[int],
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write an ONNX file for one image at a time.

    Its input `images` is (1, C, H, W) float32 in 0 … 1. Its outputs are `logits` (1, K) and `exit`
    (1,) int64, the index of the image's exit in `EarlyExitNetwork.names`. The exits are nested `If`
    nodes, so that stages after an image's exit are not computed. The file's `metadata_props` hold
    the names of the exits and their thresholds.

    Args:
        network: on the CPU.
        mean, std: of each channel, of pixels in [0, 1], as in training.
        shape: (C, H, W) of an image.
        path: of the file.
        metadata: further texts by name for `metadata_props`.

    Raises:
        ConfigError: the network cannot be traced or written as ONNX, or the extra `export` is not
            installed.
    """
    optimizer = require("onnxscript.optimizer", extra="export", purpose="an export to ONNX")
    conditional = _ConditionalNetwork(network, shape[1:])
    module = NormalizedInput(conditional, mean, std, len(shape) - 1).eval()
    program = _trace_onnx(module, torch.zeros(1, *shape))
    optimizer.remove_unused_nodes(program.model)
    _move_weights_into_branches(program.model.graph)
    thresholds = json.dumps([round(t, 9) for t in network.thresholds])
    exits = {"exit_names": json.dumps(network.names), "thresholds": thresholds}
    program.model.metadata_props.update({**(metadata or {}), **exits})
    program.save(path, external_data=False)


def compare_onnx(network: EarlyExitNetwork, data: ImageData, path: Path) -> OnnxAgreement:
    """Run file and module on the test images, else the validation images; the file one by one.

    Raises:
        DataError: there are neither.
    """
    held_out = data.test or data.val
    if held_out is None:
        raise DataError(f"'{data.name}' has no images to compare the ONNX file with torch on")
    session = onnx_session(path)
    module = NormalizedInput(network, data.mean, data.std, len(data.train.shape) - 1)
    images = matched = 0
    difference = 0.0
    zero, one = (0.0,) * len(data.mean), (1.0,) * len(data.mean)
    for batch in EvalLoader(held_out, batch_size=_BATCH_SIZE, mean=zero, std=one):
        expected = module(batch.inputs)
        outputs = [session.run(None, {"images": image[None].numpy()}) for image in batch.inputs]
        columns = zip(*outputs, strict=True)
        logits, exits = (torch.from_numpy(np.concatenate(column)) for column in columns)
        same_exit = exits == expected.exits
        same_class = logits.argmax(1) == expected.logits.argmax(1)
        errors = (logits - expected.logits).abs().amax(1)[same_exit]
        images += len(exits)
        matched += int((same_exit & same_class).sum())
        difference = max(difference, float(errors.max()) if len(errors) else 0.0)
    return OnnxAgreement(images, matched, difference)


def _trace_onnx(network: nn.Module, example: Tensor) -> Any:
    # it warns of every constant that a branch returns, which cannot be merged with another
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


def _move_weights_into_branches(graph: Any) -> None:
    """Move each constant into the only branch that uses it.

    The exporter leaves all of them in the outer graph, where onnxruntime does not rearrange a
    convolution's weights for the processor; small networks took a quarter longer.
    """
    for name, value in list(graph.initializers.items()):
        users = {id(node.graph): node.graph for node, _ in value.uses()}
        if len(users) == 1 and id(graph) not in users:
            del graph.initializers[name]
            next(iter(users.values())).register_initializer(value)


class _ConditionalNetwork(nn.Module):
    """An early-exit network for one image, with the exits as `torch.cond`."""

    def __init__(self, network: EarlyExitNetwork, size: Sequence[int]) -> None:
        super().__init__()
        self.first = _ConditionalStage(network, 0, size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(1, C, H, W) -> logits (1, K) and the exit's index (1,)."""
        outputs: tuple[Tensor, Tensor] = self.first(x, torch.zeros(1, dtype=torch.int64))
        return outputs


class _ConditionalStage(nn.Module):
    """One stage, followed by its exit's logits or the later stages.

    Args:
        network: with stages, heads and thresholds.
        k: the index of the stage.
        size: (H, W) of the image, by whose proportions features are laid out.
    """

    def __init__(self, network: EarlyExitNetwork, k: int, size: Sequence[int]) -> None:
        super().__init__()
        self.stage, self.last = network.stages[k], k == len(network.heads)
        if not self.last:
            self.head, self.threshold = network.heads[k], network.thresholds[k]
            self.prefix_tokens, self.size = network.prefix_tokens, tuple(size)
            self.later = _ConditionalStage(network, k + 1, size)

    def forward(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The input feature and the index of the stage, to logits and the exit's index."""
        x = self.stage(x)
        if self.last:
            return x, index
        logits = self.head(as_map(x, self.size, self.prefix_tokens))
        confident = (confidence(logits) >= self.threshold).all()
        outputs: tuple[Tensor, Tensor] = torch.cond(
            confident, _leave, self._continue, (x, logits, index)
        )
        return outputs

    def _continue(self, x: Tensor, logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        outputs: tuple[Tensor, Tensor] = self.later(x, index + 1)
        return outputs


def _leave(x: Tensor, logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    return logits.clone(), index.clone()  # a branch may not return its inputs

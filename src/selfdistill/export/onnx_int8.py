"""Static quantization of an ONNX file to int8 by onnxruntime."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..core import ConfigError
from ..core.extras import require
from .onnx_layers import (
    cut_behind,
    last_outputs,
    name_nodes,
    quantize_layer,
    read_layers,
    trained_name,
)
from .torch_export import suppressed_output

_PURPOSE = "an export to int8"
# Operations that onnxruntime's CPU has in int8, or that pass int8 on; any other would be computed
# in float32 all the same, between two conversions.
_OPERATIONS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "LeakyRelu"),
    *("Sigmoid", "Softmax", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Split"),
    *("Resize", "Pad", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Flatten"),
)


class Int8Quantizer:
    """Quantizes a file's layers: 8 bits without sign for features, 7 with sign for weights.

    Weights have a scale a channel, features one a tensor, from the least to the largest value that
    the calibration images give. The eighth bit of the weights is left free since processors
    without VNNI add two products of 8 bits in 16 and saturate: the file computes the same
    everywhere. What precedes the first layer and follows the last one stays in float32. A layer
    is quantized by what it reads, so that one in float32 gets its features unrounded, and the
    network's outputs are not rounded.

    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html

    Args:
        file: in float32, as `write_onnx` writes it.
        batches: calibration images, (B, C, H, W) float32 in 0 … 1 each.
        ranges: {layer: least and largest value of what it reads} in place of calibration, as
            quantization-aware training learns them; other features are calibrated.

    Attributes:
        layers: that can be quantized, see `read_layers`.

    Raises:
        ConfigError: it has no such layer, onnxruntime cannot prepare it, or the extra `export` is
            not installed.
    """

    def __init__(
        self,
        file: Path,
        batches: Sequence[np.ndarray],
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self._onnx, self._runtime, self._tools = (
            require(package, extra="export", purpose=_PURPOSE)
            for package in ("onnx", "onnxruntime", "onnxruntime.quantization")
        )
        self._batches = batches
        self._model = self._prepared(file)
        self.layers = read_layers(self._model)
        if not self.layers:
            raise ConfigError(
                "nothing in the network can be quantized: it has no convolution and no matrix "
                "product by weights; take --format onnx"
            )
        self._ranges = self._feature_ranges(ranges or {})

    def write(self, path: Path, float_layers: Collection[int] = ()) -> None:
        """Write the quantized file, which tells by its metadata that it is one.

        Args:
            path: of the file.
            float_layers: indices of layers that stay in float32.
        """
        chosen = [k for k in range(len(self.layers)) if k not in float_layers]
        self._quantize(self._model, path, chosen, self._batches)
        model = self._onnx.load(path)
        names = json.dumps([self.layers[k].name for k in sorted(float_layers)])
        for key, value in (("quantization", "int8"), ("float_layers", names)):
            model.metadata_props.add(key=key, value=value)
        self._onnx.save(model, path)

    def layer_errors(self, num_images: int = 16) -> list[float]:
        """How far the network's outputs move if one layer alone is quantized, for each layer.

        Relative, in the Euclidean norm over some calibration images, of what the last layers give:
        boxes that suppression drops would hide it.
        """
        images = np.concatenate(self._batches)[:num_images]
        cut = cut_behind(self._model, last_outputs(self._model, self.layers))
        expected = self._outputs(cut.SerializeToString(), images)
        errors = []
        with TemporaryDirectory() as folder:
            path = Path(folder) / "quantized.onnx"
            self._quantize(cut, path, range(len(self.layers)), [images])
            quantized = self._onnx.load(path)
        for layer in self.layers:
            mixed = quantize_layer(cut, quantized, layer)
            pairs = zip(self._outputs(mixed.SerializeToString(), images), expected, strict=True)
            errors.append(sum(_relative_error(a, e) for a, e in pairs) / len(expected))
        return errors

    def _prepared(self, file: Path) -> Any:
        """The graph with shapes and constants worked out, as quantization wants it."""
        with TemporaryDirectory() as folder, suppressed_output():
            path = Path(folder) / "prepared.onnx"
            try:
                try:
                    self._tools.quant_pre_process(file, path)
                except Exception:  # plain ones, where shapes of a graph are not worked out
                    self._tools.quant_pre_process(file, path, skip_symbolic_shape=True)
            except Exception as error:
                raise _unquantizable(error) from error
            model = self._onnx.load(path)
        name_nodes(model)
        return model

    def _feature_ranges(
        self, ranges: Mapping[str, tuple[float, float]]
    ) -> dict[str, list[dict[str, np.float32]]]:
        """The ranges of layers as onnxruntime takes them: by the tensors that the layers read."""
        own = {trained_name(name): limits for name, limits in ranges.items()}
        nodes = {node.name: node for node in self._model.graph.node}
        weights = {tensor.name for tensor in self._model.graph.initializer}
        given: dict[str, list[dict[str, np.float32]]] = {}
        for layer in self.layers:
            if layer.name in own:
                low, high = map(np.float32, own[layer.name])
                feature = next(n for n in nodes[layer.nodes[0]].input if n not in weights)
                given.setdefault(feature, [{"rmin": low, "rmax": high}])
        return given

    def _quantize(
        self, model: Any, path: Path, layers: Sequence[int], batches: Sequence[np.ndarray]
    ) -> None:
        tools = self._tools
        name, position = model.graph.input[0].name, iter(batches)

        class Reader(tools.CalibrationDataReader):  # type: ignore[misc, name-defined]
            def get_next(self) -> dict[str, np.ndarray] | None:
                batch = next(position, None)
                return None if batch is None else {name: batch}

        features = {name for node in model.graph.node for name in node.input}
        overrides = {name: limits for name, limits in self._ranges.items() if name in features}
        try:
            with suppressed_output(), TemporaryDirectory() as folder:
                source = Path(folder) / "model.onnx"  # of an object it would move the weights
                self._onnx.save(model, source)
                tools.quantize_static(
                    source,
                    path,
                    Reader(),
                    quant_format=tools.QuantFormat.QDQ,
                    op_types_to_quantize=list(_OPERATIONS),
                    per_channel=True,
                    reduce_range=True,
                    activation_type=tools.QuantType.QUInt8,
                    weight_type=tools.QuantType.QInt8,
                    nodes_to_quantize=[n for k in layers for n in self.layers[k].nodes],
                    extra_options={
                        "OpTypesToExcludeOutputQuantization": list(_OPERATIONS),
                        "TensorQuantOverrides": overrides,
                    },
                )
        except Exception as error:  # of onnx, onnxruntime and numpy, of every kind
            raise _unquantizable(error) from error

    def _outputs(self, source: bytes, images: np.ndarray) -> list[np.ndarray]:
        session = self._runtime.InferenceSession(source, providers=["CPUExecutionProvider"])
        return list(session.run(None, {session.get_inputs()[0].name: images}))


def _relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / max(1e-12, float(np.linalg.norm(expected))))


def _unquantizable(error: Exception) -> ConfigError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ConfigError(
        f"onnxruntime cannot quantize the network ({reason}); --format onnx keeps it in float32"
    )

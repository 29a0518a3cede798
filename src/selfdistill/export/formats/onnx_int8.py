"""ONNX in int8, quantized from a file in float32 that was verified."""

from collections.abc import Mapping
from pathlib import Path

from ...core import Method, Task
from ...data import ImageData
from ..int8_export import Int8Comparison, check_calibratable, write_int8
from ..int8_options import Int8Options
from ..verify import ExportVerification
from .onnx import OnnxFormat


class OnnxInt8Format(OnnxFormat):
    """A graph of ONNX whose layers are in int8."""

    float_file = "float32.onnx"  # which does not stay

    def check(self, method: Method, predictor: str, data: ImageData) -> None:
        """Raise `ConfigError` if there are no images to calibrate by."""
        check_calibratable(data)

    def quantize(
        self,
        folder: Path,
        verification: ExportVerification,
        data: ImageData,
        task: Task,
        options: Int8Options | None,
        ranges: Mapping[str, tuple[float, float]],
    ) -> Int8Comparison:
        """Write the file in int8 in the place of the one in float32; see `write_int8`."""
        float_file, file = folder / self.float_file, folder / self.file
        comparison = write_int8(
            float_file, file, verification, data, task, options or Int8Options(), ranges
        )
        float_file.unlink()
        return comparison


FORMAT = OnnxInt8Format()

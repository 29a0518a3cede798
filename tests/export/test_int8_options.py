"""Options of int8: what is refused, and with which sentence."""

import subprocess
import sys

import pytest

from selfdistill.errors import ConfigError
from selfdistill.export.int8_options import Int8Options, int8_options


def test_defaults():
    assert int8_options("onnx-int8") == Int8Options(0.01, 0, 1, None)
    assert int8_options("onnx") is None
    given = {"max_loss": 0.0, "float_layers": "3", "batch_size": 8, "num_threads": 2}
    assert int8_options("onnx-int8", **given) == Int8Options(0.0, 3, 8, 2)
    assert int8_options("onnx-int8", float_layers="auto").float_layers == "auto"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_loss": -0.01}, "from 0 to below 1, not -0.01"),
        ({"max_loss": 1.0}, "from 0 to below 1, not 1"),
        ({"max_loss": float("nan")}, "from 0 to below 1, not nan"),
        ({"float_layers": "some"}, "a number of layers, or auto, not 'some'"),
        ({"float_layers": "-1"}, "not '-1'"),
        ({"float_layers": "1.5"}, "not '1.5'"),
        ({"float_layers": "²"}, "not '²'"),
        ({"float_layers": ""}, "not ''"),
        ({"float_layers": "9" * 5000}, "a number of layers"),
        ({"batch_size": 0}, "batch_size=0 must be 1 or more"),
        ({"num_threads": -2}, "num_threads=-2 must be 1 or more"),
    ],
)
def test_wrong_values(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        int8_options("onnx-int8", **options)


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_loss", 0.1), ("float_layers", 0), ("batch_size", 1), ("num_threads", 1)],
)
def test_another_format_takes_none_of_them(option, value):
    word = {"num_threads": "--threads"}.get(option, "--" + option.replace("_", "-"))
    for format in ("onnx", "pt2"):
        with pytest.raises(ConfigError, match=f"{word} is an option of --format onnx-int8"):
            int8_options(format, **{option: value})


def test_no_torch_is_imported_to_refuse_them():
    code = "import selfdistill.export.int8_options, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""What can be refused without torch, or with torch alone, is refused before more is imported."""

import subprocess
import sys

import selfdistill.methods  # noqa: F401  registers them all
from selfdistill.core import METHODS
from selfdistill.recipe.document import shipped_methods

PROGRAM = """
import sys
from selfdistill.cli import app

WRONG = [
    ("--method", "muze"),
    ("--method", "muse+nothing"),
    ("--data", "folder:nowhere"),
    ("--data", "npz:nowhere.npz"),
    ("--weights", "nowhere.pth"),
    ("--method", "kd", "--teacher", "nowhere"),
    ("--method", "kd", "--teacher", "nowhere.safetensors"),
    ("--method", "kd", "--teacher", "timn/resnet18"),
    ("--recipe", "nowhere.toml"),
    ("--epochs", "-1"),
    ("--lr", "fast"),
]
for words in WRONG:
    try:
        app(["train", *words], standalone_mode=True)
    except SystemExit as end:
        assert end.code in (2, 4), (words, end.code)
assert "torch" not in sys.modules
"""


NETWORK_PROGRAM = """
import sys
from safetensors.torch import save_file
from selfdistill.cli import app
from selfdistill.models import build

save_file(build("cifar/vgg8", num_classes=10).state_dict(), "vgg8.safetensors")
save_file(build("cifar/resnet8", num_classes=10, in_channels=1).state_dict(), "gray.safetensors")
WRONG = [
    ("--model", "resnte18"),
    ("--model", "cifar/resnte18"),
    ("--model", "cfar/resnet18"),
    ("--model", "timm/resnte18"),
    ("--model", "torchvision/resnte18"),
    ("--method", "dml", "--peer", "cifar/resnte18"),
    ("--method", "dml", "--peer", "timm/resnte18"),
    ("--method", "kd", "--teacher", "timm/resnte18"),
    ("--method", "kd", "--teacher", "vgg8.safetensors", "--teacher-model", "cifar/vgg88"),
    ("--model", "cifar/resnet8", "--taps", "layer1,leyer2"),
    ("--model", "cifar/resnet8", "--taps", "layer1,layer1"),
    ("--model", "cifar/resnet8", "--weights", "vgg8.safetensors"),
    ("--model", "cifar/resnet14", "--weights", "gray.safetensors"),
    ("--set", "critic_widht=3"),
    ("--task", "colors"),
]
for words in WRONG:
    try:
        app(["train", *words], standalone_mode=True)
    except SystemExit as end:
        assert end.code in (2, 6), (words, end.code)
    else:
        raise AssertionError(words)
slow = {"lightning_fabric", "timm", "torch._dynamo", "torchmetrics", "torchvision"}
assert not slow & set(sys.modules), slow & set(sys.modules)
from selfdistill.recipe.network_check import check_networks_early
from selfdistill.recipe.schema import parse

check_networks_early(parse({"model": "cifar/resnet8", "weights": "gray.safetensors"}))
"""


def stderr_of(program: str, place) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_no_torch_for_a_mistyped_word(tmp_path):
    assert "did you mean 'muse'" in stderr_of(PROGRAM, tmp_path)


def test_no_training_loop_for_a_wrong_network(tmp_path):
    stderr = stderr_of(NETWORK_PROGRAM, tmp_path)
    assert stderr.count("did you mean 'cifar/resnet18'") == 4
    assert stderr.count("did you mean 'timm/resnet18'") >= 1
    assert "did you mean 'layer2'" in stderr
    assert "named twice" in stderr
    assert "weights 'vgg8.safetensors' do not fit ResNet" in stderr
    assert "weights 'gray.safetensors' do not fit ResNet" in stderr


def test_names_of_files_are_names_of_methods():
    ours = [name for name in METHODS if METHODS[name].__module__.startswith("selfdistill.")]
    assert shipped_methods() == sorted(ours)

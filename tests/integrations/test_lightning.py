"""A criterion in Lightning's own Trainer: training, validation, resuming, and what is refused."""

import sys
from importlib import import_module, reload

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import selfdistill
from selfdistill.core import ConfigError
from selfdistill.integrations.lightning import DistillationLightningModule
from selfdistill.models import build

# On how many workers and validation loaders it would like.
noise = "ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"
pytestmark = pytest.mark.filterwarnings(noise)


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("cifar/resnet8", num_classes=10)


def loader(indexed: bool = False) -> DataLoader:
    """Sixteen images in two batches."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, 16, 16, generator=draw)
    data = [
        {"images": x, "labels": i % 10, "index": i} if indexed else (x, i % 10)
        for i, x in enumerate(images)
    ]
    return DataLoader(data, batch_size=8)


def module_of(
    name="muse", cls=DistillationLightningModule, lr=0.05, **keywords
) -> DistillationLightningModule:
    example = torch.zeros(2, 3, 16, 16)
    return cls(selfdistill.wrap(small(), name, example=example, classes=10, **keywords), lr=lr)


def trainer(directory, epochs=1, saves=False, **options) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=saves,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=directory,
        **options,
    )


def test_the_trainer_trains_and_evaluates_it(tmp_path):
    module, data = module_of(), loader()
    before = module.criterion.method.student.network.fc.weight.clone()
    run = trainer(tmp_path)
    run.fit(module, data, data)
    metrics = run.callback_metrics
    assert {"train/loss", "train/mutual/1", "val/exit1", "val/student"} <= metrics.keys()
    assert not torch.equal(module.criterion.method.student.network.fc.weight, before)
    assert int(module.criterion.step) == 2
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    correct = (module.eval()(images)["student"].argmax(1) == labels).float().mean()
    assert metrics["val/student"].item() == pytest.approx(correct.item())
    terms = [v for n, v in metrics.items() if n.startswith("train/") and n != "train/loss"]
    assert sum(terms).item() == pytest.approx(metrics["train/loss"].item(), rel=1e-5)


@pytest.mark.parametrize(("accumulate", "calls"), [(1, 6), (2, 6)])
def test_the_lesson_knows_how_long_it_takes(tmp_path, accumulate, calls):
    module = module_of("ce")
    trainer(tmp_path, 3, accumulate_grad_batches=accumulate).fit(module, loader())
    assert module.criterion.total_steps == int(module.criterion.step) == calls
    assert module.optimizers().param_groups[0]["lr"] == pytest.approx(0, abs=1e-8)
    known_length = module_of("ce", total_steps=99)
    trainer(tmp_path).fit(known_length, loader())
    assert known_length.criterion.total_steps == 99


def test_a_further_training_of_a_module_is_longer(tmp_path):
    module, shares = module_of("snapshot"), []
    for _ in range(2):
        trainer(tmp_path, 2).fit(module, loader())
        criterion = module.criterion
        shares.append((int(criterion.step), criterion.total_steps))
    assert shares == [(4, 4), (8, 8)]


@pytest.mark.parametrize("name", ["muse", "crd"])
def test_a_resumed_training_is_the_uninterrupted_one(tmp_path, name):
    companions = {"teacher": small(2), "train_labels": torch.arange(16) % 10, "num_negatives": 4}
    keywords = {"total_steps": 4, **(companions if name == "crd" else {})}
    data, file = loader(indexed=name == "crd"), tmp_path / "half.ckpt"

    class Halves(DistillationLightningModule):
        def on_train_epoch_end(self):
            if self.current_epoch == 0:
                self.trainer.save_checkpoint(file)

    first = module_of(name, Halves, **keywords)
    trainer(tmp_path, 2).fit(first, data)
    second = module_of(name, **keywords)
    trainer(tmp_path, 2).fit(second, data, ckpt_path=file)
    assert int(second.criterion.step) == 4
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key


def test_a_teacher_is_in_no_checkpoint_and_all_else_must_be(tmp_path):
    module = module_of("kd", teacher=small(2))
    run = trainer(tmp_path)
    run.fit(module, loader())
    run.save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)
    assert not any("teacher" in name for name in saved["state_dict"])
    again = module_of("kd", teacher=small(2))
    trainer(tmp_path, 2).fit(again, loader(), ckpt_path=tmp_path / "run.ckpt")
    lost = next(name for name in saved["state_dict"] if "fc.weight" in name)
    del saved["state_dict"][lost]
    torch.save(saved, tmp_path / "torn.ckpt")
    with pytest.raises(RuntimeError, match="Missing key"):
        trainer(tmp_path, 2).fit(again, loader(), ckpt_path=tmp_path / "torn.ckpt")


def test_a_group_with_a_rate_of_its_own(tmp_path):
    module = module_of("afd", peers=[small(1)], lr=0.5, discriminator_lr_scale=0.1)
    trainer(tmp_path, limit_train_batches=1).fit(module, loader())
    rates = [group["initial_lr"] for group in module.optimizers().param_groups]
    assert rates == pytest.approx([0.5, 0.05])


def test_its_steps_may_be_written_anew(tmp_path):
    class Mine(DistillationLightningModule):
        def configure_optimizers(self):
            return torch.optim.AdamW(self.criterion.param_groups(lr=1e-3))

    module = module_of(cls=Mine)
    trainer(tmp_path).fit(module, loader())
    assert isinstance(module.optimizers().optimizer, torch.optim.AdamW)


def test_an_endless_training_has_a_constant_rate(tmp_path):
    module = module_of("ce")
    trainer(tmp_path, -1, limit_train_batches=1, max_time={"seconds": 1e-6}).fit(module, loader())
    assert module.criterion.total_steps is None
    assert module.optimizers().param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize("batch", [torch.zeros(2, 3, 16, 16), [1, 2, 3]])
def test_a_batch_that_is_none(batch):
    with pytest.raises(ConfigError, match=r"a batch is \(images, labels\)"):
        module_of().training_step(batch, 0)


def test_without_lightning_there_is_a_sentence(monkeypatch):
    module = import_module("selfdistill.integrations.lightning")
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(ConfigError, match=r"pip install \"selfdistill\[lightning\]\""):
        reload(module)


def test_a_network_whose_layout_has_versions_is_restored():
    """torchvision's MNASNet loads nothing that does not say how old it is."""
    network = build("torchvision/mnasnet0_5", num_classes=10)
    example = torch.zeros(2, 3, 16, 16)
    module = DistillationLightningModule(
        selfdistill.wrap(network, "ce", example=example, classes=10), lr=0.1
    )
    checkpoint = {"state_dict": {name: t.clone() + 1 for name, t in module.state_dict().items()}}
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(network.layers[0].weight, checkpoint["state_dict"][weight_of(module)])


def weight_of(module):
    return next(name for name in module.state_dict() if name.endswith("layers.0.weight"))

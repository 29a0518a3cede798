"""Methods in other training loops: as a loss, as timm's task, as a LightningModule."""

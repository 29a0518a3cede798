"""How to train, apart from what: everything the loop reads."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainingSettings:
    """Numbers and switches of one run; `recipe/schema.py` says what each is for and checks it."""

    epochs: int = 30
    seed: int = 0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    lr_end: float = 0.0
    warmup: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    log_every: int = 20
    save_every: int = 0
    val_every: int = 1

"""Every registered method, every variant of it, on each task: what the contract tests run over."""

import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from selfdistill.core import IGNORE, METHODS, Batch, Method, Progress, Task
from selfdistill.modules.anchor_head import AnchorHead
from selfdistill.recipe.build_method import build_method, unsupported_reason
from selfdistill.tasks import TASKS, make_task

CLASSES, SIDE, SAMPLES, FRAMES = "abcde", 16, 40, 4
K = len(CLASSES)
STAGES = ["stage1", "stage2", "stage3", "stage4"]

STANDARDIZED = {"standardize_logits": True, "temperature": 2.0}

# A method that is not named here is tested with its defaults.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "muse": {
        "mul": {"combine": "mul"},
        "concat": {"critic": "concat", "critic_width": 16},
        "global": {"critic": "global", "critic_width": 16},
        "global share": {"global_critic_weight": 0.5},
        "roll": {"negatives": "roll"},
        "raw": {"feature_source": "raw"},
        "encoded": {"feature_source": "raw", "si_global_view": "encoded"},
        "no heads": {"supervised_weight": 0.0, "soft_weight": 0.0},
        "raw, no heads": {"supervised_weight": 0.0, "soft_weight": 0.0, "feature_source": "raw"},
        "mutual only": {"si_weight": 0.0},
        "self only": {"mi_weight": 0.0},
        "infonce": {"estimator": "infonce"},
        # bounds that know no floor of their losses drown a task in so few steps
        "dv": {"estimator": "dv", "information_weight": 0.03},
        "nwj": {"estimator": "nwj", "information_weight": 0.03},
        "byot heads": {"bottleneck": "byot"},
        "mul, roll, powers": {"combine": "mul", "negatives": "roll", "si_weight": 2.0},
        "detached": {"detach_last": True},
    },
    "byot": {"slim": {"bottleneck": "slim"}, "no hint": {"hint_weight": 0.0}},
    "frskd": {
        "labels only": {"soft_weight": 0.0, "attention_weight": 0.0},
        "no features": {"attention_weight": 0.0},
        "narrow": {
            "pyramid_width": 0.5,
            "pyramid_depth": 1,
            "upsampling": "bilinear",
            "attention_weight": 1.0,
            "soft_weight": 0.5,
        },
        "late": {"start_fraction": 0.001, "warmup_fraction": 0.01},
    },
    "exits": {
        "labels only": {"soft_weight": 0.0},
        "soft only": {"supervised_weight": 0.0},
        "l2": {"discrepancy": "l2"},
        "l2 alone": {"discrepancy": "l2", "supervised_weight": 0.0, "soft_weight": 0.0},
        "mmd": {"discrepancy": "mmd", "soft_weight": 0.0, "discrepancy_weight": 1.0},
        "vid": {"discrepancy": "vid", "soft_weight": 0.0},
        "adversarial": {"discrepancy": "adversarial", "soft_weight": 0.0},
        "adversarial, detached": {"discrepancy": "adversarial", "detach_last": True},
    },
    "muse-offline": {
        "mul": {"combine": "mul"},
        "concat": {"critic": "concat", "critic_width": 16},
        "roll": {"negatives": "roll", "global_critic_weight": 0.5},
        "logits only": {"information_weight": 0.0},
        "self only": {"mi_weight": 0.0},
    },
    "muse-online": {
        "two peers": {},
        "mul": {"combine": "mul"},
        "concat": {"critic": "concat", "critic_width": 16},
        "roll": {"negatives": "roll", "global_critic_weight": 0.5},
        "logits only": {"information_weight": 0.0},
        "detached": {"detach_peer": True},
        "mutual only": {"si_weight": 0.0, "soft_weight": 0.0},
    },
    "sad": {
        "lanes": {"attention_weight": 0.1, "channel_reduction": "sum", "start_fraction": 2 / 3}
    },
    "snapshot": {"thirty": {"num_generations": 30}},
    "dml": {"two peers": {}, "labels only": {"soft_weight": 0.0}, "warm": {"temperature": 4.0}},
    "crd": {
        "few": {"num_negatives": 3, "embedding_width": 16},
        "soft": {"soft_weight": 0.1, "positives": "class"},
    },
    "mimkd": {
        "all places": {"feature_negatives": "all", "critic_width": 16},
        "separable": {"critic": "separable", "critic_width": 16},
        "concat": {"critic": "concat", "critic_width": 16, "feature_critic_width": 16},
        "soft": {"soft_weight": 0.1, "critic_width": 16},
        "global only": {"local_weight": 0.0, "feature_weight": 0.0, "critic_width": 16},
        "feature only": {"local_weight": 0.0, "global_weight": 0.0},
    },
    "kdcl": {
        "naive": {"ensemble": "naive"},
        "linear": {"ensemble": "linear"},
        "general": {"ensemble": "general"},
        "two peers": {},
        "linear, two peers": {"ensemble": "linear"},
        "general, two peers": {"ensemble": "general"},
        "labels only": {"soft_weight": 0.0},
    },
    "afd": {
        "two peers": {"discriminator_width": 16},
        "narrow": {"discriminator_width": 4, "discriminator_lr_scale": 1.0},
        "logits only": {"adversarial_weight": 0.0},
        # at weight 1 and without soft outputs, maps outweigh labels longer than a test lasts
        "maps only": {"soft_weight": 0.0, "adversarial_weight": 0.3},
    },
    "kd": {
        "soft only": {"supervised_weight": 0.0},
        "labels only": {"soft_weight": 0.0},
        "standardized": STANDARDIZED | {"soft_weight": 9.0},
    },
    "fitnets": {
        "shallow": {"tap": 4},
        "deepest": {"tap": 1, "soft_weight": 0.9},
        "linear": {"regressor_relu": False},
        "no hint": {"hint_weight": 0.0},
    },
    "at": {"soft": {"soft_weight": 0.9}},
    "nfd": {
        "batch": {"normalize_over": "batch"},
        "sample": {"normalize_over": "sample", "tap": 2},
        "channel": {"normalize_over": "channel", "soft_weight": 0.9},
    },
    "aicsd": {"constant": {"weighting": "constant"}, "coarse": {"grid_size": 2}},
    "vid": {"soft": {"soft_weight": 0.9}, "no bound": {"variational_weight": 0.0}},
    "nst": {"soft": {"soft_weight": 0.9}},
    "sp": {"all": {"stages": "all"}, "soft": {"soft_weight": 0.9}},
    "reviewkd": {
        "at once": {"warmup_fraction": 0.0, "fusion_width": 8},
        "soft": {"review_weight": 0.5, "soft_weight": 0.9},
    },
    "rkd": {
        "distance": {"angle_weight": 0.0},
        "angle": {"distance_weight": 0.0},
        "soft": {"soft_weight": 0.9},
    },
    "srrl": {
        "scores": {"feature_weight": 0.0, "connector_relu": False},
        "feature": {"classifier_weight": 0.0, "soft_weight": 0.9},
        "labels only": {"classifier_weight": 0.0, "feature_weight": 0.0},
        "joint": {"open_set": "joint"},
        "separate": {"open_set": "separate", "soft_weight": 0.9},
    },
    "ofa-kd": {
        "modulated": {"modulation": 1.5, "temperature": 2.0},
        "no branches": {"branch_weight": 0.0},
        "no labels": {"supervised_weight": 0.0},
    },
    "mlkd": {"plain": {"variant": "plain", "num_temperatures": 2}},
    "dks": {"labels only": {"soft_weight": 0.0}, "slim": {"bottleneck": "slim"}},
    "deit": {"soft": {"distillation": "soft", "distillation_weight": 0.1}},
    "dkd": {
        "no warm-up": {"warmup_fraction": 0.0},
        "target": {"non_target_class_weight": 0.0},
        "others": {"target_class_weight": 0.0},
        "standardized": STANDARDIZED,
    },
    "nkd": {
        "target": {"non_target_class_weight": 0.0},
        "others": {"target_class_weight": 0.0, "temperature": 3.0},
    },
    "uskd": {
        "target": {"non_target_class_weight": 0.0},
        "cifar": {"target_class_weight": 0.1, "weak_weight": 0.1},
    },
    "dist": {
        "inter": {"intra_class_weight": 0.0, "temperature": 4.0},
        "intra": {"inter_class_weight": 0.0},
    },
    "ttm": {
        "weighted": {"weighted": True},
        "soft only": {"supervised_weight": 0.0, "soft_weight": 1.0},
        "labels only": {"soft_weight": 0.0},
    },
    "pskd": {"labels only": {"soft_weight": 0.0}},
    "sskd-teacher": {"joint": {"backbone": "joint"}},
    "sskd": {
        "outputs only": {"similarity_weight": 0.0, "turned_fraction": 0.5},
        "similarity": {"supervised_weight": 1.0, "soft_weight": 0.0, "turned_weight": 0.0},
    },
    "hsakd-teacher": {"frozen": {"backbone": "frozen"}},
    "hsakd": {"outputs only": {"joint_weight": 0.0}, "heads only": {"soft_weight": 0.0}},
    "hsakd-online": {
        "two peers": {},
        "labels only": {"joint_weight": 0.0, "soft_weight": 0.0},
    },
    "wcord": {
        "global": {"local_weight": 0.0, "num_negatives": 3, "embedding_width": 16},
        "local": {"global_weight": 0.0},
        "soft": {"soft_weight": 1.0, "num_negatives": 3, "num_sinkhorn_iterations": 5},
    },
    "lakd": {
        "joint backward": {"local_backward": False},
        "no heads": {"supervised_weight": 0.0, "soft_weight": 0.0},
        "labels only": {"attention_weight": 0.0, "soft_weight": 0.0},
        "warm": {"warmup_fraction": 0.05},
    },
    "feature-kd": {
        "all stages": {"stages": "all", "cosine_fraction": 0.5},
        "summary only": {"spatial_weight": 0.0},
    },
    "kd3": {
        "features only": {"contrastive_weight": 0.0},
        "contrast": {"contrastive_weight": 0.1, "embedding_width": 8, "confidence": 0.0},
    },
    "residual-kd": {"progressive": {"schedule": "progressive"}, "joint": {"schedule": "joint"}},
    "one": {
        "two branches": {"num_branches": 2},
        "no ramp": {"warmup_fraction": 0.0},
        "labels only": {"soft_weight": 0.0},
    },
    "mixskd": {
        # at full weight a random self-teacher holds the student back from what it is to learn here
        "released": {"variant": "released", "soft_weight": 0.1},
        "uniform": {"mixup_alpha": 1.0},
        "scores only": {"feature_weight": 0.0, "adversarial_weight": 0.0},
        "maps only": {"soft_weight": 0.0},
        "released maps": {"variant": "released", "soft_weight": 0.0},
    },
}


WIDTHS, TEACHER_WIDTHS, PEER_WIDTHS = (8, 8, 12, 16), (8, 12, 16, 24), (6, 8, 10, 12)
WIDTH = TEACHER_WIDTHS[-1]  # of an embedding


def trunk(last_stride: int, widths: tuple[int, ...], sides: int) -> dict[str, nn.Module]:
    strides, channels = (1, 2, 2, last_stride), (3, *widths)
    sizes = zip(channels, widths, strides, strict=False)
    convolution, norm = {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}[sides]
    return {
        f"stage{i}": nn.Sequential(convolution(c, w, 3, stride, 1, bias=False), norm(w), nn.ReLU())
        for i, (c, w, stride) in enumerate(sizes, 1)
    }


def distilled_transformer() -> nn.Module:
    """A network of 4×4 patches with class and distillation token, as timm has it."""
    import timm

    return timm.create_model(
        "deit_tiny_distilled_patch16_224",
        **{"img_size": SIDE, "patch_size": 4, "depth": 2, "embed_dim": 16, "num_heads": 2},
        num_classes=K,
    )


def ending(task: str, channels: int) -> dict[str, nn.Module]:
    """What comes after the stages."""
    if task in ("classification", "embedding"):
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return {"pool": pool, "fc": nn.Linear(channels, K if task == "classification" else WIDTH)}
    if task == "clips":
        pool = nn.Sequential(nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
        return {"pool": pool, "fc": nn.Linear(channels, K)}
    if task == "segmentation":
        up = nn.Upsample(size=(SIDE, SIDE), mode="bilinear")
        return {"classify": nn.Conv2d(channels, K, 1), "up": up}
    return {"detect": AnchorHead([channels], K)}


class Case(NamedTuple):
    """One method with options, for one task."""

    name: str
    variant: str
    options: dict[str, Any]
    task: str

    def __str__(self) -> str:
        return f"{self.name} {self.variant} {self.task}".replace(" ", "-").replace(",", "")

    @property
    def composite(self) -> bool:
        """Whether the student is another network than the one that was given."""
        return METHODS[self.name].composite

    @property
    def peers(self) -> int:
        """How many a method is given that trains several networks."""
        return 2 if "two peers" in self.variant else 1

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image, (C, T, H, W) of a clip."""
        return (3, FRAMES, SIDE, SIDE) if self.task == "clips" else (3, SIDE, SIDE)

    def make_task(self) -> Task:
        classes = [str(i) for i in range(WIDTH)] if self.task == "embedding" else CLASSES
        return make_task(self.task, classes, self.shape)

    def network(self, seed: int = 0, widths: tuple[int, ...] = WIDTHS) -> nn.Module:
        torch.manual_seed(seed)
        if METHODS[self.name].needs.distillation_token and widths == WIDTHS:
            return distilled_transformer()
        last_stride = 2 if self.task in ("classification", "embedding") else 1
        stages = trunk(last_stride, widths, len(self.shape) - 1)
        return nn.Sequential(OrderedDict(**stages, **ending(self.task, widths[-1])))

    def companions(self, seed: int = 0, taps: Any = None) -> dict[str, Any]:
        """Teacher, peers and labels, as far as the method takes them; the teacher is always one."""
        given: dict[str, Any] = {}
        takes = inspect.signature(METHODS[self.name]).parameters
        if "teacher" in takes:
            teacher = self.network(7, TEACHER_WIDTHS)
            trained_by = METHODS[self.name].teacher_method
            if trained_by and not unsupported_reason(METHODS[trained_by], TASKS[self.task]):
                case = Case(trained_by, "defaults", {}, self.task)
                teacher = case.method(7, taps, teacher).eval()
            given |= {"teacher": teacher, "teacher_taps": taps or STAGES}
        if "peers" in takes:
            seeds = range(seed + 100, seed + 100 + self.peers)
            given["peers"] = [self.network(s, PEER_WIDTHS) for s in seeds]
        if "train_labels" in takes:
            given["train_labels"] = torch.arange(SAMPLES) % K
        return given

    def method(
        self,
        seed: int = 0,
        taps: Any = None,
        network: nn.Module | None = None,
        companions: dict[str, Any] | None = None,
    ) -> Method:
        companions = companions or self.companions(seed, taps)
        network = network or self.network(seed)
        task = self.make_task()
        torch.manual_seed(seed + 50)  # of what the method adds, however the network was made
        return build_method(
            self.name, network, task, taps or STAGES, self.options, **companions
        ).train()

    def batch(self, seed: int = 0, size: int = 8) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        targets, shown = TARGETS[self.task](size, generator)

        def images() -> Tensor:
            return shown + torch.randn(size, *self.shape, generator=generator)

        needs = METHODS[self.name].needs
        further = self.peers - 1 if needs.views > 1 else 0  # whose networks have views of their own
        views = tuple(images() for _ in range(needs.views - 1 + further))
        inputs = images()
        # classes come in order: image k is the first of class k, and its whole class's partner
        same_class_inputs = inputs[torch.arange(size) % K] + 0.1 * (images() - shown)
        same_class_inputs = same_class_inputs if needs.same_class else None
        extra = images().flip(0) if needs.extra else None
        return Batch(inputs, targets, torch.arange(size), views, same_class_inputs, extra)


PALETTE = 2 * torch.randn(K, 3, generator=torch.Generator().manual_seed(0))


def one_class(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.arange(size) % K, torch.zeros(())


def unlabeled(size: int, generator: torch.Generator) -> tuple[None, Tensor]:
    return None, torch.zeros(())


def four_fields(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Masks of four fields of a class and its color each; the topmost row does not count."""
    fields = torch.randint(K, (size, 2, 2), generator=generator)
    masks = fields.repeat_interleave(SIDE // 2, 1).repeat_interleave(SIDE // 2, 2)
    colors = PALETTE[masks].movedim(3, 1)  # (B, 3, H, W)
    masks[:, 0] = IGNORE
    return masks, colors


def one_box(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A box of 8×8 in the color of its class, and beside it a row that holds none."""
    corners = 4 * torch.randint(3, (size, 2), generator=generator)
    kinds = torch.randint(K, (size,), generator=generator)
    targets, colors = torch.full((size, 2, 5), -1.0), torch.zeros(size, 3, SIDE, SIDE)
    targets[:, 0, 0], targets[:, 0, 1:] = kinds, torch.cat([corners, corners + 8], 1).float()
    for picture, (x, y), kind in zip(colors, corners.tolist(), kinds, strict=True):
        picture[:, y : y + 8, x : x + 8] = PALETTE[kind][:, None, None]
    return targets, colors


TARGETS = {
    "classification": one_class,
    "clips": one_class,
    "segmentation": four_fields,
    "detection": one_box,
    "embedding": unlabeled,
}


def moment(step: int = 0, seed: int = 0) -> Progress:
    return Progress(*map(torch.tensor, (seed, 0, step, 1000)))


def advance(method: Method, case: Case, steps: int = 2) -> Method:
    """Train a method for a few steps, so that nothing of it is as it was born."""
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.05)
    for i in range(steps):
        optimizer.zero_grad()
        method(case.batch(i), moment(i)).total.backward()
        optimizer.step()
        method.after_step(moment(i))
    optimizer.zero_grad()
    return method


def same(first: Any, second: Any) -> bool:
    """Whether two outputs, or dictionaries of them, are equal bit for bit, whatever their form."""
    ones, form = pytree.tree_flatten(first)
    others, its_form = pytree.tree_flatten(second)
    pairs = zip(ones, others, strict=False)
    return form == its_form and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs
    )


# In the usual suite: these with their defaults on the first task,
USUAL = ("ce", "exits", "byot", "muse", "muse-offline", "muse-online", "mimkd", "mixskd", "frskd")
USUAL += ("kd", "crd", "dml", "feature-kd")
# and of them these on the others, too.
SHARED = ("muse", "frskd", "kd")
# The paper's weight is for maps of 8×8 and more.
GENTLE = {"sad": {"attention_weight": 10.0}}
# Its student is to have the teacher's smoothed scores: right, but never sure.
UNSURE = ("ttm",)


def defaults(task: str) -> list[Case]:
    options = {} if TASKS[task].image_labels else GENTLE
    return [
        Case(name, "defaults", options.get(name, {}), task)
        for name in METHODS
        if not unsupported_reason(METHODS[name], TASKS[task])
    ]


DEFAULTS = [case for task in TARGETS for case in defaults(task)]
CASES = DEFAULTS + [
    Case(case.name, variant, options, case.task)
    for case in DEFAULTS
    for variant, options in VARIANTS.get(case.name, {}).items()
    if TASKS[case.task].class_scores or not options.get("standardize_logits")
]


def on_first_task(case: Case) -> bool:
    """Whether a case is on the task that its method is tested on most."""
    unlabeled = METHODS[case.name].needs.embeddings
    return case.task == ("embedding" if unlabeled else "classification")


def usual(case: Case) -> bool:
    """Whether a case is in the usual suite."""
    names = USUAL if on_first_task(case) else SHARED
    return case.variant == "defaults" and case.name in names


def of_each_method(case: Case) -> bool:
    """Whether a case is in the usual suite of a test that finds most faults."""
    return usual(case) or (case.variant == "defaults" and on_first_task(case))


def over(cases: list[Case], fast: Callable[[Case], bool] = usual) -> pytest.MarkDecorator:
    """Runs a test over cases; those that are not fast in the slow half."""
    marked = [pytest.param(c, marks=() if fast(c) else pytest.mark.slow) for c in cases]
    return pytest.mark.parametrize("case", marked, ids=str)


every_case, every_default = over(CASES), over(DEFAULTS)
# For tests that take seconds: one method of each kind in the usual suite.
one_of_a_kind = over(
    [case for case in DEFAULTS if on_first_task(case)],
    lambda case: case.name in ("muse", "kd", "dml"),
)
# For tests that take half a minute: every variant on the first task, the defaults on all.
variants_on_one_task = over(
    [case for case in CASES if on_first_task(case) or case.variant == "defaults"]
)
usual_cases = over([case for case in DEFAULTS if usual(case)])
every_method = over(CASES, of_each_method)

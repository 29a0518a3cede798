"""What a run is about to train, in lines for the screen."""

from lightning_fabric import Fabric
from torch import nn

from ..core import STUDENT, Task
from ..engine.run_directory import RunDirectory
from ..modules.composite import composite_description
from ..recipe.build_method import teacher_network
from ..recipe.build_run import RunComponents
from ..recipe.options import objective
from ..recipe.presets import describe_preset
from ..recipe.quantization import describe_quantization
from ..tasks import Classification


def run_summary(
    components: RunComponents, fabric: Fabric, directory: RunDirectory
) -> dict[str, str]:
    """Method, network, data, device and directory of a run, a line each."""
    recipe, data = components.recipe, components.data
    splits = {"train": data.train, "val": data.val, "test": data.test}
    sizes = ", ".join(f"{len(images):,} {name}" for name, images in splits.items() if images)
    sizes += " (train is not read)" * components.method.needs.unlabeled
    if data.extra:
        sizes += f", {len(data.extra.images):,} extra of {data.extra.name}"
    shape = " × ".join(str(side) for side in data.train.shape)
    processes = f" × {fabric.world_size}" if fabric.world_size > 1 else ""
    names = recipe.peers or [recipe.model] * len(components.peers)
    peers = zip(names, components.peers, strict=True)
    summary = {"task": data.task} if data.task != Classification.name else {}
    joined, deployed = "+" in recipe.method, composite_description(components.method)
    summary |= {
        "method": recipe.method,
        **({"objective": objective(recipe.method, recipe.options)} if joined else {}),
        "network": _described(recipe.model, components.network),
        **({"deployed": deployed} if deployed else {}),
        **{f"peer {i}": _described(*peer) for i, peer in enumerate(peers, 1)},
    }
    if components.teacher:
        note = f"; {components.teacher_note}" if components.teacher_note else ""
        summary["teacher"] = _described(recipe.teacher, teacher_network(components.teacher)) + note
    conversion = f", {data.conversion}" if data.conversion else ""
    content = f"{len(data.classes)} classes"
    if components.task.embeddings:
        content = f"no label is read, embeddings of {len(data.classes)}"
    if preset := describe_preset(recipe):
        summary["preset"] = preset
    if quantization := describe_quantization(components.method.predictors()[STUDENT]):
        summary["quantize"] = quantization
    return summary | {
        "data": f"{data.name}: {sizes}; {content}, {shape}{conversion}",
        "normalization": data.normalization_text,
        "device": f"{fabric.device.type}{processes}, {recipe.precision}"
        + ", channels last" * bool(recipe.channels_last),
        "run": str(directory.path),
    }


def describe_average(directory: RunDirectory, task: Task) -> str:
    """That the moving average of the weights is deployed, and the score of both, a sentence."""
    text = "what is evaluated, kept and exported is the moving average of the weights"
    key, metric = "val_without_ema", task.primary_metric
    logged = [entry for entry in directory.metrics() if key in entry]
    if not logged:
        return text
    average, live = (logged[-1][k][STUDENT][metric] for k in ("val", key))
    return (
        f"{text}: {metric} {average:.4f} on validation images, that of the weights themselves "
        f"{live:.4f}"
    )


def _described(name: str, network: nn.Module) -> str:
    return f"{name}, {sum(p.numel() for p in network.parameters()):,} parameters"

"""Detection of the ends of a network's stages from one forward pass."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import ConfigError
from ..core.training_modes import restored_modes
from .feature_map import as_map, count_prefix_tokens, image_size


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's mode is restored."""
    with restored_modes(network), torch.no_grad():
        network.eval()
        yield


@contextmanager
def hooked(
    modules: Iterable[nn.Module], hook: Callable[[nn.Module, Any, Any], None]
) -> Iterator[None]:
    """Each module calls the hook with itself, its arguments and its output when it has run."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def beside(network: nn.Module, example: Any) -> Any:
    """An example input on the network's device; as it is where the network has no parameters."""
    parameter = next(network.parameters(), None)
    return example if parameter is None else example.to(parameter.device)


def example_output(network: nn.Module, example: Any) -> Any:
    """Output of the network for an example, in evaluation mode and on the network's device.

    Raises:
        ConfigError: wrong channel count, images smaller than the network allows, images for a
            network of clips, or a network that does not take a graph as one input.
    """
    if not isinstance(example, Tensor):
        return _graph_output(network, example)
    with misfit_told(network, example), evaluation_mode(network):
        return network(beside(network, example))


@contextmanager
def misfit_told(network: nn.Module, example: Any) -> Iterator[None]:
    """Context of a network's first pass, whose failure is told in a sentence.

    Raises:
        ConfigError: the network does not take the example.
    """
    try:
        yield
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        if not isinstance(example, Tensor):
            raise
        raise ConfigError(f"{type(network).__name__} {_misfit(network, example, error)}") from error


def _misfit(network: nn.Module, example: Tensor, error: Exception) -> str:
    """In which a network and its input do not fit, a clause with a remedy."""
    channels, *sides = example.shape[1:]
    kind, others = ("images", "clips") if len(sides) == 2 else ("clips", "images")
    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
    first = next(convolutions, None)
    if first is not None and len(first.kernel_size) != len(sides):
        remedy = (
            "--task clips" if kind == "images" else "one with 3-D convolutions: clips/r3d10_w16"
        )
        return f"is a network for {others}, and these are {kind}; take {remedy}"
    if first is not None and first.in_channels != channels:
        return (
            f"takes {first.in_channels} channels and the {kind} have {channels}; build it for "
            f"{channels}, or convert the {kind}"
        )
    weights = next((p.dtype for p in network.parameters() if p.is_floating_point()), example.dtype)
    if weights != example.dtype:
        held, given = (str(dtype).removeprefix("torch.") for dtype in (weights, example.dtype))
        return (
            f"has {held} weights and the {kind} are {given}; convert one of them, a network by "
            "network.float(), and choose what training computes in by precision"
        )
    remedy = _grid_remedy(network, first) or _size_remedy(network, sides[-2])
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return f"cannot take {kind} of {'×'.join(map(str, sides))}; {remedy} ({reason})"


def _graph_output(network: nn.Module, graph: Any) -> Any:
    try:
        with evaluation_mode(network):
            return network(beside(network, graph))
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError, AttributeError) as e:
        name, reason = type(network).__name__, str(e).splitlines()[0]
        raise ConfigError(
            f"{name} cannot take a graph ({type(graph).__name__}) as its one input; wrap it in a "
            "module whose forward(graph) returns network(graph.x, graph.edge_index), or correct "
            f"the example ({reason})"
        ) from e


def _grid_remedy(network: nn.Module, stem: nn.Module | None) -> str:
    """The clips of a network with places for a fixed grid of tokens (torchvision's MViT), or ""."""
    grids: Iterator[Any] = (m for m in network.modules() if hasattr(m, "spatial_size"))
    grid = next((m for m in grids if hasattr(m, "temporal_size")), None)
    if grid is None or not isinstance(stem, nn.Conv3d):
        return ""
    frames, side = grid.temporal_size * stem.stride[0], grid.spatial_size[0] * stem.stride[1]
    return f"it is built for --clip-frames {frames} --image-size {side}"


def _size_remedy(network: nn.Module, side: int) -> str:
    sizes = (getattr(module, "img_size", None) for module in network.modules())  # of patches
    size = next((s for s in sizes if isinstance(s, int | tuple)), None)
    if size is not None:
        return f"it is built for --image-size {size if isinstance(size, int) else size[0]}"
    return f"try --image-size {' or '.join(str(s) for s in (32, 64, 224) if s > side) or 512}"


def training_output(network: nn.Module, example: Any) -> Any:
    """Output of the network for an example in training mode; nothing of it changes."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        with restored_modes(network), torch.random.fork_rng(devices=[]), torch.no_grad():
            return network.train()(beside(network, example))
    finally:
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])


class ModuleOutput(NamedTuple):
    """A module that runs once in a pass and returns one feature."""

    name: str
    shape: tuple[int, ...]
    pools: bool

    @property
    def depth(self) -> int:
        """Number of names in its path."""
        return self.name.count(".") + 1

    @property
    def area(self) -> int:
        """Number of cells or tokens, of a clip at all times."""
        return prod(self.shape[1:])


def module_outputs(network: nn.Module, example: Any) -> list[ModuleOutput]:
    """All modules that run exactly once and return a feature, in order of completion."""
    records: list[tuple[str, nn.Module, tuple[int, ...]]] = []
    size, prefix = image_size(example), count_prefix_tokens(network)
    # vectors of images are no places to read
    fewest, most = (3, example.dim()) if isinstance(example, Tensor) else (2, 4)

    def record(module: nn.Module, args: Any, output: Any) -> None:
        usable = isinstance(output, Tensor) and fewest <= output.dim() <= most
        shape = tuple(as_map(output, size, prefix).shape[1:]) if usable else ()
        records.append((names[module], module, shape))

    names = {module: name for name, module in network.named_modules() if name}
    with hooked(names, record), evaluation_mode(network):
        network(example)
    runs = Counter(name for name, _, _ in records)
    return [
        ModuleOutput(name, shape, _pools(module))
        for name, module, shape in records
        if shape and runs[name] == 1
    ]


def _pools(module: nn.Module) -> bool:
    parametric = next(module.parameters(), None) is not None
    return "pool" in type(module).__name__.lower() and not parametric


def check_uncompiled(network: nn.Module) -> None:
    """Raises `ConfigError` for a network by `torch.compile`, whose modules are hidden behind it."""
    if type(network).__name__ == "OptimizedModule":
        raise ConfigError(
            "the network is compiled, so that its modules are hidden; give it as it was before "
            "torch.compile, and compile what trains it: train(compile=True), or the criterion"
        )


def find_taps(
    network: nn.Module, example: Any, count: int = 4, *, stages: bool = False
) -> list[str]:
    """Names of up to `count` modules that end a network's stages, shallowest first.

    In this order: the network's own `cuts`, if it has that attribute; the last modules to complete
    before the resolution falls; and where it falls less than twice (transformers, mixers),
    evenly spaced blocks of the longest run of like modules, the last one with the norm behind it.

    Args:
        network: any module.
        example: images or clips by which stages are found, or a graph.
        count: the most names.
        stages: prefer the network's `stage_ends`, where it has that attribute: its stages alone,
            without the stem and the layers behind them that `cuts` may hold.

    Raises:
        ConfigError: the network has neither stages nor a run of blocks.
    """
    check_uncompiled(network)
    own = (stages and _declared(network, "stage_ends")) or _declared(network, "cuts")
    if own:
        return own
    outputs = module_outputs(network, example)
    ends = _stages(outputs, count)
    if len(ends) >= 3:
        return ends[-count:]
    blocks = _blocks(network, outputs)
    if len(blocks) > len(ends):
        picked = {max(0, round(len(blocks) * (i + 1) / count) - 1) for i in range(count)}
        shallow = [blocks[i] for i in sorted(picked)][:-1]
        return [*shallow, _normalized(blocks[-1], outputs)]
    if len(ends) == 2:
        return ends
    names = [o.name for o in outputs] or [name for name, _ in network.named_modules() if name]
    raise ConfigError(
        f"no stages were found in {type(network).__name__}: give the taps by name "
        f"(it has: {', '.join(names[:8])}, …)"
    )


def _declared(network: nn.Module, attribute: str) -> list[str]:
    """Names of modules that an attribute holds; timm's EfficientNets number their `stage_ends`."""
    names = list(getattr(network, attribute, None) or ())
    return names if all(isinstance(name, str) for name in names) else []


def _normalized(block: str, outputs: list[ModuleOutput]) -> str:
    """The last module behind a block whose output has the same shape: what a classifier pools."""
    names = [output.name for output in outputs]
    behind = outputs[names.index(block) :]
    return [output.name for output in behind if output.shape == behind[0].shape][-1]


def _stages(outputs: list[ModuleOutput], count: int) -> list[str]:
    """The ends of the stages, at the smallest depth that shows `count` of them (or the most).

    Deep inside a block an expansion may still run at the resolution of the stage before, so
    depth is added only as long as it finds more stages.
    """
    heads = [i for i, f in enumerate(outputs) if f.pools and f.area == 1 and f.depth <= 2]
    trunk = outputs[: heads[0]] if heads else outputs
    best: list[str] = []
    for depth in range(1, 5):
        ends = _stage_ends([f for f in trunk if f.depth <= depth])
        if len(ends) > len(best):
            best = ends
        if len(best) >= count:
            break
    return best


def _stage_ends(outputs: list[ModuleOutput]) -> list[str]:
    """The last module at each resolution, where resolutions decrease towards the output."""
    last: dict[int, ModuleOutput] = {}
    for output in outputs:
        if not (output.pools and output.area == 1):
            last.pop(output.area, None)  # re-inserted, so that the order is that of completion
            last[output.area] = output
    kept: list[ModuleOutput] = []
    for output in reversed(last.values()):  # modules that shrink inside a stage (gates) are skipped
        if not kept or output.area > kept[-1].area:
            kept.append(output)
    return [output.name for output in reversed(kept)]


def _blocks(network: nn.Module, outputs: list[ModuleOutput]) -> list[str]:
    """The longest run of sibling modules of one class and one shape."""
    shapes = {output.name: output.shape for output in outputs}
    runs: dict[tuple[str, type, tuple[int, ...]], list[str]] = {}
    for name, module in network.named_modules():
        if name in shapes and next(module.children(), None) is not None:
            parent = name.rpartition(".")[0]
            runs.setdefault((parent, type(module), shapes[name]), []).append(name)
    return max(runs.values(), key=len, default=[])

"""Features by name from any network, without touching its code."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .core import ConfigError, Frozen, nearest


class Taps(nn.Module):
    """A network whose features at some of its modules can be read.

    ``taps(x)`` is the network's own output; ``taps.tapped(x)`` also gives the features. Every
    feature is (B, C, H, W): channels-last maps are permuted, token sequences (B, N, C) become (B,
    C, N, 1) and vectors (B, C, 1, 1), so that a head or a critic serves every architecture.

    Args:
        network: any module; it is neither copied nor changed (a forward hook is added at each tap).
        names: dotted names of modules, shallowest first, or ``"auto"`` (see `find_taps`).
        example: one input (or a few), (B, C, H, W), to learn the shapes from.

    Attributes:
        names: the taps, shallowest first.
        shapes: (C, H, W) at each tap, for inputs of the example's size.

    Raises:
        ConfigError: a name that does not exist, a tap that stays silent or fires twice in one pass,
            or whose output is not a tensor.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        >>> taps = Taps(network, ["1"], example=torch.zeros(2, 3, 8, 8))
        >>> out, features = taps.tapped(torch.zeros(5, 3, 8, 8))
        >>> features["1"].shape
        torch.Size([5, 4, 6, 6])
    """

    def __init__(
        self, network: nn.Module, names: Sequence[str] | str = "auto", *, example: Tensor
    ) -> None:
        super().__init__()
        self.network = network
        self._caught: dict[str, Tensor] | None = None
        self._stop_at: str | None = None
        if isinstance(names, str):
            names = find_taps(network, example) if names == "auto" else names.split(",")
        self.names = tuple(name.strip() for name in names)
        modules = {name: module for name, module in network.named_modules() if name}
        if len(set(self.names)) < len(self.names):
            raise ConfigError(f"a tap is named twice in {', '.join(self.names)}")
        for name in self.names:
            if name not in modules:
                raise ConfigError(
                    f"{type(network).__name__} has no module '{name}'{nearest(name, modules)}; "
                    "`selfdistill taps MODEL` lists them"
                )
            modules[name].register_forward_hook(partial(self._catch, name))
        with probing(network):
            _, features = self.tapped(example)
        self.shapes = {n: (f.shape[1], f.shape[2], f.shape[3]) for n, f in features.items()}

    def forward(self, x: Tensor) -> Any:
        """The network's own output."""
        return self.network(x)

    def tapped(self, x: Tensor, *, raw: bool = False) -> tuple[Any, dict[str, Tensor]]:
        """The network's output and {tap: (B, C, H, W)}, shallowest first.

        `raw` features are as the network passes them on, to be given to its next layers.
        """
        caught: dict[str, Tensor] = {}
        self._caught = caught
        try:
            out = self.network(x)
        finally:
            self._caught = None
        if silent := [name for name in self.names if name not in caught]:
            raise ConfigError(
                f"tap '{silent[0]}' of {type(self.network).__name__} stayed silent: the forward "
                "pass does not call this module; tap one that it calls"
            )
        return out, {n: caught[n] if raw else as_map(caught[n]) for n in self.names}

    def until(self, name: str, x: Tensor) -> Tensor:
        """The feature (B, C, H, W) at one tap; nothing after the tap is computed."""
        self._caught, self._stop_at = {}, name
        try:
            self.network(x)
        except _Reached as reached:
            return as_map(reached.feature)
        finally:
            self._caught = self._stop_at = None
        raise ConfigError(f"tap '{name}' stayed silent")

    def _catch(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if self._caught is None:
            return
        if name in self._caught:
            raise ConfigError(
                f"tap '{name}' fired twice in one pass: its module is shared; "
                "tap the block that contains it"
            )
        if not isinstance(output, Tensor):
            raise ConfigError(
                f"tap '{name}' gives a {type(output).__name__}, no tensor; tap a module inside it"
            )
        self._caught[name] = output
        if name == self._stop_at:
            raise _Reached(self._caught[name])


class Teacher(Frozen):
    """A frozen network with taps, for targets alone: nothing that it says carries a gradient.

    Args:
        taps: of the teacher's network.
    """

    def __init__(self, taps: Taps) -> None:
        super().__init__(taps)
        self.shapes = taps.shapes

    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        """The teacher's output."""
        return self.network(x)

    @torch.no_grad()
    def tapped(self, x: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """The teacher's output and features, as `Taps.tapped` gives them."""
        out, features = self.network.tapped(x)  # type: ignore[operator]
        return out, features


class _Reached(Exception):  # noqa: N818  no error: it ends a pass that has served its purpose
    def __init__(self, feature: Tensor) -> None:
        self.feature = feature


def as_map(x: Tensor) -> Tensor:
    """Any batched feature as (B, C, H, W).

    A 4-d feature whose dims 1 and 2 agree while 3 differs is taken for channels-last (Swin): of a
    square image no channels-first map looks like that.
    """
    if x.dim() == 2:
        return x[:, :, None, None]
    if x.dim() == 3:
        return x.transpose(1, 2).unsqueeze(-1)
    if x.dim() == 4:
        _, a, b, c = x.shape
        return x.permute(0, 3, 1, 2) if a == b != c else x
    raise ConfigError(f"a feature of shape {tuple(x.shape)} is neither a map nor a token sequence")


@contextmanager
def probing(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's mode is put back as it was."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class Firing(NamedTuple):
    """One module that ran once and gave one feature."""

    name: str
    shape: tuple[int, int, int]
    pools: bool

    @property
    def depth(self) -> int:
        """How many names its path has."""
        return self.name.count(".") + 1

    @property
    def area(self) -> int:
        """Cells of the map, or tokens."""
        return self.shape[1] * self.shape[2]


def firings(network: nn.Module, example: Tensor) -> list[Firing]:
    """All modules that ran exactly once and gave a feature, in order of completion."""
    seen: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def record(name: str, module: nn.Module, args: Any, output: Any) -> None:
        usable = isinstance(output, Tensor) and 3 <= output.dim() <= 4
        seen.append((name, module, tuple(as_map(output).shape[1:]) if usable else ()))

    handles = [m.register_forward_hook(partial(record, n)) for n, m in network.named_modules() if n]
    try:
        with probing(network):
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    runs = Counter(name for name, _, _ in seen)
    return [
        Firing(name, (shape[0], shape[1], shape[2]), _pools(module))
        for name, module, shape in seen
        if shape and runs[name] == 1
    ]


def _pools(module: nn.Module) -> bool:
    parametric = next(module.parameters(), None) is not None
    return "pool" in type(module).__name__.lower() and not parametric


def find_taps(network: nn.Module, example: Tensor, count: int = 4) -> list[str]:
    """The names of up to `count` modules that end a network's stages, shallowest first.

    In this order: the network's own `cuts`, if it has that attribute; the last modules to complete
    before the resolution falls; and where it falls less than twice (transformers, mixers),
    evenly spaced blocks of the longest run of like modules.

    Raises:
        ConfigError: the network has neither stages nor a run of blocks.
    """
    if cuts := getattr(network, "cuts", None):
        return list(cuts)
    fired = firings(network, example)
    stages = _stages(fired, count)
    if len(stages) >= 3:
        return stages[-count:]
    blocks = _blocks(network, fired)
    if len(blocks) > len(stages):
        picked = {max(0, round(len(blocks) * (i + 1) / count) - 1) for i in range(count)}
        return [blocks[i] for i in sorted(picked)]
    if len(stages) == 2:
        return stages
    raise ConfigError(
        f"no stages were found in {type(network).__name__}: give the taps by name "
        f"(it has: {', '.join(f.name for f in fired[:8])}, …)"
    )


def _stages(fired: list[Firing], count: int) -> list[str]:
    """The ends of the stages, as high in the module tree as `count` of them (or the most) show.

    Deep inside a block an expansion may still run at the resolution of the stage before, so
    depth is added only as long as it finds more stages.
    """
    heads = [i for i, f in enumerate(fired) if f.pools and f.area == 1 and f.depth <= 2]
    trunk = fired[: heads[0]] if heads else fired
    best: list[str] = []
    for depth in range(1, 5):
        found = _falls([f for f in trunk if f.depth <= depth])
        if len(found) > len(best):
            best = found
        if len(best) >= count:
            break
    return best


def _falls(fired: list[Firing]) -> list[str]:
    """The last module at each resolution, where resolutions only fall towards the output."""
    last: dict[int, Firing] = {}
    for firing in fired:
        if not (firing.pools and firing.area == 1):
            last.pop(firing.area, None)  # re-inserted, so that the order is that of completion
            last[firing.area] = firing
    kept: list[Firing] = []
    for firing in reversed(last.values()):  # what shrinks inside a stage (gates) is passed over
        if not kept or firing.area > kept[-1].area:
            kept.append(firing)
    return [firing.name for firing in reversed(kept)]


def _blocks(network: nn.Module, fired: list[Firing]) -> list[str]:
    """The longest run of sibling modules of one class and one shape."""
    shapes = {firing.name: firing.shape for firing in fired}
    runs: dict[tuple[str, type, tuple[int, int, int]], list[str]] = {}
    for name, module in network.named_modules():
        if name in shapes and next(module.children(), None) is not None:
            parent = name.rpartition(".")[0]
            runs.setdefault((parent, type(module), shapes[name]), []).append(name)
    return max(runs.values(), key=len, default=[])

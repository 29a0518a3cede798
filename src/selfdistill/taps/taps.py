"""Features of any network by module name, read by forward hooks."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Batch, ConfigError, Frozen, NetworkWrapper, nearest
from .feature_map import (
    as_map,
    count_prefix_tokens,
    image_size,
    reads_class_token,
    skipped_tokens,
)
from .stage_detection import check_uncompiled, evaluation_mode, find_taps, misfit_told


class Taps(NetworkWrapper):
    """A network with access to the outputs of some of its modules.

    ``taps(x)`` is the network's own output; ``taps.forward_features(x)`` also gives the features.
    Every feature is (B, C, H, W), see `as_map`: channels-last maps are permuted, tokens laid out as
    the image's patches, and vectors become (B, C, 1, 1), so that a head or a critic serves every
    architecture. The input may be a graph: of its nodes' features (N, C) each is a vector. Maps of
    clips keep their times, (B, C, T, H, W).

    Args:
        network: any module; it is neither copied nor changed (a forward hook is added at each tap).
        names: dotted names of modules, shallowest first, or ``"auto"`` or ``"stages"`` (see
            `find_taps`).
        example: one input (or a few), (B, C, H, W) or (B, C, T, H, W), or a graph, by which shapes
            are found.

    Attributes:
        names: the taps, shallowest first.
        shapes: (C, H, W) or (C, T, H, W) at each tap, for inputs of the example's size.
        prefix_tokens: how many of the network's tokens are no patches of the image.

    Raises:
        ConfigError: a name that does not exist, a tap whose module runs never or twice in one pass,
            or whose output is not a tensor.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        >>> taps = Taps(network, ["1"], example=torch.zeros(2, 3, 8, 8))
        >>> out, features = taps.forward_features(torch.zeros(5, 3, 8, 8))
        >>> features["1"].shape
        torch.Size([5, 4, 6, 6])
    """

    def __init__(
        self, network: nn.Module, names: Sequence[str] | str = "auto", *, example: Any
    ) -> None:
        super().__init__()
        self.network = network
        self.prefix_tokens = count_prefix_tokens(network)
        self.class_token = reads_class_token(network)
        self._state = _PassState()
        self.names = tuple(resolve_taps(network, names, example))
        check_tap_names(network, self.names)
        for name in self.names:
            network.get_submodule(name).register_forward_hook(partial(self._catch, name))
        versions: dict[str, tuple[Tensor, int]] = {}
        self._state.versions = versions
        with misfit_told(network, example), evaluation_mode(network):
            _, features = self.forward_features(example)
        self._state.versions, self._state.changed = None, self._changed_in_place(versions)
        self.shapes = {name: tuple(feature.shape[1:]) for name, feature in features.items()}
        self._check_sides(example)

    def _changed_in_place(self, versions: Mapping[str, tuple[Tensor, int]]) -> set[str]:
        """The taps but for the last whose outputs later layers change in place, as a ReLU may.

        What an exit reads is what its module gives: that is all there is where the network is cut.
        The last feature stays as the classifier reads it.
        """
        return {
            name
            for name, (output, first) in versions.items()
            if name != self.names[-1] and output._version != first
        }

    def _check_sides(self, example: Any) -> None:
        """Raises `ConfigError` for features with more sides than the input, or of several kinds."""
        limit = example.dim() - 1 if isinstance(example, Tensor) else 3
        for name, shape in self.shapes.items():
            if len(shape) > limit:
                raise ConfigError(
                    f"tap '{name}' gives a feature of {shape} for an input of fewer sides; tap a "
                    "module whose output is a map or a token sequence"
                )
        if len({len(shape) for shape in self.shapes.values()}) > 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items())
            raise ConfigError(
                f"some of the taps have times and others have not ({listed}); name "
                "modules of one kind"
            )

    def forward(self, x: Any) -> Any:
        """The network's own output."""
        return self.network(x) if self._state.passes is None else self.forward_features(x)[0]

    def forward_features(self, x: Any, *, raw: bool = False) -> tuple[Any, dict[str, Tensor]]:
        """The network's output and {tap: (B, C, H, W)}, shallowest first.

        `raw` features are as the network passes them on, to be given to its next layers.
        """
        out, caught = self._cached_pass(x) or self._pass(x)
        return out, {n: caught[n] if raw else self.as_map(caught[n], x) for n in self.names}

    def forward_pooled(self, x: Any) -> tuple[Any, dict[str, Tensor], Tensor]:
        """As `forward_features`, and the last feature as its classifier pools it, (B, C).

        The class token where the network's classifier reads that one; else the mean over places.
        """
        out, caught = self._cached_pass(x) or self._pass(x)
        features = {name: self.as_map(caught[name], x) for name in self.names}
        last, feature = caught[self.names[-1]], features[self.names[-1]]
        pooled = feature.mean(tuple(range(2, feature.dim())))
        if last.dim() == 3 and self.class_token:
            has_prefix = skipped_tokens(last.shape[1], image_size(x), self.prefix_tokens)
            pooled = last[:, 0] if has_prefix else pooled
        return out, features, pooled

    def as_map(self, x: Tensor, inputs: Any) -> Tensor:
        """A raw feature of these inputs as (B, C, H, W), without the tokens of no patch."""
        return as_map(x, image_size(inputs), self.prefix_tokens)

    def _cached_pass(self, x: Any) -> tuple[Any, dict[str, Tensor]] | None:
        for cached, with_grad, out, caught in self._state.passes or ():
            if cached is x and with_grad == torch.is_grad_enabled():
                return out, caught
        return None

    def _pass(self, x: Any) -> tuple[Any, dict[str, Tensor]]:
        caught: dict[str, Tensor] = {}
        self._state.caught = caught
        try:
            out = self.network(x)
        finally:
            self._state.caught = None
        if silent := [name for name in self.names if name not in caught]:
            raise ConfigError(
                f"tap '{silent[0]}' of {type(self.network).__name__} stayed silent: the forward "
                "pass does not call this module; tap one that it calls"
            )
        if self._state.passes is not None:
            self._state.passes.append((x, torch.is_grad_enabled(), out, caught))
        return out, caught

    @contextmanager
    def shared_forward(self) -> Iterator[None]:
        """Inside, one pass over an input serves all calls with this input."""
        self._state.passes = []
        try:
            yield
        finally:
            self._state.passes = None

    def select(self, names: Sequence[str]) -> "Taps":
        """The same network with some of its taps, which shares the passes of this one."""
        selected = copy.copy(self)
        selected.names = tuple(names)
        selected.shapes = {name: self.shapes[name] for name in names}
        return selected

    def forward_until(self, name: str, x: Any) -> Tensor:
        """The feature (B, C, H, W) at one tap; nothing after the tap is computed."""
        self._state.caught, self._state.stop_at = {}, name
        try:
            self.network(x)
        except _Reached as reached:
            return self.as_map(reached.feature, x)
        finally:
            self._state.caught = self._state.stop_at = None
        raise ConfigError(f"tap '{name}' stayed silent")

    def _catch(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        caught = self._state.caught
        if caught is None:
            return
        if name in caught:
            raise ConfigError(
                f"tap '{name}' fired twice in one pass: its module is shared; "
                "tap the block that contains it"
            )
        if not isinstance(output, Tensor):
            raise ConfigError(
                f"tap '{name}' gives a {type(output).__name__}, no tensor; tap a module inside it"
            )
        if self._state.versions is not None and not output.is_inference():
            self._state.versions[name] = output, output._version
        caught[name] = output.clone() if name in self._state.changed else output
        if name == self._state.stop_at:
            raise _Reached(output)


class _PassState:
    """What a network's hooks write during a pass, shared by all selections of its taps.

    Attributes:
        caught: features of the pass under way by tap; None outside of passes.
        stop_at: the tap that ends the pass.
        versions: outputs by tap, and how often they were changed then; None but in the first pass.
        changed: taps whose outputs are changed in place later, and copied therefore.
        passes: (input, whether with gradients, output, features) inside `shared_forward`, or None.
    """

    def __init__(self) -> None:
        self.caught: dict[str, Tensor] | None = None
        self.stop_at: str | None = None
        self.versions: dict[str, tuple[Tensor, int]] | None = None
        self.changed: set[str] = set()
        self.passes: list[tuple[Any, bool, Any, dict[str, Tensor]]] | None = None


def check_tap_names(network: nn.Module, names: Sequence[str]) -> None:
    """Raises `ConfigError` for a name that no module of the network has, and one given twice."""
    check_uncompiled(network)
    if len(set(names)) < len(names):
        raise ConfigError(f"a tap is named twice in {', '.join(names)}")
    modules = [name for name, _ in network.named_modules() if name]
    for name in names:
        if name not in modules:
            raise ConfigError(
                f"{type(network).__name__} has no module '{name}'{nearest(name, modules)}; "
                "`selfdistill taps MODEL` lists them"
            )


def resolve_taps(network: nn.Module, names: Sequence[str] | str, example: Any) -> list[str]:
    """The names of taps, found where they are ``"auto"`` or ``"stages"``, see `find_taps`."""
    if isinstance(names, str):
        if names in ("auto", "stages"):
            return find_taps(network, example, stages=names == "stages")
        names = names.split(",")
    return [name.strip() for name in names]


class Teacher(Frozen):
    """A frozen network with taps whose outputs carry no gradient.

    Args:
        taps: of the teacher's network.
    """

    def __init__(self, taps: Taps) -> None:
        super().__init__(taps)
        self.names, self.shapes = taps.names, taps.shapes

    @torch.no_grad()
    def forward(self, x: Any) -> Any:
        """The teacher's output."""
        return self.network(x)

    @torch.no_grad()
    def forward_features(self, x: Any) -> tuple[Any, dict[str, Tensor]]:
        """The teacher's output and features, as `Taps.forward_features` gives them."""
        out, features = self.network.forward_features(x)  # type: ignore[operator]
        return out, features

    @torch.no_grad()
    def forward_pooled(self, x: Any) -> tuple[Any, dict[str, Tensor], Tensor]:
        """Output, features and pooled last feature, as `Taps.forward_pooled` gives them."""
        out, features, pooled = self.network.forward_pooled(x)  # type: ignore[operator]
        return out, features, pooled

    def pooled(self, batch: Batch, view: int = 0) -> tuple[Any, Tensor]:
        """Output and pooled last feature for a view of a batch, which brings them or the images.

        Args:
            batch: see `Batch.teacher_pooled`.
            view: 0 for its `inputs`, i for the i-th of its `views`.
        """
        if batch.teacher_pooled:
            return batch.teacher_outputs[view], batch.teacher_pooled[view]
        out, _, pooled = self.forward_pooled((batch.inputs, *batch.views)[view])
        return out, pooled


class _Reached(Exception):  # noqa: N818  no error: it ends a pass early
    def __init__(self, feature: Tensor) -> None:
        self.feature = feature

"""`selfdistill taps`: where a network's features can be read."""

from typing import TYPE_CHECKING, Annotated

import typer

from .console import console, echo, table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..taps import ModuleOutput


def taps(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The network; selfdistill models lists them.")
    ],
    image_size: Annotated[int, typer.Option(min=1, help="Side of the images, in pixels.")] = 32,
    classes: Annotated[int, typer.Option(min=1, help="Outputs of the network.")] = 10,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the images.")] = 3,
    everything: Annotated[
        bool, typer.Option("--all", help="Show the inner modules of blocks, too.")
    ] = False,
) -> None:
    """List the modules of a network whose features can be read, the automatic choice starred."""
    import torch

    from ..models import build
    from ..recipe.build_run import check_input
    from ..taps import module_outputs

    example = torch.zeros(2, channels, image_size, image_size)
    network = build(model, num_classes=classes, in_channels=channels)
    check_input(network, example)
    chosen, excuse = _automatic(network, example)
    fired = module_outputs(network, example)
    deepest = max([2, *(firing.depth for firing in fired if firing.name in chosen)])
    shown = fired if everything else [firing for firing in fired if firing.depth <= deepest]
    _show(shown, chosen)
    if excuse:
        echo(excuse)
    elif len(chosen) > 1:
        echo(f"\n* taken by --taps auto; others: --taps {','.join(chosen[-2:])}", "dim")
    if len(shown) < len(fired):
        echo(f"{len(fired) - len(shown)} more inside of these: --all", "dim")


def _automatic(network: "nn.Module", example: "Tensor") -> tuple[list[str], str]:
    """The automatic choice, or none and why."""
    from ..core import ConfigError
    from ..taps import find_taps

    try:
        return find_taps(network, example), ""
    except ConfigError as fault:
        return [], str(fault)


def _show(shown: "list[ModuleOutput]", chosen: list[str]) -> None:
    made = table("", "module", ">channels", ">height × width")
    for firing in shown:
        channels, height, width = firing.shape
        star = firing.name in chosen
        size = f"{height} × {width}"
        style = "bold" if star else None
        made.add_row("*" if star else "", firing.name, str(channels), size, style=style)
    console.print(made)

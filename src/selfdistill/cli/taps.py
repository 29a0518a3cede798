"""`selfdistill taps`: modules of a network whose features can be read."""

from typing import Annotated

import typer

from ..runs.terminal import console
from .console import echo, table


def taps(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Network; selfdistill models lists them.")
    ],
    image_size: Annotated[int, typer.Option(min=1, help="Side of the images in pixels.")] = 32,
    classes: Annotated[int, typer.Option(min=1, help="Number of outputs of the network.")] = 10,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the images.")] = 3,
    everything: Annotated[
        bool, typer.Option("--all", help="Show the inner modules of blocks, too.")
    ] = False,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Python module or file to import first."),
    ] = None,
) -> None:
    """List the modules of a network whose features can be read, the automatic choice starred."""
    from ..diagnosis.tap_candidates import tap_candidates
    from ..models.cut import MARK
    from ..recipe.plugins import import_plugins

    import_plugins(imports or ())
    candidates = tap_candidates(
        model, image_size=image_size, num_classes=classes, in_channels=channels
    )
    automatic = candidates.automatic
    shown = candidates.modules if everything else candidates.outer_modules
    listing = table("", "module", ">channels", ">height × width")
    for module in shown:
        num_channels, *sides = module.shape
        star, style = ("*", "bold") if module.name in automatic else ("", None)
        size = " × ".join(map(str, sides))
        listing.add_row(star, module.name, str(num_channels), size, style=style)
    console.print(listing)
    if candidates.failure:
        echo(candidates.failure)
    elif len(automatic) > 1:
        echo(f"\n* taken by --taps auto; others: --taps {','.join(automatic[-2:])}", "dim")
        if MARK not in model:  # which is cut already
            echo(f"a shorter network ends at one: --model {model}{MARK}{automatic[-2]}", "dim")
    if hidden := len(candidates.modules) - len(shown):
        echo(f"{hidden} more inside of these: --all", "dim")

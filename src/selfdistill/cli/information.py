"""`selfdistill information`: information between the modules of networks."""

from pathlib import Path
from typing import Annotated, Any

import typer

_INPUT, _CRITICS = "Networks and data", "Critics"


def _option(panel: str, meaning: str, *names: str, **keys: Any) -> Any:
    return typer.Option(*names, help=meaning, rich_help_panel=panel, **keys)


def information(
    networks: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|RUN…",
            help="Directories of runs, or networks by name; several are compared.",
        ),
    ],
    runs: Annotated[
        list[str] | None, _option(_INPUT, "Further runs or networks.", metavar="RUN…")
    ] = None,
    data: Annotated[
        str | None,
        _option(
            _INPUT,
            "Data set by name, folder:PATH, csv:FILE, npz:FILE, wds:SHARDS or hf:SET.",
            show_default="the first run's, or digits",
        ),
    ] = None,
    taps: Annotated[
        str | None,
        _option(
            _INPUT,
            "Taps at which modules end; see selfdistill taps.",
            show_default="the run's, or auto",
        ),
    ] = None,
    weights: Annotated[
        str, _option(_INPUT, "Weights of networks by name: 'pretrained' or a weights file.")
    ] = "",
    image_size: Annotated[
        int | None,
        _option(_INPUT, "Side of the images in pixels.", min=1, show_default="the run's"),
    ] = None,
    at_bottlenecks: Annotated[
        bool,
        _option(
            _INPUT,
            "Measure runs with exits behind the exits' bottlenecks instead of at the taps.",
            "--at-bottlenecks",
        ),
    ] = False,
    trainable: Annotated[
        bool,
        _option(
            _CRITICS,
            "Train a copy of each network too, by its supervised loss and the losses of MI.",
            "--trainable",
        ),
    ] = False,
    critic: Annotated[str, _option(_CRITICS, "Critic: separable, concat or global.")] = "separable",
    width: Annotated[
        int | None,
        _option(_CRITICS, "Width of the critics.", min=1, show_default="the critic's default"),
    ] = None,
    estimator: Annotated[
        str, _option(_CRITICS, "Estimator of information: jsd, infonce, dv or nwj.")
    ] = "jsd",
    steps: Annotated[int, _option(_CRITICS, "Training steps of the critics.", min=1)] = 400,
    batch_size: Annotated[int, _option(_CRITICS, "Images of a step.", min=2)] = 128,
    lr: Annotated[float, _option(_CRITICS, "Initial learning rate of the critics.")] = 5e-3,
    seed: Annotated[
        int,
        _option(_CRITICS, "Random seed of critics, order of images and negatives.", min=0),
    ] = 0,
    seeds: Annotated[
        int,
        _option(_CRITICS, "Number of measurements with seeds from --seed on, for ±.", min=1),
    ] = 1,
    device: Annotated[str, _option(_CRITICS, "Device: auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[
        Path | None,
        _option(_CRITICS, "Output directory.", show_default="the next free information…"),
    ] = None,
) -> None:
    """Estimate the information of each module of a network about the last one and about itself.

    Critics are trained on the features of networks that stay frozen, and evaluated on held-out
    images (Figures 2 and 3 of MUSE, for any network).
    """
    from ..information import EstimatorConfig, estimate_information
    from ..information.directory import default_directory
    from ..information.page import check_free, save
    from ..runs.networks import networks_under_test
    from .console import echo
    from .information_output import InformationScreen, show_information

    directory = out or default_directory()
    check_free(directory)
    config = EstimatorConfig(
        steps=steps,
        seeds=range(seed, seed + seeds),
        batch_size=batch_size,
        lr=lr,
        critic=critic,
        width=width,
        estimator=estimator,
        trainable=trainable,
        device=device,
    )
    names = [networks[0], *(runs or []), *networks[1:]]  # --runs A B hands B to the arguments
    under_test, images = networks_under_test(
        names,
        data=data,
        taps=taps,
        weights=weights,
        image_size=image_size,
        seed=seed,
        at_bottlenecks=at_bottlenecks,
    )
    place = ", behind their exits' bottlenecks" if at_bottlenecks else ""
    kind = "trainable" if trainable else "frozen"
    echo(f"{images.name} · {steps} steps · {kind} networks{place}\n")
    with InformationScreen(under_test, config) as screen:
        result = estimate_information(under_test, images, config, callback=screen)
    show_information(result)
    echo("\nWritten:")
    for path in save(result, directory):
        echo(f"  {path}")

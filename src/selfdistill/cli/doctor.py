"""`selfdistill doctor`: a run examined before it starts."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.text import Text

from .console import (
    amount,
    console,
    echo,
    percent,
    table,
)
from .options import Out, RecipeFile, Settings, recipe_options
from .resolve_recipe import resolve_recipe

if TYPE_CHECKING:
    from ..diagnosis import (
        DataReport,
        FirstStepReport,
        NetworkReport,
        TeacherReport,
        TrainingCost,
    )

_SHOWN = 10  # names in a line
_WORTH = 100_000  # bytes of a memory that are worth a word


@recipe_options()
def doctor(
    *, recipe: RecipeFile = None, settings: Settings = None, out: Out = None, **keys: Any
) -> None:
    """Examine a run before it starts: data, network, teacher, loss terms, time and memory.

    Takes the options of selfdistill train, trains for a few steps and throws them away. Nothing is
    written. It exits as the training would if that could not start, and with 0 otherwise.
    """
    chosen = resolve_recipe(keys, recipe, settings)
    from ..diagnosis import diagnose

    # lightning greets; what matters it warns of
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    found = diagnose(chosen, out=out, show=_show)
    echo("verdict", "bold")
    for sentence in found.warnings:
        echo(f"! {sentence}", "yellow")
    count = len(found.warnings)
    several = "s" if count > 1 else ""
    echo(f"The run can start, with {count} warning{several}." if count else "The run can start.")


def _show(section: Any) -> None:
    _PRINTERS[type(section).__name__](section)
    echo()


def _facts(title: str, facts: dict[str, str]) -> None:
    echo(title, "bold")
    made = table("", "")
    made.show_header = False
    for name, text in facts.items():
        made.add_row(name, Text(text))
    console.print(made)


def _data(found: "DataReport") -> None:
    by_size = sorted(zip(found.counts, found.classes, strict=True))
    names = ", ".join(found.classes[:_SHOWN]) + (", …" if len(found.classes) > _SHOWN else "")
    (mean, std), (own_mean, own_std) = found.normalization, found.moments
    facts = {
        "images": ", ".join(f"{size:,} {name}" for name, size in found.sizes.items())
        + f"; {_size(found.shape)}",
        "classes": f"{len(found.classes)}: {names}",
        f"training {found.unit}": f"{_of(by_size[0])} … {_of(by_size[-1])}",
        "normalized by": f"mean {_numbers(mean)}, deviation {_numbers(std)}",
        "measured": f"mean {_numbers(own_mean)}, deviation {_numbers(own_std)} "
        f"({found.sampled:,} images)",
    }
    if found.layout:
        facts["layout"] = found.layout
    if found.empty:
        facts["empty"] = f"{found.empty:,} training images"
    if found.thin:
        facts["thin"] = f"{found.thin:,} training boxes are less than 4 pixels wide or high"
    for name, (twice, looked) in found.repeated.items():
        facts[f"{name} in train"] = f"{twice:,} of {looked:,} images looked at"
    _facts(f"data: {found.name}", facts)


def _of(counted: tuple[int, str]) -> str:
    return f"{counted[0]:,} of '{counted[1]}'"


def _network(found: "NetworkReport") -> None:
    frozen = f", {amount(found.frozen)} of them frozen" if found.frozen else ""
    facts = {"parameters": f"{amount(found.parameters)}{frozen}"}
    if found.taps:
        facts["taps"] = ", ".join(f"{name} {_size(shape)}" for name, shape in found.taps.items())
    facts |= {f"peer {name}": f"{amount(size)} parameters" for name, size in found.peers.items()}
    _facts(f"network: {found.name}", facts)
    if found.added:
        kept = any(part.buffers >= _WORTH for part in found.added)
        memory = [">memory"] if kept else []
        made = table("added by the method", "", ">parameters", ">of the network's", *memory)
        for part in found.added:
            share = f"{100 * part.parameters / max(1, found.parameters):.0f} %"
            frozen = f"{amount(part.frozen)} frozen" if part.frozen else "–"
            words = (amount(part.parameters), share) if part.parameters else (frozen, "–")
            size = _bytes(part.buffers) if part.buffers >= _WORTH else "–"
            made.add_row(part.name, part.kind, *words, *([size] if kept else []))
        console.print("", made)
    made = table("left for inference", ">parameters", ">MACs")
    for row in found.predictors:
        made.add_row(row.predictor, amount(row.parameters), amount(row.macs))
    console.print("", made)


def _teacher(found: "TeacherReport") -> None:
    from ..tasks.metric_names import shown_metric

    facts = {
        "parameters": amount(found.parameters),
        shown_metric(found.metric): f"{percent(found.score)} of {found.images} images",
        "classes": found.classes,
        "normalization": found.normalization,
    }
    _facts(f"teacher: {found.name}", facts)


def _probe(found: "FirstStepReport") -> None:
    echo(f"first step: {found.images} images, loss {found.loss:.4g}", "bold")
    forward_features = any(term.at_tap is not None for term in found.terms)
    beyond = any(term.beyond for term in found.terms)
    further = [">at last tap"] * forward_features + [">elsewhere"] * beyond
    made = table("term", ">value", ">of the loss", ">gradient", *further)
    made.columns[0].no_wrap = True
    for term in found.terms:
        share = percent(term.value / found.loss) if found.loss else "–"
        norms = [term.gradient, *[term.at_tap] * forward_features, *[term.beyond] * beyond]
        made.add_row(term.name, f"{term.value:.4g}", share, *map(_norm, norms))
    console.print(made)
    echo(f"gradient: its norm at the student's parameters, {found.gradient:.3g} of all together")
    if found.untouched:
        echo(f"{len(found.untouched)} trained parameter tensors get no gradient:")
        echo(f"  {', '.join(found.untouched[:_SHOWN])}" + _more(found.untouched))
    if found.notes:
        names = ", ".join(list(found.notes)[:_SHOWN]) + _more(list(found.notes))
        echo(f"at chance or solved for now, of which training warns if it lasts: {names}", "dim")


def _more(names: list[str]) -> str:
    return f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""


def _cost(found: "TrainingCost") -> None:
    speed, memory = found.speed, found.memory
    epochs = "1 epoch" if found.epochs == 1 else f"{found.epochs:,} epochs"
    whole = f" of {_bytes(memory.whole)}" if memory.whole else ""
    alone = f"; one of {found.processes} processes, alone" if found.processes > 1 else ""
    validation = " and the validation" if speed.epoch > found.steps * speed.step else ""
    facts = {
        "a step": f"{_time(speed.step)} ({_time(speed.fastest)} … {_time(speed.slowest)} in "
        f"{speed.measured} steps; the first took {_time(speed.first)}{alone})",
        "an epoch": f"about {_time(speed.epoch)}: {found.steps:,} steps{validation}",
        "the run": f"about {_time(speed.run)}: {epochs}, and judging the finished network",
        "memory": f"{_bytes(memory.peak)}{whole} at most ({memory.where})",
        "optimizer": f"{_bytes(found.optimizer)} of it",
        "a checkpoint": f"{_bytes(found.checkpoint)}; three are there at most, and "
        f"{_bytes(found.disk)} are free",
    }
    _facts("time and memory, from a few steps that were thrown away", facts)


_PRINTERS: dict[str, Callable[[Any], None]] = {
    "DataReport": _data,
    "NetworkReport": _network,
    "TeacherReport": _teacher,
    "FirstStepReport": _probe,
    "TrainingCost": _cost,
}


def _size(shape: tuple[int, int, int]) -> str:
    return "×".join(map(str, shape))


def _numbers(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{x:.3f}" for x in numbers)


def _norm(value: float | None) -> str:
    return f"{value:.3g}" if value else "–"


def _bytes(size: int) -> str:
    return f"{amount(size)}{'' if size >= 1000 else ' '}B"


def _time(seconds: float) -> str:
    """`0.12 s`, `48 s`, `12 min`, `7 h 30 min`."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"

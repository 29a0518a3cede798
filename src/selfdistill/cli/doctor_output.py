"""Output of `selfdistill doctor`: each section of the diagnosis, and its warnings."""

import math
from collections.abc import Callable
from typing import Any

from rich.text import Text

from ..diagnosis import (
    DataReport,
    DiagnosisCallback,
    DiagnosticReport,
    FirstStepReport,
    NetworkReport,
    ReportSection,
    TeacherReport,
    TrainingCost,
)
from ..runs.terminal import console, percent
from ..tasks.metric_names import shown_metric
from .console import amount, echo, table

_MAX_NAMES = 10  # in a line
_MIN_BUFFER_BYTES = 100_000  # of a memory that is shown


class DiagnosisScreen(DiagnosisCallback):
    """Prints each section when it is made."""

    def on_section(self, section: ReportSection) -> None:
        """Print a section."""
        _PRINTERS[type(section)](section)
        echo()


def show_conclusion(report: DiagnosticReport) -> None:
    """Print all warnings, and that the run can start."""
    count = len(report.warnings)
    echo("verdict", "bold")
    for warning in report.warnings:
        echo(f"! {warning}", "yellow")
    suffix = f", with {count} warning{'s' * (count > 1)}" if count else ""
    echo(f"The run can start{suffix}.")


def _show_facts(title: str, facts: dict[str, str]) -> None:
    echo(title, "bold")
    rows = table("", "")
    rows.show_header = False
    for name, text in facts.items():
        rows.add_row(name, Text(text))
    console.print(rows)


def _show_data(report: DataReport) -> None:
    sample_mean, sample_std = report.moments
    sizes = ", ".join(f"{size:,} {name}" for name, size in report.sizes.items())
    facts = {
        "images": f"{sizes}; {_format_shape(report.shape)}",
        **_class_facts(report),
        "normalized by": report.normalization_text,
        "measured": f"mean {_format_numbers(sample_mean)}, "
        f"std {_format_numbers(sample_std)} ({report.num_sampled:,} images)",
    }
    if report.files_read:
        facts["files read"] = _read_files(report)
    if report.conversion:
        facts["channels"] = report.conversion
    if report.layout:
        facts["layout"] = report.layout
    if report.empty_images:
        facts["empty"] = f"{report.empty_images:,} training images"
    if report.thin_boxes:
        facts["thin"] = f"{report.thin_boxes:,} training boxes are less than 4 pixels wide or high"
    for name, (count, searched) in report.duplicates.items():
        facts[f"{name} in train"] = f"{count:,} of {searched:,} images that were searched for"
    _show_facts(f"data: {report.name}", facts)


def _class_facts(report: DataReport) -> dict[str, str]:
    """Names and numbers of the classes; nothing where no label is read."""
    by_size = sorted(zip(report.counts, report.classes, strict=True))
    if not by_size:
        return {}
    fewest, most = (f"{count:,} of '{name}'" for count, name in (by_size[0], by_size[-1]))
    ellipsis = ", …" if len(report.classes) > _MAX_NAMES else ""
    return {
        "classes": f"{len(report.classes)}: {', '.join(report.classes[:_MAX_NAMES])}{ellipsis}",
        f"training {report.unit}": f"{fewest} … {most}",
    }


def _read_files(report: DataReport) -> str:
    """How many of the streamed images were opened, by part."""
    counts = {part: (*read, report.sizes[part]) for part, read in report.files_read.items()}
    texts = (
        f"all {size:,} {part} (decoded {decoded:,})"
        if headers == size
        else f"{headers:,} of {size:,} {part} (decoded {decoded:,})"
        for part, (headers, decoded, size) in counts.items()
    )
    return f"headers of {', '.join(texts)}, evenly spaced"


def _show_network(report: NetworkReport) -> None:
    frozen = f", {amount(report.frozen)} of them frozen" if report.frozen else ""
    facts = {"parameters": f"{amount(report.parameters)}{frozen}"}
    if report.taps:
        taps = (f"{name} {_format_shape(shape)}" for name, shape in report.taps.items())
        facts["taps"] = ", ".join(taps)
    facts |= {f"peer {name}": f"{amount(size)} parameters" for name, size in report.peers.items()}
    _show_facts(f"network: {report.name}", facts)
    if report.added:
        _show_added_modules(report)
    predictors = table("left for inference", ">parameters", ">MACs")
    for row in report.predictors:
        predictors.add_row(row.predictor, amount(row.parameters), amount(row.macs))
    console.print("", predictors)


def _show_added_modules(report: NetworkReport) -> None:
    has_memory = any(module.buffer_bytes >= _MIN_BUFFER_BYTES for module in report.added)
    columns = ["added by the method", "", ">parameters", ">of the network's"]
    modules = table(*columns, *([">memory"] if has_memory else []))
    for module in report.added:
        share = f"{100 * module.parameters / max(1, report.parameters):.0f} %"
        frozen = f"{amount(module.frozen)} frozen" if module.frozen else "–"
        size = (amount(module.parameters), share) if module.parameters else (frozen, "–")
        shown = module.buffer_bytes >= _MIN_BUFFER_BYTES
        memory = _format_bytes(module.buffer_bytes) if shown else "–"
        modules.add_row(module.name, module.kind, *size, *([memory] if has_memory else []))
    console.print("", modules)


def _show_teacher(report: TeacherReport) -> None:
    score = f"{percent(report.score)} of {report.images} images"
    facts = {
        "parameters": amount(report.parameters),
        **({} if math.isnan(report.score) else {shown_metric(report.metric): score}),
        "classes": report.classes,
        "normalization": report.normalization,
        **({"kept outputs": report.kept} if report.kept else {}),
    }
    _show_facts(f"teacher: {report.name}", facts)


def _show_first_step(report: FirstStepReport) -> None:
    echo(f"first step: {report.images} images, loss {report.loss:.4g}", "bold")
    at_tap = any(term.gradient_at_tap is not None for term in report.terms)
    elsewhere = any(term.gradient_elsewhere for term in report.terms)
    columns = [">at last tap"] * at_tap + [">elsewhere"] * elsewhere
    terms = table("term", ">value", ">of the loss", ">gradient", *columns)
    terms.columns[0].no_wrap = True
    for term in report.terms:
        share = percent(term.value / report.loss) if report.loss else "–"
        norms = [term.gradient, *[term.gradient_at_tap] * at_tap]
        norms += [term.gradient_elsewhere] * elsewhere
        terms.add_row(
            term.name, f"{term.value:.4g}", share, *(f"{n:.3g}" if n else "–" for n in norms)
        )
    console.print(terms)
    echo(f"gradient: its norm at the student's parameters, {report.gradient:.3g} of all together")
    if report.without_gradient:
        echo(f"{len(report.without_gradient)} trained parameter tensors get no gradient:")
        echo(f"  {_format_names(report.without_gradient)}")
    if report.notes:
        names = _format_names(list(report.notes))
        echo(f"at chance or solved for now, of which training warns if it lasts: {names}", "dim")


def _show_cost(report: TrainingCost) -> None:
    speed, memory = report.speed, report.memory
    epochs = "1 epoch" if report.epochs == 1 else f"{report.epochs:,} epochs"
    total = f" of {_format_bytes(memory.total)}" if memory.total else ""
    alone = f"; one of {report.processes} processes, alone" if report.processes > 1 else ""
    validation = " and the validation" if speed.epoch > report.steps * speed.step else ""
    facts = {
        "a step": f"{_format_time(speed.step)} ({_format_time(speed.fastest)} … "
        f"{_format_time(speed.slowest)} in {speed.num_steps} steps; "
        f"the first took {_format_time(speed.first_step)}{alone})",
        "an epoch": f"about {_format_time(speed.epoch)}: {report.steps:,} steps{validation}",
        "the run": f"about {_format_time(speed.run)}: {epochs}, and the final evaluation",
        "memory": f"{_format_bytes(memory.peak)}{total} at most ({memory.kind})",
        "optimizer": f"{_format_bytes(report.optimizer_bytes)} of it",
        "a checkpoint": f"{_format_bytes(report.checkpoint_bytes)}; a run keeps three at most, and "
        f"{_format_bytes(report.free_disk_bytes)} are free",
    }
    _show_facts("time and memory, measured in a few steps that were discarded", facts)


_PRINTERS: dict[type[ReportSection], Callable[[Any], None]] = {
    DataReport: _show_data,
    NetworkReport: _show_network,
    TeacherReport: _show_teacher,
    FirstStepReport: _show_first_step,
    TrainingCost: _show_cost,
}


def _format_names(names: list[str]) -> str:
    others = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + others


def _format_shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _format_numbers(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{x:.3f}" for x in numbers)


def _format_bytes(size: int) -> str:
    return f"{amount(size)}{'' if size >= 1000 else ' '}B"


def _format_time(seconds: float) -> str:
    """`0.12 s`, `48 s`, `12 min`, `7 h 30 min`."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"

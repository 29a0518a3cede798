"""The page `study.html` of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..engine.run_directory import environment
from ..functional.statistics import MIN_PAIRS, Significance
from ..reporting.figure_style import palette
from ..reporting.formatting import percent, shown, titled
from ..reporting.layout import (
    document,
    figure,
    folded,
    note,
    pair,
    section,
)
from ..reporting.tables import keys_table
from ..tasks.metric_names import shown_metric
from .grid import Study
from .results import (
    STUDENT,
    RowResult,
    RunOutcome,
    format_interval,
    format_points,
    judged_split,
    main_results,
)


@dataclass(frozen=True)
class StudyPageData:
    """All that the page shows.

    Attributes:
        name: of the study.
        study: its rows, seeds and recipes.
        outcomes: of every run.
        results: of every predictor.
        summary: of the predictors that are compared, the baseline first.
    """

    name: str
    study: Study
    outcomes: Sequence[RunOutcome]
    results: Sequence[RowResult]
    summary: Sequence[RowResult]

    @property
    def split(self) -> str:
        """The split that the scores are of."""
        return judged_split(self.results)

    @property
    def others(self) -> list[RowResult]:
        """The rows that are compared with the baseline."""
        return [result for result in self.summary if result.row != self.study.baseline]

    @property
    def compared(self) -> list[tuple[str, str, str]]:
        """(row, its difference in points, verdict) of each row that has one."""
        return [(r.row, points(d.mean), str(d.verdict)) for r in self.others if (d := r.difference)]

    @property
    def num_verdicts(self) -> int:
        """Number of comparisons with enough seeds for a verdict."""
        return sum(bool(r.difference and r.difference.n >= FEWEST) for r in self.others)


def page(
    name: str, study: Study, outcomes: Sequence[RunOutcome], results: Sequence[RowResult]
) -> str:
    """The whole document; links lead to runs/ROW/sSEED/report.html beside it.

    Raises:
        ConfigError: no row has the predictor that is to be compared.
    """
    found = StudyPageData(name, study, outcomes, results, main_results(study, results))
    makers: tuple[Callable[[StudyPageData], str], ...]
    makers = (_comparison, _exits, _runs, _reading, _recipe, _environment)
    sections = "\n".join(part for maker in makers if (part := maker(found)))
    colors = {theme: some[1:] for theme, some in palette(2).items()}  # one, that stands out
    return document("comparison", name, f'<p class="lede">{_lede(found)}</p>', sections, colors)


def _lede(found: StudyPageData) -> str:
    study = found.study
    shared = study.shared
    what = f"<b>{escape(str(shared['model']))}</b> on <b>{escape(str(shared['data']))}</b>"
    judged = [
        f"{r.row} minus {study.baseline}: {format_points(d.mean)} points, {d.significance}."
        for r in found.others
        if (d := r.difference)
    ]
    said = f"{what}, {len(study.rows)} rows by one recipe, {_count(study.seeds, 'seed')} each. "
    done = sum(bool(outcome.exits) for outcome in found.outcomes)
    failed = sum(bool(outcome.failure) for outcome in found.outcomes)
    if done + failed < len(found.outcomes):
        said += f"{done} of {len(found.outcomes)} runs are done. "
    if failed:
        said += f"{failed} of {len(found.outcomes)} runs failed. "
    return said + " ".join(f"<br>{escape(text)}" for text in judged)


def _count(things: Sequence[object], word: str) -> str:
    return f"{len(things)} {word}{'s' * (len(things) != 1)}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table of HTML cells, whose first `words` columns are text and the others numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        made = ""
        for place, cell in enumerate(cells):
            kind = "" if place < words else ' class="number"'
            name = "th" if place == 0 or tag == "th" else "td"
            made += f"<{name}{kind}>{cell}</{name}>"
        return f"<tr>{made}</tr>"

    body = "\n".join(line(cells, "td") for cells in rows)
    table = f"<table><thead>{line(heads, 'th')}</thead>\n<tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _comparison(found: StudyPageData) -> str:
    if not found.summary:
        return ""
    base = escape(found.study.baseline)
    heads = ["", f"{found.images} {found.metric}", f"minus {base}", "verdict", "95 % t interval"]
    heads += ["bootstrap", "seeds"]
    results = {result.row: result for result in found.summary}
    none = ["–"] * (len(heads) - 2) + ["0"]
    rows = (
        _row(results[row], found) if row in results else [escape(row), *none]
        for row in found.study.rows
    )
    table = _table(heads, rows)
    title = titled(found.metric)
    figures = [figure(pictures.scores(found.summary, "scores", title), title, _POINTS)]
    if any(result.difference for result in found.others):
        drawn = pictures.differences(found.summary, "difference")
        figures.append(figure(drawn, f"Minus {base}, seed by seed", _PAIRS))
    exit_ = found.study.exit
    said = "The full networks" if exit_ == STUDENT else f"{shown(exit_).capitalize()} of each row"
    against = "" if exit_ == STUDENT else f", against the full network of {base}"
    said += f"{against}, at the last epoch; mean ± standard deviation over the seeds."
    return section("Against the baseline", table, note(escape(said)), pair(figures))


def _comparison_table(data: StudyPageData) -> Table:
    base, metric = data.study.baseline, shown_metric(data.study.metric)
    heads = ["", f"{split_name(data.split)} {metric}", f"minus {base}", "verdict"]
    heads += ["95 % t interval", "bootstrap", "seeds"]
    results = {result.row: result for result in data.summary}
    missing = ["–"] * (len(heads) - 2) + ["0"]
    rows = [
        Row(_cells(results[row], base) if row in results else [row, *missing])
        for row in data.study.rows
    ]
    return Table(heads, rows)


def _cells(result: RowResult, baseline: str) -> list[str | Cell]:
    difference, seeds = result.difference, str(len(result.scores))
    if difference is None:
        word = "baseline" if result.row == found.study.baseline else "–"
        return [*cells, "–", word, "–", "–", seeds]
    said = str(difference.significance)
    said = f"<b>{said}</b>" if difference.significance is Significance.SIGNIFICANT else said
    intervals = (difference.t, difference.bootstrap)
    shown_intervals = [format_interval(interval) if interval else "–" for interval in intervals]
    return [*cells, format_points(difference.mean), said, *shown_intervals, seeds]


def mean_std(result: RowResult) -> str:
    """Mean and standard deviation over the seeds, in percent."""
    spread = "" if result.std is None else f" ± {100 * result.std:.2f}"
    return f"{100 * result.mean:.2f}{spread} %"


def _exits_table(data: StudyPageData) -> Table | None:
    """Every predictor of every row, the full network last; None if there is nothing else."""
    judged = [result for result in data.results if result.split == data.split]
    names = sorted(dict.fromkeys(r.predictor for r in judged), key=lambda name: name == STUDENT)
    if len(names) < 2:
        return ""
    names.sort(key=lambda name: name == STUDENT)  # stays in order, the full network last
    cells = {(r.row, r.predictor): _spread(r) for r in own}
    rows = [
        Row([row, *(_run_cell(outcomes[row, seed], data.split) for seed in seeds)])
        for row in data.study.rows
    ]
    return Table(["", *(f"seed {seed}" for seed in seeds)], rows)


def _run_cell(outcome: RunOutcome, split: str) -> str | Cell:
    if outcome.failure:
        return "failed"
    score = outcome.score(STUDENT, split)
    if score is None:
        return "–"
    return Cell(percent(score, 2), link=f"runs/{outcome.row}/s{outcome.seed}/report.html")


def _reading(found: StudyPageData) -> str:
    """What the figures allow to say, and what not."""
    judged = [r for r in found.others if r.difference and r.difference.n >= MIN_PAIRS]
    parts = [
        "Rows are compared seed by seed, since a seed gives all of them the same first weights and "
        "the same order of the images. A difference is <b>beyond noise</b> if neither its t "
        "interval nor its bootstrap interval holds zero. The bootstrap alone would be too easy: of "
        "five seeds of pure noise its 95 % interval misses zero one time in seven, of three one "
        "time in four, where the t interval keeps to one in twenty, if differences are roughly "
        "normal. Fewer than three seeds say nothing, nor do differences that are all alike.",
        "<b>Within noise</b> does not mean equal: it means that these seeds cannot tell. The seeds "
        f"share their {found.images} images, so the intervals say nothing about other images.",
    ]
    if len(judged) > 1:
        parts.append(
            f"These are {len(judged)} comparisons: each by itself has one chance in twenty to look "
            "beyond noise where there is none."
        )
    return section("How to read this", *(f"<p>{part}</p>" for part in parts)) if judged else ""


def _recipe(found: StudyPageData) -> str:
    shared = list(found.study.shared.items())
    half = (len(shared) + 1) // 2
    tables = [
        keys_table(dict(shared[:half]), "All rows"),
        keys_table(dict(shared[half:]), "\u00a0"),
    ]
    for name, row in found.study.to_dict()["rows"].items():
        own = {key: value for key, value in row.items() if key != "options"}
        tables.append(keys_table({**own, **row["options"]}, f"Row {name}"))
    return section("Recipe", f'<div class="keys">{"".join(tables)}</div>')


def _environment(found: StudyPageData) -> str:
    about = environment()
    command = f"<p><code>{escape(str(about.pop('command')))}</code></p>"
    table = f'<div class="keys">{keys_table(about)}</div>'
    return folded("Command and environment of this page", command + table)

"""Sections of docs/guide/choose.md that are of no single study of methods from random weights."""

import re

from record import recorded
from result_tables import origin, signed, table

from selfdistill.comparison.prediction import calibration


def shorter_networks() -> str:
    """What cutting a pretrained network gained, on each set."""
    gains = [
        float(r["mean"])
        for name in ("confirmation", "frames", "objects")
        for r in recorded(f"accuracy-fine-tuning-{name}-paired")
        if r["difference"] == "cut - linear"
    ]
    *first, last = (signed(gain) for gain in gains)
    return f"{', '.join(first)} and {last}"


def features_first() -> str:
    """What features that were learned without labels gained, by the number of labels."""
    gains = {
        r["difference"].split()[1]: signed(float(r["mean"]))
        for r in recorded("accuracy-feature-distillation-45000-paired")
        if re.fullmatch(r"distilled, \d+ labels - random, \d+ labels", r["difference"])
    }
    *first, last = (f"{gain} points with {int(labels):,}" for labels, gain in gains.items())
    return f"{', '.join(first)} and {last}"


FINE_TUNED = {"clothes": "", "frames of videos": "-frames"}
"""{set: how its files' names end}."""


def fine_tuning() -> str:
    """What methods gain in fine-tuning, on each set, as a section."""
    gains: dict[str, dict[str, str]] = {}
    for name, ending in FINE_TUNED.items():
        for line in recorded(f"accuracy-fine-tuning-methods{ending}-paired"):
            row, _, base = line["difference"].partition(" - ")
            if base == "ce":
                mean, low, high = (signed(float(line[key])) for key in ("mean", "low", "high"))
                gains.setdefault(row, {})[name] = f"{mean} ({low} … {high})"
    lines = [
        ["`ce`, cut before the last stage" if row == "short" else f"[`{row}`](../methods/{row}.md)"]
        + [of_sets.get(name, "–") for name in FINE_TUNED]
        for row, of_sets in gains.items()
    ]
    n = recorded("accuracy-fine-tuning-methods")[0]["n"]
    about = (
        "EfficientNet-lite0 with ImageNet's weights by the preset `finetune`, 64×64, 6 epochs, "
        "some 600 pictures of ten classes a set; `kd` learns from what plain training made of the "
        f"same pictures. Gain over plain training of the whole network, n = {n} seeds; "
        "[part 8](../study.md#part-8-methods-in-fine-tuning) of the study."
    )
    return "\n\n".join(
        ["## Fine-tuning on a few hundred pictures", about, table(["", *FINE_TUNED], lines)]
    )


STUDIES = {
    "self": "no teacher",
    "offline": "a teacher of the same images",
    "pool": "a teacher that knows more",
    "strong": "no teacher, the strong recipe",
    "joined": "no teacher, 16×16",
    "clothes": "fine-tuned on clothes",
    "frames": "fine-tuned on frames of videos",
}


def held(line: dict[str, str], name: str) -> str:
    """A difference with its interval."""
    mean, low, high = (signed(float(line[key])) for key in (name, f"{name}_low", f"{name}_high"))
    return f"{mean} ({low} … {high})"


def _became(weights: str, found: list[dict[str, str]]) -> str:
    """What became of the predictions from first weights of one kind."""
    record = calibration(weights)
    covered = sum(r["covered"] == "True" for r in found)
    verdicts = [r for r in found if r["verdict"] != "cannot tell"]
    right = sum(r["judgment"] == "right" for r in verdicts)
    unsaid = [r for r in found if r["verdict"] == "cannot tell"]
    missed = sum(r["full_verdict"] == "beyond noise" for r in unsaid)
    said = (
        f"It said “helps” or “does not help” of {len(verdicts)}, {right} times rightly, with a "
        "difference beyond noise on the side that was named; "
        if verdicts
        else "It named no side: "
    )
    return (
        f"the interval held the difference at full length for {covered} of {len(found)} rows. "
        f"{said}of {len(unsaid)} it could not tell, {missed} of which ended beyond noise. The "
        f"widening from all rows, which the command adds, is {record.widening:.2f} points; so "
        f"many let the interval hold the next one of their kind with a probability of "
        f"{100 * record.coverage:.0f} %."
    )


def short_runs() -> str:
    """How well short runs predict, as a section."""
    found = recorded("will-it-help-calibration")
    named = {"short": "`ce`, cut before the last stage"}
    lines = [
        [
            f"{named.get(r['row'], '`' + r['row'] + '`')}, {STUDIES[r['study']]}",
            held(r, "short"),
            f"{signed(float(r['predicted_low']))} … {signed(float(r['predicted_high']))}",
            held(r, "full"),
            r["verdict"],
            r["judgment"] if r["judgment"] != r["verdict"] else "–",
        ]
        for r in found
    ]
    about = (
        "[`doctor --will-it-help`](doctor.md#will-it-help) trains a quarter of the epochs with "
        f"{calibration().seeds} seeds and says what the difference to plain training will be. Here "
        "the same was done for methods whose full runs were there already, with the same recipe "
        "but for its length. Each interval was predicted with a widening from all *other* rows "
        "with first weights of the same kind."
    )
    kinds = {"random": "From random weights", "initial": "In fine-tuning"}
    became = "\n".join(
        f"- **{said}** {_became(weights, [r for r in found if r['weights'] == weights])}"
        for weights, said in kinds.items()
    )
    limits = (
        "Short differences are of validation images, those at full length of test images (of the "
        "joined methods of validation images, too), with 95 % t intervals. The short runs are no "
        "beginnings of the long ones, but runs whose learning rate falls to its end, as those of "
        "the command are; teachers were trained as those of the full runs. Rows of a study share "
        "their plain runs and images, and there are three data sets in all, so that they are no "
        "independent draws: on other data, where accuracies are higher or differ more, the "
        "widening may be too wide or too narrow."
    )
    header = ["method", "short", "predicted", "at full length", "verdict", "which was"]
    return "\n\n".join(
        [
            "## How well short runs predict",
            about,
            became,
            table(header, lines),
            limits,
            origin(found),
        ]
    )

"""docs/reference/presets.md: what each preset sets."""

from markup import table
from method_pages import MADE

from selfdistill.recipe.presets import CONVOLUTIONAL, PRESET_KEYS, Rule, preset_table
from selfdistill.recipe.published import runnable_rows

INTRODUCTION = """\
`--preset NAME` (recipe key `preset`) gives `train`, `doctor` and `compare` the settings to begin
with, by the task, by the family of the network, and by whether there are initial weights
(`--weights`). Without it the preset is `finetune` where there are, else `scratch`; heads that are
trained on a network that stays as it is count as trained from none. Rows that fit are read from
top to bottom, and a later one overrides an earlier one. Options that are given count more than any
preset; of a recipe file its own values do, unless `--preset` is given beside it. A warm-up takes no
more than a tenth of the epochs. What came of it stands in the first lines of the output and, as
plain values, in the run's `recipe.toml`, so that a resume asks no table.

What no row sets is the [recipe's default](recipe.md). None of these values was tuned here: they are
common ones, and for where to go from them see [Fine-tune](../guide/fine-tune.md)."""


def pages() -> dict[str, str]:
    """The page, by its path below docs/."""
    rules = table(
        ("preset", "task", "network", "weights", "sets", "after"),
        [_row(rule) for rule in preset_table().rule],
    )
    families = [
        [name, ", ".join(f"`{pattern}`" for pattern in patterns)]
        for name, patterns in preset_table().families.items()
    ]
    families.append([CONVOLUTIONAL, "all others"])
    methods = sorted({str(keys["method"]) for keys in runnable_rows().values()})
    parts = [
        MADE,
        "# Presets",
        INTRODUCTION,
        rules,
        "## Families of networks",
        table(("family", "names"), families),
        "## A paper's recipe",
        "`--preset paper` takes the settings and the method's options from the method's row in the "
        "[ledger](../ledger.md), of several rows that of the same network and data where there is "
        "one, and refuses methods without one. Network, data and teacher stay those that are "
        f"given. There are rows of: {', '.join(f'`{name}`' for name in methods)}. A comparison "
        "takes the settings for all of its rows and leaves the options to each.",
        "A preset may set: " + ", ".join(f"`{key}`" for key in sorted(PRESET_KEYS)) + ".",
    ]
    return {"reference/presets.md": "\n\n".join(parts) + "\n"}


def _row(rule: Rule) -> list[str]:
    values = ", ".join(f"`{key}` {_text(value)}" for key, value in rule.values.items())
    weights = {None: "any", True: "initial", False: "random"}[rule.weights]
    return [
        rule.preset or "any",
        rule.task or "any",
        rule.family or "any",
        weights,
        values,
        rule.why,
    ]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()

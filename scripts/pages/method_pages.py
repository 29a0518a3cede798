"""docs/methods/: an overview, a page a method, and their place in the navigation."""

import inspect
import tomllib
from pathlib import Path

from markup import choices, table, with_maths

import selfdistill.methods  # noqa: F401  registers them
from selfdistill.core import METHODS, Method, Provenance, options
from selfdistill.recipe.build_method import unsupported_reason
from selfdistill.recipe.method_docs import description, paper_url, summary, supported_tasks
from selfdistill.recipe.schema import type_name
from selfdistill.tasks import TASKS

ROOT = Path(__file__).parents[2]
MADE = "<!-- Made by scripts/pages from the code; do not edit by hand. -->"
KINDS = {
    "baseline": ("Baseline", "nobody else"),
    "self": ("Self-distillation", "itself"),
    "online": ("With peers", "networks that start together with it, `--peer MODEL`, repeatable"),
    "offline": ("From a teacher", "a trained network, `--teacher RUN|WEIGHTS|timm/NAME`"),
}
GRAPHS = (
    'No command trains on graphs: `selfdistill.wrap(network, "{}", task="nodes", …)` does, in a '
    "[loop of PyTorch Geometric](../guide/graphs.md)."
)
TOKEN = (
    "The student is a transformer with a distillation token, and the teacher here the paper's:\n\n"
    "<!-- not run: needs ImageNet -->\n```bash\nselfdistill train --method {} "
    "--data folder:imagenet --image-size 224 --model timm/deit_tiny_distilled_patch16_224 "
    "--teacher timm/regnety_160\n```"
)
COMPANIONS = {"offline": " --teacher runs/digits-ce", "online": " --peer cifar/resnet10_w16"}


def pages() -> dict[str, str]:
    """All of them, by their paths below docs/."""
    made = {f"methods/{name}.md": page(name) for name in METHODS}
    return {"methods/index.md": overview(), "methods/.nav.md": navigation(), **made}


def of_kind(kind: str) -> list[str]:
    """Names of the methods that learn from the same companions."""
    return [name for name in METHODS if METHODS[name].kind == kind]


def navigation() -> str:
    """The methods' part of the navigation, by kind."""
    lines = ["- [Overview](index.md)"]
    for kind, (title, _) in KINDS.items():
        lines += [f"- {title}", *(f"    - [{name}]({name}.md)" for name in of_kind(kind))]
    return "\n".join(lines) + "\n"


def overview() -> str:
    """All methods by kind, with their provenance."""
    parts = [
        MADE,
        "# Methods",
        "`selfdistill train --method NAME` trains by one of them, `--method A+B` by "
        "[two at once](../guide/joined.md). `selfdistill methods NAME` prints what its page says.",
    ]
    for kind, (title, companions) in KINDS.items():
        rows = [_row(name) for name in of_kind(kind)]
        head = ("name", "what it does", "implemented from")
        parts += [f"## {title}", f"The student learns from {companions}.", table(head, rows)]
    parts += ["## Provenance", "A method is implemented from:"]
    parts += ["\n".join(f"- **{e.name.lower()}**: {e.value}" for e in Provenance)]
    parts += ["[Provenance](../concepts/provenance.md) says what to expect of each."]
    return "\n\n".join(parts) + "\n"


def _row(name: str) -> list[str]:
    method = METHODS[name]
    return [f"[`{name}`]({name}.md)", summary(method), method.provenance.name.lower()]


def needs(method: type[Method]) -> str:
    """What it wants of the data loader."""
    wanted = method.needs
    words = ["another image of the class with each"] * wanted.same_class
    words += [f"{wanted.views} views of each image"] * (wanted.views > 1)
    words += ["a trained network, `--weights`"] * wanted.trained_student
    words += ["a network with a distillation token"] * wanted.distillation_token
    words += [f"{wanted.batch} images a process"] * (wanted.batch > 1)
    words += ["images without labels alone, `--extra`"] * wanted.unlabeled
    words += ["by an option images without labels"] * (wanted.extra and not wanted.unlabeled)
    return ", ".join(words)


def page(name: str) -> str:
    """One method: where it comes from, how it works, what can be tuned, what it logs."""
    method = METHODS[name]
    known = [
        [
            f"`{option.name}`",
            choices(type_name(option.annotation)),
            f"`{'none' if option.default is None else str(option.default).lower()}`",
            with_maths(option.meaning),
        ]
        for option in options(method).values()
    ]
    head = ("option", "type", "default", "meaning")
    parts = [MADE, f"# {name}", f"*{summary(method)}*", facts(name), "## Try it", example(name)]
    parts += ["## How it works", with_maths(description(method))]
    parts += ["## Options", table(head, known) if known else "It has none."]
    parts += ["## What it logs", with_maths(inspect.getdoc(method.forward) or "")]
    parts += ["## Networks it leaves", networks(method)]
    return "\n\n".join(parts) + "\n"


def networks(method: type[Method]) -> str:
    """The networks that training leaves behind; the contract's own docstring is for authors."""
    if method.predictors is Method.predictors:
        return "`student` alone."
    return with_maths(inspect.getdoc(method.predictors) or "")


def facts(name: str) -> str:
    """Where it comes from and what it asks for, in a table."""
    method = METHODS[name]
    url = paper_url(method)
    file = Path(inspect.getfile(method)).relative_to(ROOT).as_posix()
    rows = [
        ["learns from", _teachers(method)],
        ["paper", f"<{url}>" if url else ""],
        ["implemented from", f"[{method.provenance}](../concepts/provenance.md)"],
        ["tasks", supported_tasks(method)],
        ["needs", needs(method)],
        ["in recipes/", ", ".join(f"`{recipe}`" for recipe in recipes(name))],
        ["file", f"`{file}`"],
    ]
    return table(("", ""), [row for row in rows if row[1]])


def _teachers(method: type[Method]) -> str:
    if trained_by := method.teacher_method:
        return f"a network that [`{trained_by}`]({trained_by}.md) trained, `--teacher RUN`"
    return KINDS[method.kind][1]


def recipes(name: str) -> list[str]:
    """The files in recipes/ that train by it."""
    files = sorted((ROOT / "recipes").glob("*.toml"))
    return [f.name for f in files if tomllib.loads(f.read_text("utf-8")).get("method") == name]


def example(name: str) -> str:
    """The command that trains by it for seconds, if there is one."""
    if METHODS[name].needs.graphs:
        return GRAPHS.format(name)
    if METHODS[name].needs.distillation_token:
        return TOKEN.format(name)
    companions = COMPANIONS.get(METHODS[name].kind, "")
    if unsupported_reason(METHODS[name], TASKS["classification"]):
        words = "It wants scenes, and a teacher that was trained on them"
        command = f"selfdistill train --task segmentation --data folder:scenes --method {name}"
        block = f"```bash\n{command} --teacher runs/teacher\n```"
        return f"{words}:\n\n<!-- not run: needs images with masks -->\n{block}"
    words, before = "Two epochs on handwritten digits take seconds", ""
    if trained_by := METHODS[name].teacher_method:
        before = f"selfdistill train --method {trained_by}{weights(trained_by)} --epochs 2 "
        before += "--out runs/teacher\n"
        companions = " --teacher runs/teacher"
    elif companions == COMPANIONS["offline"]:
        words += "; any finished run can be the teacher"
    if METHODS[name].needs.unlabeled:
        words += ", and any pictures are the images without labels"
        companions += " --extra folder:flowers"
    command = f"selfdistill train --method {name}{weights(name)}{companions} --epochs 2"
    return f"{words}:\n\n```bash\n{before}{command}\n```"


def weights(name: str) -> str:
    """The option that a method asks for whose student does not learn."""
    return " --weights runs/digits-ce" if METHODS[name].needs.trained_student else ""

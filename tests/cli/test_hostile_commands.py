"""Command lines as nobody means them: one sentence each, in little time, and no traceback."""

import os

import pytest
import typer
from command import say
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfdistill.cli import app
from selfdistill.core import ConfigError

CASES = int(os.environ.get("HOSTILE_CASES", "2000"))
CODES = {0, 2, 3, 4, 5, 6, 7}
COMMANDS = typer.main.get_command(app).commands
FILES = (
    "fifo.pth",
    "folder",
    "empty.toml",
    "list.toml",
    "text.safetensors",
    "broken-link",
    "loop",
    "odd \udcff\n name.png",
    "run",
    "nowhere",
    "n" * 5000,
    "a/" * 2500,
    "..",
)
NAMES = ("muse", "kd+at", "cifar/resnet8", "digits", "folder:folder", "npz:fifo.pth", "+", "0-4")
NUMBERS = ("-1", "0", "1", "2", "1e400", "nan", "-inf", "9" * 30, "9" * 6000, "0x10", "1_0", "½")
TEXTS = ("", " ", "\0", "\ud800", "ß\u202e", "[bold]", "{0}", "%s", ",", "a=b", "--", "x" * 10**4)


@pytest.fixture(scope="module")
def hostile_place(tmp_path_factory):
    """A working directory with files of all kinds, in which nothing is trained."""
    place = tmp_path_factory.mktemp("outer") / "place"
    (place / "folder" / "inner").mkdir(parents=True)
    os.mkfifo(place / "fifo.pth")
    (place / "empty.toml").touch()
    (place / "list.toml").write_text("method = ['muse']\nseed = 'x'\n")
    (place / "text.safetensors").write_text("no tensors")
    (place / "broken-link").symlink_to("gone")
    (place / "loop").symlink_to("loop")
    (place / "odd \udcff\n name.png").write_bytes(b"\x89PNG")
    (place / "run").mkdir()
    (place / "run" / "recipe.toml").write_text("method = 'muse'\n")
    (place / "run" / "metrics.jsonl").write_text("{")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("selfdistill.recipe.build_run.load", nothing)
        patch.setattr("selfdistill.engine.trainer.Trainer.run", nothing)
        patch.setattr("selfdistill.comparison.compare.run_locally", nothing)
        patch.setattr("selfdistill.comparison.compare.run_on_slurm", nothing)
        patch.setattr("selfdistill.reproduction.smoke.train_recipe", nothing)
        patch.setattr("lightning_fabric.Fabric.launch", nothing)
        yield place


def nothing(*args, **keys):
    raise ConfigError("all is well so far, and here the work would begin")


values = st.one_of(
    st.sampled_from([*FILES, *NAMES, *NUMBERS, *TEXTS]),
    st.text(max_size=12),
    st.integers().map(str),
)


@st.composite
def mangled(draw, name: str):
    """A real option, as it is or with a letter left out, doubled or in upper case."""
    i = draw(st.integers(2, max(2, len(name) - 1)))
    forms = [name, name, name, name[:i] + name[i + 1 :], name[:i] + name[i : i + 1] + name[i:]]
    return draw(st.sampled_from([*forms, name.upper(), name + "="]))


@st.composite
def command_lines(draw):
    """A command with up to five of its options and two arguments, in any order."""
    command = draw(st.sampled_from(sorted(COMMANDS)))
    options = [o for p in COMMANDS[command].params for o in (*p.opts, *p.secondary_opts)]
    options = [option for option in options if option.startswith("-")]
    words = []
    for option in draw(st.lists(st.sampled_from(options), max_size=5)):
        option = draw(mangled(option))
        words.append([option, draw(values)] if draw(st.integers(0, 5)) else [option])
    words += [[draw(values)] for _ in range(draw(st.integers(0, 2)))]
    return [command, *(word for group in draw(st.permutations(words)) for word in group)]


def check(words: list[str], time_limit) -> None:
    with time_limit(60):
        result = say(*words)
    assert result.code in CODES, (result.code, result.err)
    assert "Traceback" not in result.err
    errors = [line for line in result.err.splitlines() if line.startswith("error:")]
    usage = "─ Error ─" in result.err or "Usage:" in result.err
    assert len(errors) == (1 if result.code and not usage else 0), result.err
    assert all(len(line) < 3000 for line in errors)


few = settings(max_examples=40, deadline=None, derandomize=True)
many = settings(
    max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck]
)


@few
@given(words=command_lines())
def test_no_command_line_ends_in_a_traceback(hostile_place, time_limit, words):
    check(words, time_limit)


@pytest.mark.slow
@many
@given(words=command_lines())
def test_none_of_many_command_lines_ends_in_a_traceback(hostile_place, time_limit, words):
    check(words, time_limit)

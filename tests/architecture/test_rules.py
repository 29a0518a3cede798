"""Rules of the code base that no linter knows."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import selfdistill.methods
from selfdistill.core import METHODS, Provenance
from selfdistill.recipe.schema import Recipe
from selfdistill.tasks import TASKS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "selfdistill"
FILES = sorted(SOURCE.rglob("*.py"))


def every_file(check: Callable[[Path], None]) -> Callable[[], None]:
    """A test of all files: a test for each would cost more than what is checked."""

    def test() -> None:
        faults = {}
        for file in FILES:
            try:
                check(file)
            except AssertionError as error:
                faults[str(file.relative_to(SOURCE))] = str(error)
        assert not faults

    test.__name__ = check.__name__
    return test


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def test_floors_import_downwards_only():
    code = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


# The default of the quick start has to be named somewhere.
NAMED = {"recipe/fields.py": {"muse"}}
# A discrepancy is named after the paper that made it, which is a method's name, too.
NAMED["methods/exits.py"] = {"vid"}
# A bottleneck is named after the paper that made it, which is a method's name, too.
BOTTLENECKS = {"byot"}


def strings(tree: ast.AST) -> set[str]:
    """All string constants that are no documentation."""
    documentation = {
        id(node.value) for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }  # fmt: skip
    constants = (n for n in ast.walk(tree) if isinstance(n, ast.Constant))
    return {n.value for n in constants if isinstance(n.value, str) and id(n) not in documentation}


@every_file
def test_no_method_is_named_outside_its_own_file(file):
    place = file.relative_to(SOURCE).as_posix()
    allowed = set(NAMED.get(place, ()))
    if file.parent == SOURCE / "methods":
        own = [name for name in METHODS if METHODS[name].__module__.endswith(f".{file.stem}")]
        allowed |= {*own, *(METHODS[name].teacher_method for name in own)}
    if file.parent == SOURCE / "methods" or place == "modules/bottlenecks.py":
        allowed |= BOTTLENECKS
    tree = parsed(file)
    assert strings(tree) & set(METHODS) <= allowed


def test_every_method_has_a_file_of_its_own():
    homes = [METHODS[name].__module__ for name in METHODS]
    assert len(set(homes)) == len(homes)
    assert all(home.startswith(f"{selfdistill.methods.__name__}.") for home in homes)


def test_kind_is_what_the_constructor_takes():
    for name in METHODS:
        takes = inspect.signature(METHODS[name]).parameters
        kind = METHODS[name].kind
        assert ("teacher" in takes) == (kind == "offline"), name
        assert ("peers" in takes) == (kind == "online"), name
        assert isinstance(METHODS[name].provenance, Provenance), name


@every_file
def test_methods_import_no_method(file):
    if file.parent != SOURCE / "methods" or file.name == "__init__.py":
        return
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.ImportFrom):
            assert node.level != 1, f"{file.name} imports a file of its own folder"


@every_file
def test_a_file_has_at_most_300_lines(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 300


def calls(file: Path) -> set[str]:
    """Dotted names of all that a file calls."""
    tree = parsed(file)
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@every_file
def test_html_is_written_by_templates_only(file):
    tree = parsed(file)
    assert not [text for text in strings(tree) if re.search("<[a-z]+[ >]|</[A-Za-z]", text)]


def assigned_names(tree: ast.AST) -> set[str]:
    """Names of all variables, attributes, arguments, functions, classes and renamed imports."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name) | ast.arg(arg=name) | ast.alias(asname=str(name)):
                names.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                names.add(name)
    return names


# Each says how a value came about or whose it is, and not what it is.
VAGUE = {"found", "said", "told", "mine", "theirs", "its", "made", "words", "look", "looks"}


def test_assigned_names_are_seen_in_every_place():
    code = """
import os as a
class B:
    c: int
    async def d(self, e, *f, g=0, **h):
        self.i = [j for j in (k := ())]
        try:
            pass
        except OSError as l:
            pass
        match e:
            case int() as m:
                pass
"""
    assert assigned_names(ast.parse(code)) == set("aBcdefghijklm") | {"self"}


@every_file
def test_names_say_what_a_value_is(file):
    names = assigned_names(parsed(file))
    assert not {name for name in names if name.strip("_").lower() in VAGUE}


@every_file
def test_matplotlib_is_imported_by_charts_only(file):
    tree = parsed(file)
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    if "matplotlib" in {name.split(".")[0] for name in imported}:
        assert "charts" in file.relative_to(SOURCE).as_posix()


@pytest.mark.slow
def test_charts_are_imported_only_when_a_page_is_written():
    code = """
import sys, selfdistill.runs.run, selfdistill.comparison.compare
import selfdistill.reporting.sample_images
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    drawing = {"selfdistill.reporting.charts", "selfdistill.reporting.rendering"}
    assert not drawing & set(done.stdout.split())


@every_file
def test_nothing_is_printed(file):
    assert "print" not in calls(file)


@every_file
def test_no_pickle_is_read_or_written(file):
    tree = parsed(file)
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in imported} & {"pickle", "dill", "joblib", "shelve"}
    reads_weights = file.relative_to(SOURCE).as_posix() == "models/convert_weights.py"
    loads = {"torch.load"} if reads_weights else set()
    assert calls(file) & {"torch.load", "torch.save", "eval", "exec"} <= loads


def test_foreign_weights_are_read_as_tensors_only():
    tree = parsed(SOURCE / "models" / "convert_weights.py")
    load_calls = [
        {k.arg: ast.unparse(k.value) for k in node.keywords}
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert load_calls
    assert all(keywords.get("weights_only") == "True" for keywords in load_calls)


@every_file
def test_no_path_of_one_machine(file):
    text = file.read_text(encoding="utf-8")
    paths = re.findall(r"""["'(\s](/(?:home|work|root|tmp|mnt|Users|data|opt)/[^\s"']*)""", text)
    assert not paths
    assert not re.findall(r"""[A-Z]:\\\\""", text)


@every_file
def test_no_device_is_chosen_in_a_method_or_module(file):
    if file.parent.name in ("methods", "modules", "functional"):
        text = file.read_text(encoding="utf-8")
        assert not re.findall(r"\.cuda\(|\.cpu\(|\.item\(|\.tolist\(", text)


@every_file
def test_no_method_or_module_names_a_task(file):
    if file.parent.name in ("methods", "modules", "functional", "engine"):
        tree = parsed(file)
        assert not strings(tree) & set(TASKS)
        imported = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert "tasks" not in {name.split(".")[0] for name in imported}


def test_forward_has_no_switch_for_a_task():
    for file in (SOURCE / "methods").glob("*.py"):
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "hasattr"):
                assert "task" not in ast.unparse(node)


def test_changes_of_a_recipe_name_its_keys():
    """`model_copy` checks nothing, so a key that was renamed would be changed without effect."""
    unknown = []
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".model_copy")):
                continue
            keys = (k for word in node.keywords for k in getattr(word.value, "keys", []))
            names = (k.value for k in keys if isinstance(k, ast.Constant))
            unknown += [(path.name, name) for name in names if name not in Recipe.model_fields]
    assert not unknown

"""Every block of code in the documentation runs, in order, page by page."""

import ast
import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from blocks import ROOT, RUN, SHOWN, blocks, own_commands, pages

import selfdistill
from selfdistill.cli.resolve_recipe import resolve_recipe

RUNNER = Path(__file__).parent / "run_page.py"
PAGES = pages()


def to_run(page: Path) -> bool:
    return any(
        block.language in RUN and not block.excuse
        for block in blocks(page.read_text(encoding="utf-8"))
    )


def work(page: Path) -> int:
    """How often a page speaks of training in what it runs."""
    found = blocks(page.read_text(encoding="utf-8"))
    return sum(block.code.count("train") for block in found if not block.excuse)


def where(page: Path) -> str:
    return str(page.relative_to(ROOT))


METHODS = [page for page in PAGES if page.parent.name == "methods" and to_run(page)]
OTHERS = [page for page in PAGES if page not in METHODS and to_run(page)]
OTHERS.sort(key=work, reverse=True)  # no process is to begin the longest when all others are done


@pytest.mark.slow
@pytest.mark.parametrize("page", OTHERS, ids=where)
def test_blocks_run(page, server, workspace, tmp_path, monkeypatch):
    run_blocks(page, server, workspace, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("page", METHODS, ids=where)
def test_examples_of_methods_run(page, server, workspace, tmp_path, monkeypatch):
    run_blocks(page, server, workspace, tmp_path, monkeypatch)


@pytest.mark.parametrize("page", METHODS, ids=where)
def test_examples_of_methods_are_accepted(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits-ce", "teacher"):  # which are not read here
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "flowers").mkdir()
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language in RUN and not block.excuse:
            for verb, *words in own_commands(block.code):
                assert verb == "train"
                keys = dict(zip(words[::2], words[1::2], strict=True))
                named = {key.removeprefix("--"): value for key, value in keys.items()}
                named.pop("out", None)
                peers = {"peers": (named.pop("peer"),)} if "peer" in named else {}
                recipe = resolve_recipe(named | peers | {"epochs": int(named["epochs"])})
    assert recipe.method == page.stem


def run_blocks(page, server, workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(workspace, tmp_path / "work"))
    output = tmp_path / "output"
    runner = server.start(str(RUNNER), [str(page)], output)
    try:
        failed = runner.wait()
    finally:
        end_group(runner.pid)
    assert not failed, output.read_text(encoding="utf-8")[-5000:]


def end_group(leader: int) -> None:
    """End what a page left running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


@pytest.mark.parametrize("page", PAGES, ids=where)
def test_languages_are_known(page):
    # `sh` or `py` would be shown and never run
    found = {block.language for block in blocks(page.read_text(encoding="utf-8"))}
    assert found <= {*RUN, *SHOWN}


PAGE = """
<!-- not run: needs a GPU -->

```bash
nvidia-smi
```

- In a list:

    ```python
    if True:
        answer = 42
    ```

<!-- before the next block
```python
print(answer)
```
-->

```toml title="recipe.toml"
epochs = 3
```

````text
```bash
not a block of its own
```
````
"""


def test_blocks_are_found():
    found = blocks(PAGE)
    assert [block.language for block in found] == ["bash", "python", "python", "toml", "text"]
    assert [block.line for block in found] == [4, 10, 16, 21, 25]
    assert [block.excuse for block in found] == ["needs a GPU", "", "", "", ""]
    assert [block.title for block in found] == ["", "", "", "recipe.toml", ""]
    assert found[1].code == "if True:\n    answer = 42\n"


def unknown_names(code: str) -> list[str]:
    """What a block takes from modules of ours that they do not have."""
    tree, modules, unknown = ast.parse(code), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "selfdistill":
                    module = importlib.import_module(alias.name)
                    modules[alias.asname or "selfdistill"] = module if alias.asname else selfdistill
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("selfdistill"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                value = getattr(module, alias.name, None)
                if value is None:
                    unknown.append(f"{node.module}.{alias.name}")
                elif isinstance(value, ModuleType):
                    modules[alias.asname or alias.name] = value
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in modules:
                if not hasattr(modules[name], attribute):
                    unknown.append(f"{name}.{attribute}")
    return unknown


@pytest.mark.parametrize("page", PAGES, ids=where)
def test_names_are_those_of_the_code(page):
    # so that a renamed function fails before its page is run
    python = [b.code for b in blocks(page.read_text(encoding="utf-8")) if b.language == "python"]
    assert not unknown_names("".join(python))


def test_unknown_names_are_seen():
    code = """
import selfdistill
from selfdistill import core, information as i
from selfdistill.core import Batch, Bach
core.Method, core.Mehtod, i.estimate, selfdistill.train, selfdistill.trian
"""
    unknown = ["selfdistill.core.Bach", "core.Mehtod", "i.estimate", "selfdistill.trian"]
    assert unknown_names(code) == unknown


def run(text: str, place: Path) -> subprocess.CompletedProcess[str]:
    page = place / "page.md"
    page.write_text(text, encoding="utf-8")
    words = [sys.executable, str(RUNNER), str(page)]
    return subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)


def test_commands_of_our_own_are_told_from_what_needs_a_shell():
    page = """# a comment
selfdistill train --set 'method=ce'  # another
selfdistill evaluate \\
  "runs/a run"
"""
    train, evaluate = ["train", "--set", "method=ce"], ["evaluate", "runs/a run"]
    assert own_commands(page) == [train, evaluate]
    others = (
        "ls",
        "A=1 selfdistill x",
        "selfdistill a | head",
        "selfdistill $RUN",
        "selfdistill *",
    )
    assert not any(own_commands(f"selfdistill train\n{other}\n") for other in others)


@pytest.mark.parametrize(("method", "works"), [("ce", True), ("no-such-method", False)])
def test_commands_of_our_own_are_run_without_a_shell(tmp_path, method, works):
    command = f"selfdistill methods {method}"
    done = run(f"```bash\n{command}\n```\n```bash\necho end\n```\n", tmp_path)
    assert (done.returncode == 0, "end\n" in done.stdout) == (works, works)
    assert ("supervised loss alone" in done.stdout) == works


def test_a_page_is_run_in_order(tmp_path):
    done = run(PAGE.replace("print(answer)", "print(answer + 1)"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "43" in done.stdout
    assert (tmp_path / "recipe.toml").read_text() == "epochs = 3\n"


def test_a_failing_block_fails_its_page(tmp_path):
    done = run("```bash\nfalse | true\n```\n", tmp_path)
    assert done.returncode != 0
    done = run("\n\n```python\n\nnothing_of_that_name\n```\n", tmp_path)
    assert done.returncode != 0
    assert "page.md, line 3" in done.stdout
    assert 'page.md", line 5' in done.stderr

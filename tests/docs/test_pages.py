"""Every block of code in the documentation runs, in order, page by page."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import ROOT, RUN, SHOWN, blocks, pages

RUNNER = Path(__file__).parent / "run_page.py"
PAGES = pages()


def to_run(page: Path) -> bool:
    return any(
        block.language in RUN and not block.excuse
        for block in blocks(page.read_text(encoding="utf-8"))
    )


def where(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)], ids=where)
def test_blocks_run(page, workspace, surroundings, tmp_path):
    place = shutil.copytree(workspace, tmp_path / "work")
    output = tmp_path / "output"
    with output.open("w") as stream:
        runner = subprocess.Popen(
            [sys.executable, RUNNER, page],
            cwd=place,
            env=surroundings,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
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


def run(text: str, place: Path) -> subprocess.CompletedProcess[str]:
    page = place / "page.md"
    page.write_text(text, encoding="utf-8")
    words = [sys.executable, str(RUNNER), str(page)]
    return subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)


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

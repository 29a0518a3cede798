"""Modules and files of a user's own, imported by name."""

import sys

import pytest

from selfdistill.core import ConfigError
from selfdistill.recipe import plugins
from selfdistill.recipe.plugins import import_plugins, load_entry_points
from selfdistill.recipe.presets import with_preset


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def counting(path, name="count_me"):
    """A file that counts how often it was run."""
    path.mkdir(parents=True, exist_ok=True)
    file = path / f"{name}.py"
    text = "import pathlib\nlog = pathlib.Path(__file__).with_suffix('.log')\n"
    file.write_text(text + "log.write_text((log.read_text() if log.exists() else '') + 'x')\n")
    return file


def test_a_file_is_imported_once(tmp_path):
    file = counting(tmp_path / "elsewhere")
    import_plugins([str(file), "elsewhere/count_me.py"])
    import_plugins([str(file)])
    assert file.with_suffix(".log").read_text() == "x"
    assert "count_me" in sys.modules


def test_a_module_of_the_working_directory(tmp_path):
    counting(tmp_path, "beside_me")
    import_plugins(["beside_me"])
    assert "beside_me" in sys.modules


def test_a_module_of_a_package(tmp_path):
    counting(tmp_path / "own_package", "inner")
    import_plugins(["own_package.inner"])
    assert "own_package.inner" in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py", "no file 'nowhere.py'"),
        ("no_such_module", "no module 'no_such_module'"),
        ("wrong.py", r"importing 'wrong.py' failed: ZeroDivisionError"),
        ("syntax.py", r"importing 'syntax.py' failed: SyntaxError"),
        ("lacks.py", r"importing 'lacks.py' failed: ModuleNotFoundError: No module named 'xyzzy'"),
    ],
)
def test_what_cannot_be_imported_is_told(name, message, tmp_path):
    (tmp_path / "wrong.py").write_text("1 / 0")
    (tmp_path / "syntax.py").write_text("def")
    (tmp_path / "lacks.py").write_text("import xyzzy")
    with pytest.raises(ConfigError, match=message):
        import_plugins([name])


def test_a_name_that_is_taken(tmp_path):
    (tmp_path / "json.py").write_text("")
    with pytest.raises(ConfigError, match="another module is named 'json'"):
        import_plugins(["json.py"])


def test_code_inside_of_a_run_is_not_executed(tmp_path):
    file = counting(tmp_path / "run")
    with pytest.raises(ConfigError, match="lies in the run itself"):
        import_plugins([str(file)], run_dir=tmp_path / "run")
    assert not file.with_suffix(".log").exists()
    import_plugins([str(file)], run_dir=tmp_path / "other")
    assert file.with_suffix(".log").exists()


class Entry:
    def __init__(self, name, load):
        self.name, self.value, self.load = name, f"{name}_package", load


def test_entry_points_are_loaded_once_and_a_broken_one_is_passed_over(monkeypatch):
    loaded = []

    def broken():
        raise RuntimeError("too old")

    entries = [Entry("bad", broken), Entry("good", lambda: loaded.append("good"))]
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries)
    load_entry_points.cache_clear()
    with pytest.warns(UserWarning, match=r"plugin 'bad' \(bad_package\).*RuntimeError: too old"):
        load_entry_points()
    load_entry_points()
    assert loaded == ["good"]


def test_the_modules_of_a_run_whose_network_goes_on(tmp_path):
    """They are imported, as for all that reads the run, but never from inside of it."""
    file = counting(tmp_path / "mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.toml").write_text(f'model = "own/net"\nimports = ["{file}"]\n')
    whole = with_preset({}, {"method": "ce", "weights": str(run)})
    assert (whole["model"], list(whole["imports"])) == ("own/net", [str(file)])
    assert file.with_suffix(".log").read_text() == "x"
    inner = counting(run, "inner")
    (run / "recipe.toml").write_text(f'model = "own/net"\nimports = ["{inner}"]\n')
    with pytest.raises(ConfigError, match="in the run itself, which is never executed"):
        with_preset({}, {"method": "ce", "weights": str(run)})
    assert not inner.with_suffix(".log").exists()

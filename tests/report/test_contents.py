import pytest
from made_run import EXITS, made_run

from selfdistill.core import ArtefactError, ConfigError
from selfdistill.report.contents import read, stage


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("exit3", 3),
        ("soft/12", 12),
        ("score/mutual/1", 1),
        ("task", None),
        ("student", None),
        ("v2", None),
    ],
)
def test_stage_of_a_name(name, number):
    assert stage(name) == number


def test_reads_what_was_written(tmp_path):
    contents = read(made_run(tmp_path / "run", epochs=2))
    assert [(r.name, r.parameters, r.macs) for r in contents.exits] == list(EXITS)
    assert contents.stages == 3
    assert contents.split == "test"
    assert contents.accuracy == contents.last.test
    assert [e["epoch"] for e in contents.epochs] == [0, 1]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("exits.csv", "predictor,macs\nstudent,3\n", ArtefactError),
        (
            "exits.csv",
            "predictor,parameters,macs,val_accuracy,test_accuracy\na,x,1,,\n",
            ArtefactError,
        ),
        ("confusion.csv", "a,b\n1,2\n", ArtefactError),
        ("confusion.csv", "", ArtefactError),
        ("confusion.csv", "a,b\n1,x\n2,3\n", ArtefactError),
        ("environment.json", "{", ArtefactError),
        ("recipe.toml", "=", ConfigError),
    ],
)
def test_names_the_file_that_cannot_be_read(tmp_path, name, text, error):
    run = made_run(tmp_path / "run")
    run.write(name, text)
    with pytest.raises(error, match=name):
        read(run)

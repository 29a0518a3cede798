import pytest
from made_run import EXITS, made_run, measure

from selfdistill.core import ArtifactError, ConfigError
from selfdistill.reporting.run_data import read, stage


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
    assert contents.score == contents.last.test
    assert [e["epoch"] for e in contents.epochs] == [0, 1]


BINS = "split,predictor,low,high,images,confidence,accuracy"


def test_calibration_is_that_of_the_headline_images(tmp_path):
    run = made_run(tmp_path / "run")
    text = (run.path / "calibration.csv").read_text()
    run.write("calibration.csv", text + "val,student,0,1,10,0.5,0.75\n")
    contents = read(run)
    assert list(contents.calibration) == [name for name, *_ in EXITS]
    table = contents.calibration["student"]
    assert table.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert table.images.sum() == 360
    assert contents.calibrations["val"]["student"].error == 0.25


def test_what_was_measured_comes_back(tmp_path):
    measured = read(measure(made_run(tmp_path / "run"))).measured
    assert [row.name for row in measured.rows] == [*(name for name, *_ in EXITS), "baseline"]
    assert measured.passes == [("cpu", 1), ("cuda", 32)]
    first, second, *_, last = measured.rows
    assert first.times == {("cpu", 1): 0.5, ("cuda", 32): 2.0}
    assert (second.size, second.times) == (None, {})
    assert first.scores == {"validation": 0.9, "test": 0.92}
    assert first.against["test"] == pytest.approx((-0.01, -0.025, 0.005))
    assert last.against == {}


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("exits.csv", "predictor,macs\nstudent,3\n", ArtifactError),
        (
            "exits.csv",
            "predictor,parameters,macs,val_accuracy,test_accuracy\na,x,1,,\n",
            ArtifactError,
        ),
        ("confusion.csv", "a,b\n1,2\n", ArtifactError),
        ("confusion.csv", "", ArtifactError),
        ("classes.csv", "", ArtifactError),
        ("classes.csv", "class,iou\na,x\n", ArtifactError),
        ("classes.csv", "class,iou\na,0.5\nb\n", ArtifactError),
        ("data.json", '{"task": "telepathy"}', ArtifactError),
        ("confusion.csv", "a,b\n1,x\n2,3\n", ArtifactError),
        ("environment.json", "{", ArtifactError),
        ("calibration.csv", "split,predictor\ntest,student\n", ArtifactError),
        ("calibration.csv", f"{BINS}\ntest,student,0,1,x,0,0\n", ArtifactError),
        ("exits-measured.csv", "", ArtifactError),
        ("exits-measured.csv", "predictor\nexit1\n", ArtifactError),
        ("recipe.toml", "=", ConfigError),
    ],
)
def test_names_the_file_that_cannot_be_read(tmp_path, name, text, error):
    run = made_run(tmp_path / "run")
    run.write(name, text)
    with pytest.raises(error, match=name):
        read(run)

import pytest
from made_run import EXITS, made_run, measure

from selfdistill.core import ArtifactError, ConfigError
from selfdistill.functional.statistics import Significance
from selfdistill.reporting.formatting import exit_number
from selfdistill.reporting.run_data import read_run


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
    assert exit_number(name) == number


def test_reads_what_was_written(tmp_path):
    run = read_run(made_run(tmp_path / "run", epochs=2))
    assert [(r.predictor, r.parameters, r.macs) for r in run.exits] == list(EXITS)
    assert run.stages == 3
    assert run.split == "test"
    assert run.score == run.student.test_score
    assert [e["epoch"] for e in run.epochs] == [0, 1]


BINS = "split,predictor,low,high,images,confidence,accuracy"


def test_calibration_is_that_of_the_headline_images(tmp_path):
    directory = made_run(tmp_path / "run")
    text = (directory.path / "calibration.csv").read_text()
    directory.write("calibration.csv", text + "val,student,0,1,10,0.5,0.75\n")
    run = read_run(directory)
    assert list(run.calibration) == [name for name, *_ in EXITS]
    table = run.calibration["student"]
    assert table.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert table.images.sum() == 360
    assert run.calibrations["val"]["student"].error == 0.25


def test_what_was_measured_comes_back(tmp_path):
    measured = read_run(measure(made_run(tmp_path / "run"))).measured
    assert [row.predictor for row in measured.rows] == [name for name, *_ in EXITS]
    assert measured.baseline.predictor == "baseline"
    assert measured.passes == [("cpu", 1), ("cuda", 32)]
    first, second, *_ = measured.rows
    assert first.seconds == {("cpu", 1): 0.0005, ("cuda", 32): 0.002}
    assert (second.size, second.seconds) == (None, {})
    assert first.scores == {"val": 0.9, "test": 0.92}
    assert first.against["test"].mean == pytest.approx(-0.01)
    assert first.against["test"].interval == pytest.approx((-0.025, 0.005))
    assert first.against["test"].significance is Significance.INCONCLUSIVE
    assert measured.baseline.against == {}


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
        read_run(run)

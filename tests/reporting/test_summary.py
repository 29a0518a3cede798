from made_run import EXITS, made_run

from selfdistill.reporting.run_data import read_run
from selfdistill.reporting.run_page import page
from selfdistill.reporting.summary import best_cheaper_exit, cards

HEAD = "predictor,parameters,macs,val_accuracy,test_accuracy\n"


def with_scores(path, *scores):
    run = made_run(path)
    rows = [f"{n},{p},{m},{s},{s}\n" for (n, p, m), s in zip(EXITS, scores, strict=True)]
    run.write("exits.csv", HEAD + "".join(rows))
    return read_run(run)


def test_of_equal_exits_the_cheaper_is_best(tmp_path):
    assert best_cheaper_exit(with_scores(tmp_path / "run", 0.5, 0.7, 0.7, 0.8)).predictor == "exit2"


def test_an_exit_that_costs_as_much_is_not_cheaper(tmp_path):
    run = made_run(tmp_path / "run")
    run.write("exits.csv", HEAD + "exit1,5,10,0.9,0.9\nstudent,5,10,0.8,0.8\n")
    assert best_cheaper_exit(read_run(run)) is None


def test_an_exit_that_beats_the_network_is_praised(tmp_path):
    assert "exit 3 even reaches 90.0 %" in page(with_scores(tmp_path / "run", 0.5, 0.6, 0.9, 0.8))


def test_names_the_cheapest_within_a_point(tmp_path):
    labels = [card.label for card in cards(with_scores(tmp_path / "run", 0.5, 0.791, 0.795, 0.8))]
    assert "Cheapest within a point: exit 2" in labels
    assert "Best cheaper exit: exit 3" in labels

import csv
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from made_run import EXITS, made_run, measure

from selfdistill.core import ConfigError
from selfdistill.engine.run_directory import RunDirectory
from selfdistill.reporting.run_page import write_report

VOID = {"meta", "br", "hr", "img", "input", "link"}
SECTIONS = ["Accuracy and cost of every exit", "Accuracy, and what depth buys"]
SECTIONS += ["Information between stages", "Loss terms", "Optimizer", "Calibration", "Confusion"]
SECTIONS += ["Recipe"]


class Page(HTMLParser):
    """Checks that every element is closed; keeps headings, text and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.loads, self.ids, self.titles = [], [], [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag not in ("script", "iframe", "link")
        self.loads += [value for key, value in attrs if key in ("src", "href", "xlink:href")]
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] in ("h1", "h2", "h3", "summary"):
            self.titles.setdefault(self.open[-1], []).append(text)
        if "style" not in self.open:
            self.words.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A run with all that there can be, its page as text, and read."""
    run = made_run(tmp_path_factory.mktemp("made") / "run")
    return run, *read(run)


def read(run):
    text = write_report(run).read_text(encoding="utf-8")
    return text, Page(text)


def test_a_full_run_has_every_section(full):
    _, _, page = full
    assert page.titles["h1"] == ["run"]
    assert page.titles["h2"] == SECTIONS
    assert page.titles["summary"] == ["Further monitors", "Command and environment"]
    terms = ["total", "task", "soft", "mutual", "self"]
    assert [t for t in page.titles["h3"] if t in terms] == terms
    assert "chance: 2 ln 2 = 1.386" in page.text
    assert "selfdistill train --data digits" in page.text
    assert "exit 3 reaches 96.3 % with 71 % of the multiply-adds" in page.text


def test_loads_nothing_from_anywhere(full):
    _, text, page = full
    assert all(address.startswith(("#", "data:")) for address in page.loads)
    assert not re.search(r"https?://|@import|url\((?!#)", text)


def test_ids_are_unique_and_references_lead_somewhere(full):
    _, text, page = full
    assert len(page.ids) == len(set(page.ids))
    targets = {a[1:] for a in page.loads if a.startswith("#")} | set(
        re.findall(r"url\(#(.*?)\)", text)
    )
    assert targets <= set(page.ids)


def test_pictures_are_xml_in_the_colors_of_the_page(full):
    _, text, _ = full
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 4 + 5 + 2 + 2 + 1 + 1
    for picture in pictures:
        ET.fromstring(picture.replace("xlink:href", "href"))
        assert "var(--muted)" in picture
        assert not re.search("#010[12]", picture)
    used, defined = (
        set(re.findall(r"var\((--[\w-]+)\)", text)),
        set(re.findall(r"(--[\w-]+):", text)),
    )
    assert used <= defined


def test_shows_the_numbers_of_the_csv(full):
    run, text, page = full
    with (run.path / "exits.csv").open() as stream:
        for row in csv.DictReader(stream):
            for split in ("val", "test"):
                assert f"{100 * float(row[f'{split}_accuracy']):.2f} %" in page.text
            assert f'title="{row["macs"]}"' in text
            assert f'title="{row["parameters"]}"' in text
    *_, final = map(json.loads, run.metrics_file.read_text().splitlines())
    for scores in final["test"].values():
        assert f"{100 * scores['top5']:.2f} %" in page.text


def test_escapes_what_people_name(tmp_path):
    names = ["<b>bold</b>", "$x_1^$", "a & b", '"quoted"', "猫", "two\nlines"]
    run = made_run(tmp_path / "a<i>b", classes=names, images=60)
    recipe = (run.path / "recipe.toml").read_text()
    run.write("recipe.toml", recipe.replace("digits", "<script>x</script>"))
    text, page = read(run)
    assert "<b>bold" not in text
    assert "<i>b" not in text
    for name in ("<b>bold</b>", "$x_1^$", "a & b", '"quoted"', "猫", "two lines", "<script>"):
        assert name in page.text


def test_a_hundred_classes_are_a_map_and_a_table(tmp_path):
    run = made_run(tmp_path / "run", classes=[f"class {i}" for i in range(100)], images=2000)
    text, page = read(run)
    confusion = text[text.index("<h2>Confusion") : text.index("<h2>Recipe")]
    assert confusion.count("<tr>") == 11
    assert confusion.count("<text") + confusion.count("<tspan") < 30
    assert "on 2 000 test images" in page.text


def test_a_product_of_terms_is_a_family_of_its_own(tmp_path):
    _, page = read(made_run(tmp_path / "run", combine="mul"))
    assert "product" in page.titles["h3"]
    assert "self" not in page.titles["h3"]
    assert "Self-information" in page.titles["h3"]


def test_chance_of_other_estimators_is_not_claimed(tmp_path):
    run = made_run(tmp_path / "run")
    run.write("recipe.toml", run.recipe().replace('"jsd"', '"infonce"'))
    assert "2 ln 2" not in read(run)[1].text


def test_a_network_without_exits(tmp_path):
    _, page = read(made_run(tmp_path / "run", exits=EXITS[-1:]))
    assert page.titles["h2"][:2] == ["Accuracy and cost", "Accuracy"]
    assert "Information between stages" not in page.titles["h2"]
    assert "exit" not in page.text.replace("exits", "").lower()


def test_what_is_missing_has_no_section(tmp_path):
    run = made_run(tmp_path / "run")
    for name in ("exits.csv", "calibration.csv", "confusion.csv", "environment.json"):
        (run.path / name).unlink()
    titles = read(run)[1].titles
    lost = (SECTIONS[0], "Calibration", "Confusion")
    assert titles["h2"] == [t for t in SECTIONS if t not in lost]
    assert titles["summary"] == ["Further monitors"]


def test_without_validation_and_test_images(tmp_path):
    run = made_run(tmp_path / "run")
    lines = [{**line, "val": {}, "test": None} for line in run.metrics()]
    run.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    rows = "".join(f"{name},{parameters},{macs},,\n" for name, parameters, macs in EXITS)
    run.write("exits.csv", "predictor,parameters,macs,val_accuracy,test_accuracy\n" + rows)
    _, page = read(run)
    assert "not evaluated yet" in page.text
    assert "Validation accuracy over epochs" not in page.titles["h3"]


def test_a_run_before_its_first_epoch(tmp_path):
    run = made_run(tmp_path / "run")
    for name in ("metrics.jsonl", "exits.csv", "calibration.csv", "confusion.csv"):
        (run.path / name).unlink()
    _, page = read(run)
    assert "No epoch was finished" in page.text
    assert page.titles["h2"] == ["Training", "Recipe"]


def test_a_run_that_was_stopped_says_how_far_it_came(tmp_path):
    run = made_run(tmp_path / "run", epochs=4)
    run.rewind(44)
    (run.path / "exits.csv").unlink()
    run.write("metrics.jsonl", run.metrics_file.read_text() + '{"kind": "step", "st')
    assert "2 of 4 epochs are done" in read(run)[1].text


def test_a_loss_that_is_not_finite_does_not_stop_the_report(tmp_path):
    run = made_run(tmp_path / "run")
    lines = run.metrics()
    lines[3]["grad_norm"] = float("inf")
    for line in lines[:-1]:
        line["losses"]["task"] = float("nan")
    run.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert "Norm of the gradient" in read(run)[1].titles["h3"]


def test_no_run_is_said(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        write_report(RunDirectory(tmp_path))


def test_is_the_same_page_every_time(full):
    run, text, _ = full
    assert read(run)[0] == text


def test_peers_are_networks_and_no_exits(tmp_path):
    peers = [("peer1", *EXITS[0][1:]), EXITS[-1]]
    _, page = read(made_run(tmp_path / "run", exits=peers))
    assert "Accuracy and cost of every network" in page.titles["h2"]
    assert "peer 1" in page.text
    assert "Best cheaper exit" not in page.text


def test_the_error_of_every_exit_and_what_the_network_makes_of_it(full):
    _, text, page = full
    # few are too sure by 0.15, a quarter too modest by 0.1, the rest too sure by 0.05
    error = (4 * 0.15 + 90 * 0.1 + 266 * 0.05) / 360
    assert page.text.count(f"{100 * error:.2f} %") == 4
    assert f"off by {100 * error:.2f} points" in page.text
    assert f"calibration error {100 * error:.1f} %" in text
    assert "The student on 360 test images" in page.text


def test_the_front_is_marked_in_table_and_picture(tmp_path):
    run = made_run(tmp_path / "run")
    head, *rows = (run.path / "exits.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]
    cells[1][3] = "0.1"  # exit 2 is worse than exit 1 on validation images, and better on test
    run.write("exits.csv", "\n".join([head, *(",".join(row) for row in cells)]) + "\n")
    text, page = read(run)
    rows = text[text.index("<tbody>") : text.index("</tbody>")].split("<tr")[1:]
    assert ["✓" in row for row in rows] == [True, False, True, True]
    assert "The Pareto front is that of the validation accuracy" in page.text


def test_what_was_measured_has_a_section(tmp_path):
    run = measure(made_run(tmp_path / "run"))
    _, page = read(run)
    assert page.titles["h2"][2] == "Size and time"
    assert "a <CPU>, 2 threads" in page.text
    for words in ("608 kB", "0.5 ms", "1 image, cpu", "32 images, cuda", "runs/plain"):
        assert words in page.text
    assert "−1.0 (−2.5 … +0.5) within noise" in page.text
    assert "+2.0 (+0.5 … +3.5) better" in page.text
    assert "Accuracy against time" in page.titles["h3"]
    assert "Note:" not in page.text


def test_what_was_measured_of_an_unfinished_run(tmp_path):
    run = measure(made_run(tmp_path / "run"), notes="it stands at epoch 2 of 3")
    (run.path / "exits.csv").unlink()
    assert "Note: it stands at epoch 2 of 3." in read(run)[1].text


def test_a_run_of_one_epoch_has_no_curve_of_one_point(tmp_path):
    run = made_run(tmp_path / "run", epochs=1)
    lines = run.metrics()
    first, last = (next(e for e in ls if e["kind"] == "step") for ls in (lines, lines[::-1]))
    for steps in ([last], [first, last]):
        kept = [*steps, *(line for line in lines if line["kind"] != "step")]
        run.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        _, page = read(run)
        assert "Validation accuracy over epochs" not in page.titles["h3"]
        drawn = {"Loss terms", "Optimizer", "Information between stages"} & set(page.titles["h2"])
        assert bool(drawn) == (len(steps) > 1)
        assert SECTIONS[0] in page.titles["h2"]


def test_terms_of_an_exit_are_explained(full):
    assert "soft/2 is the term soft of exit 2" in full[2].text

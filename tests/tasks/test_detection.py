"""Average precision against hand-made cases and a plain numpy form of COCO's rules."""

import warnings

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn
from torchvision.ops import box_iou

from selfdistill.core import ConfigError, DataError
from selfdistill.modules.anchor_head import AnchorHead
from selfdistill.modules.detector_output import Detections
from selfdistill.tasks import TASKS, Detection, check_network

SIZE = (96, 128)
NONE = [-1.0, 0.0, 0.0, 0.0, 0.0]


class Fixed:
    """Outputs of a detector that are detections already."""

    def __init__(self, *per_image):
        self.per_image = list(per_image)

    def detections(self, size):
        assert size == SIZE
        return self.per_image


def of_image(*rows) -> Detections:
    """Rows of label, score and box, by descending score."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, 2:], table[:, 1], table[:, 0].long())


@pytest.fixture
def task():
    return Detection(["cat", "dog", "cow"], torch.zeros(2, 3, *SIZE))


def evaluated(metric, outputs, targets) -> dict[str, float]:
    metric.update(outputs, targets)
    return metric.compute()


def test_what_is_found_exactly_is_all(task):
    targets = torch.tensor([[[0, 0, 0, 10, 10], [1, 20, 20, 40, 40.0]], [NONE, NONE]])
    predictions = Fixed(of_image([0, 0.9, 0, 0, 10, 10], [1, 0.8, 20, 20, 40, 40]), of_image())
    assert evaluated(task.metric(), predictions, targets) == {"map": 1, "map50": 1}


def test_half_of_the_boxes_found_is_half_of_the_precision(task):
    """Up to a recall of .5 precision is 1, and behind it 0: 51 of COCO's 101 places."""
    targets = torch.tensor([[[0, 0, 0, 10, 10], [0, 50, 50, 60, 60.0]]])
    got = evaluated(task.metric(), Fixed(of_image([0, 0.9, 0, 0, 10, 10])), targets)
    assert got["map50"].item() == pytest.approx(51 / 101, abs=1e-6)
    assert got["map"].item() == pytest.approx(51 / 101, abs=1e-6)


def test_a_box_of_iou_sixty_two_counts_up_to_sixty(task):
    """Thresholds .50, .55 and .60 of ten are met."""
    targets = torch.tensor([[[2, 0, 0, 10, 10.0]]])
    got = evaluated(task.metric(), Fixed(of_image([2, 0.9, 0, 0, 10, 6.2])), targets)
    assert got["map50"] == 1
    assert got["map"].item() == pytest.approx(0.3, abs=1e-6)


def test_an_answer_too_many_hurts_if_it_is_surer(task):
    targets = torch.tensor([[[0, 0, 0, 10, 10.0]]])
    right, wrong = [0, 0.5, 0, 0, 10, 10], [0, 0.9, 60, 60, 80, 80]
    assert (
        evaluated(task.metric(), Fixed(of_image(right, [0, 0.4, *wrong[2:]])), targets)["map"] == 1
    )
    assert evaluated(task.metric(), Fixed(of_image(wrong, right)), targets)[
        "map"
    ].item() == pytest.approx(0.5, abs=1e-6)


def precision_by_hand(result, truths, label, threshold):
    """Average precision of a class: pycocotools' matching and its 101 places, in plain loops."""
    hits, scores, total = [], [], 0
    for predictions, rows in zip(result, truths, strict=True):
        true, free = rows[rows[:, 0] == label][:, 1:], []
        total += len(true)
        free = [True] * len(true)
        for score, box in zip(
            *(x[predictions.labels == label] for x in (predictions.scores, predictions.boxes)),
            strict=True,
        ):
            overlaps = box_iou(box[None], true)[0].tolist() if len(true) else []
            best = max((o for o, f in zip(overlaps, free, strict=True) if f), default=0)
            hit = best >= threshold
            if hit:
                free[[o if f else -1 for o, f in zip(overlaps, free, strict=True)].index(best)] = (
                    False
                )
            hits.append(hit)
            scores.append(score)
    right = np.cumsum(np.array(hits)[np.argsort(-np.array(scores), kind="stable")])
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(right / total, np.linspace(0, 1, 101), side="left")
    return np.mean([precision[p] if p < len(precision) else 0 for p in places])


def some_scenes(count):
    """Random boxes, and answers that are near to them or anywhere."""
    generator = torch.Generator().manual_seed(0)
    result, truths = [], []
    for _ in range(count):
        low = 60 * torch.rand(6, 2, generator=generator)
        boxes = torch.cat([low, low + 10 + 20 * torch.rand(6, 2, generator=generator)], 1)
        labels = torch.randint(0, 3, (6,), generator=generator)
        truths.append(torch.cat([labels[:, None].float(), boxes], 1))
        near = (boxes + 3 * torch.randn(6, 4, generator=generator)).repeat(2, 1)
        wrong = torch.rand(12, generator=generator) < 0.2
        names = torch.where(
            wrong, torch.randint(0, 3, (12,), generator=generator), labels.repeat(2)
        )
        scores = torch.rand(12, generator=generator).sort(descending=True).values
        result.append(Detections(near, scores, names))
    return result, torch.stack(truths)


def test_random_scenes_as_in_plain_loops(task):
    result, truths = some_scenes(12)
    metric, by_class = task.metric(), task.per_class_metric()
    for part in (slice(0, 5), slice(5, 12)):
        metric.update(Fixed(*result[part]), truths[part])
        by_class.update(Fixed(*result[part]), truths[part])
    table = np.array(
        [
            [precision_by_hand(result, truths, k, t) for t in np.linspace(0.5, 0.95, 10)]
            for k in range(3)
        ]
    )
    got = metric.compute()
    assert got["map50"].item() == pytest.approx(table[:, 0].mean(), abs=1e-6)
    assert got["map"].item() == pytest.approx(table.mean(), abs=1e-6)
    columns = by_class.compute()
    np.testing.assert_allclose(columns["ap"], table.mean(1), atol=1e-6)
    assert columns["boxes"].tolist() == [int((truths[..., 0] == k).sum()) for k in range(3)]


def test_a_class_without_a_box_has_no_precision(task):
    targets = torch.tensor([[[0, 0, 0, 10, 10.0]]])
    columns = evaluated(task.per_class_metric(), Fixed(of_image([1, 0.9, 0, 0, 10, 10])), targets)
    assert columns["ap"][0] == 0
    assert columns["ap"][1:].isnan().all()
    assert columns["boxes"].tolist() == [1, 0, 0]


def test_images_without_a_box_and_answers_without_an_image(task):
    nothing = torch.tensor([[NONE], [NONE]])
    assert evaluated(task.metric(), Fixed(of_image(), of_image()), nothing) == {
        "map": 0,
        "map50": 0,
    }
    predictions = Fixed(of_image([0, 0.9, 0, 0, 9, 9]), of_image())
    assert evaluated(task.metric(), predictions, nothing) == {"map": 0, "map50": 0}
    assert evaluated(task.metric(), predictions, nothing[:, :0]) == {"map": 0, "map50": 0}


def test_a_metric_can_be_used_again(task):
    metric = task.metric()
    targets = torch.tensor([[[0, 0, 0, 10, 10.0]]])
    right, nothing = (
        Fixed(of_image([0, 0.9, 0, 0, 10, 10])),
        Fixed(of_image()),
    )
    with torch.inference_mode():
        assert evaluated(metric, right, targets)["map"] == 1
        metric.reset()
        assert evaluated(metric, nothing, targets)["map"] == 0
        metric.reset()
        assert evaluated(metric, right, targets)["map"] == 1


def _one_process(rank: int, folder: str) -> None:
    warnings.simplefilter("ignore")  # gloo talks
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    task = Detection(["cat", "dog", "cow"], torch.zeros(2, 3, *SIZE))
    result, truths = some_scenes(5)
    part = slice(0, 4) if rank else slice(4, 5)  # as many as they like
    metric = task.metric()
    metric.update(Fixed(*result[part]), truths[part])
    torch.save(metric.compute(), f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_processes_join_what_they_saw(task, tmp_path):
    multiprocessing.spawn(_one_process, (str(tmp_path),), nprocs=2)
    result, truths = some_scenes(5)
    want = evaluated(task.metric(), Fixed(*result), truths)
    for rank in (0, 1):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert got["map"].item() == pytest.approx(want["map"].item(), abs=1e-6)


def test_nothing_is_measured_while_training(task):
    metric = task.train_metric()
    metric.reset()
    metric.update(Fixed(), torch.zeros(0))
    assert metric.compute() == {}


def test_pictures_show_truth_and_answer(task):
    images = torch.full((2, 3, *SIZE), 60, dtype=torch.uint8)
    targets = torch.tensor([[[0, 10, 10, 50, 50], [1, 60, 20, 90, 60.0]], [NONE, NONE]])
    sure = [[2, 0.9, 10, 10, 50, 50]] + [[0, 0.3, 60 + k, 20, 90, 60] for k in range(30)]
    drawn = task.visualize(
        images, targets, Fixed(of_image(*sure, [1, 0.29, 5, 70, 30, 90]), of_image())
    )
    height, width = 4 * 96, 2 * 4 * 128 + 4
    assert [d.shape for d in drawn] == [(3, height, width)] * 2
    truth, answer = drawn[0][..., : 4 * 128], drawn[0][..., -4 * 128 :]
    assert (truth != 60).any()
    assert not torch.equal(truth, answer)
    assert (answer[:, 4 * 68 :] == 60).all()  # what is less sure is not drawn
    empty = drawn[1][..., : 4 * 128]
    assert (empty == 60).all()


def test_the_task_has_a_name_and_a_headline(task):
    assert TASKS["detection"] is Detection
    assert Detection.primary_metric in evaluated(
        task.metric(), Fixed(of_image()), torch.tensor([[NONE]])
    )


def test_an_exit_has_the_loss_of_its_head(task):
    torch.manual_seed(0)
    out = task.head(8)(torch.randn(2, 8, 3, 4))
    targets = torch.tensor([[[0, 10, 10, 50, 50.0]], [NONE]])
    assert torch.equal(task.loss(out, targets), out.loss(targets, SIZE))
    assert task.outputs_compatible(out, out.detach())
    assert task.soft_loss(out, out.detach(), 2.0) == 0


def test_outputs_of_other_forms_do_not_teach(task):
    exit_says = task.head(8)(torch.randn(2, 8, 3, 4))
    final = AnchorHead([8, 8, 8], 3)([torch.randn(2, 8, n, n) for n in (8, 4, 2)])
    assert not task.outputs_compatible(exit_says, final)
    with pytest.raises(ConfigError, match="do not compare"):
        task.soft_loss(exit_says, final, 2.0)


def test_what_is_no_detector_is_refused(task):
    check_network(nn.Sequential(nn.Conv2d(3, 8, 3), task.head(8)), task)
    with pytest.raises(ConfigError, match="no detector's predictions"):
        check_network(nn.Conv2d(3, 8, 3), task)


def test_a_detector_of_other_classes_is_refused(task):
    other = Detection([*task.classes, "one more"], torch.zeros(2, 3, *SIZE))
    network = nn.Sequential(nn.Conv2d(3, 8, 3), other.head(8))
    check_network(network, other)
    with pytest.raises(ConfigError, match=rf"{len(task.classes) + 1} classes.*num_classes="):
        check_network(network, task)


def test_what_has_no_sense_is_refused():
    with pytest.raises(DataError, match="none"):
        Detection([], torch.zeros(2, 3, *SIZE))
    with pytest.raises(ConfigError, match="label_smoothing"):
        Detection(["cat"], torch.zeros(2, 3, *SIZE), label_smoothing=0.1)

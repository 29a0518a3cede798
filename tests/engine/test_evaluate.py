from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_runs import CLASSES, images, network, task
from lightning_fabric import Fabric
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassRecall

from selfdistill.data import EvalLoader
from selfdistill.engine.evaluate import evaluate, evaluate_full, predictor_outputs
from selfdistill.recipe.build_method import build_method
from selfdistill.tasks import Classification


def evaluate_predictors(method, batches, the_task=None, **extra):
    return evaluate(
        Fabric(accelerator="cpu", devices=1), method, the_task or task(), batches, **extra
    )


def loader(size=4, count=10):
    return EvalLoader(images(count), batch_size=size, mean=(0.5,) * 3, std=(0.3,) * 3)


@pytest.fixture
def method():
    torch.manual_seed(3)
    return build_method("exits", network(), task()).train()


def test_accuracy_equals_numpy(method):
    scores = evaluate_predictors(method, loader())
    method.eval()
    with torch.no_grad():
        (batch_all,) = loader(size=10)
        outputs = method.predict(batch_all.inputs)
    assert scores.keys() == {"exit1", "student"}
    for name, logits in outputs.items():
        correct = np.argmax(logits.numpy(), 1) == batch_all.targets.numpy()
        assert scores[name]["accuracy"] == pytest.approx(correct.mean())


def test_top5_equals_numpy():
    torch.manual_seed(0)
    logits, labels = torch.randn(30, 8), torch.randint(8, (30,))
    metric = Classification("abcdefgh", torch.zeros(2, 3, 8, 8)).metric()
    for part in range(0, 30, 7):  # the last part is smaller
        metric.update(logits[part : part + 7], labels[part : part + 7])
    scores = metric.compute()
    indices = np.argsort(-logits.numpy(), 1)
    top5 = (indices[:, :5] == labels.numpy()[:, None]).any(1).mean()
    assert float(scores["top5"]) == pytest.approx(top5)
    assert float(scores["accuracy"]) == pytest.approx((indices[:, 0] == labels.numpy()).mean())


def test_batch_size_changes_nothing(method):
    assert evaluate_predictors(method, loader(3)) == evaluate_predictors(method, loader(10))


def examined(method, batches, the_task=None):
    return evaluate_full(Fabric(accelerator="cpu", devices=1), method, the_task or task(), batches)


def test_further_metrics_hear_of_their_predictor(method):
    metrics = {name: task().metric() for name in ("exit1", "student")}
    scores = evaluate_predictors(
        method, loader(), extra_metrics={name: [m] for name, m in metrics.items()}
    )
    for name, metric in metrics.items():
        assert metric.compute()["accuracy"].item() == scores[name]["accuracy"]


def test_all_that_the_task_offers(method):
    verdict = examined(method, loader())
    assert verdict.scores == evaluate_predictors(method, loader())
    for name, scores in verdict.scores.items():
        assert verdict.correct[name].float().mean().item() == pytest.approx(scores["accuracy"])
        images, _, correct = verdict.calibration[name].T
        assert images.sum() == 10
        assert (images * correct).nansum() / 10 == pytest.approx(scores["accuracy"])


def test_a_task_need_offer_nothing(method):
    class Bare(Classification):
        def matrix_metrics(self):
            return {}

        def calibration_metric(self):
            return None

        def correct_mask(self, outputs, targets):
            return None

        def confidence(self, outputs):
            return None

    verdict = examined(method, loader(), Bare(CLASSES, task().example))
    assert verdict.scores == evaluate_predictors(method, loader())
    assert verdict[1:5] == ({}, {}, {}, {})
    assert len(verdict.confidence) == len(verdict.predicted) == 0


def test_matrices_are_of_the_student_only(method):
    confusion = examined(method, loader()).matrices["confusion"].numpy()
    method.eval()
    (batch_all,) = loader(size=10)
    with torch.no_grad():
        outputs = method.predict(batch_all.inputs)["student"].argmax(1).numpy()
    want = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(want, (batch_all.targets.numpy(), outputs), 1)
    assert (confusion == want).all()


def test_modes_come_back_as_they_were(method):
    method.student.network[0].eval()
    modes = [module.training for module in method.modules()]
    evaluate_predictors(method, loader())
    assert [module.training for module in method.modules()] == modes


def test_modes_come_back_after_a_fault(method):
    modes = [module.training for module in method.modules()]

    def broken():
        yield from loader()
        raise KeyError

    with pytest.raises(KeyError):
        evaluate_predictors(method, broken())
    assert [module.training for module in method.modules()] == modes


def test_looking_changes_no_statistics_and_no_generator(method):
    before = {name: value.clone() for name, value in method.state_dict().items()}
    state = torch.get_rng_state()
    evaluate_predictors(method, loader())
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_each_class_of_the_student(method):
    class Counted(Classification):
        def per_class_metric(self):
            return Recall(len(CLASSES), average="none")

    class Recall(MulticlassRecall):
        def compute(self):
            return {"recall": super().compute()}

    assert examined(method, loader()).per_class == {}
    verdict = examined(method, loader(), Counted(CLASSES, task().example))
    confusion = verdict.matrices["confusion"]
    recall = confusion.diagonal() / confusion.sum(1)
    torch.testing.assert_close(verdict.per_class["recall"], recall.nan_to_num(), check_dtype=False)


def test_answers_are_the_students_and_modes_come_back(method):
    modes = [module.training for module in method.modules()]
    (batch_all,) = loader(size=10)
    fabric = Fabric(accelerator="cpu", devices=1)
    outputs = predictor_outputs(fabric, method, "student", batch_all.inputs)
    assert [module.training for module in method.modules()] == modes
    method.eval()
    assert (outputs == method.predict(batch_all.inputs)["student"]).all()


class OneClassMetric(Metric):
    """What a task computes for each of its classes, where there is one class."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def update(self, preds, target):
        pass

    def compute(self):
        return self.value


def test_vectors_and_matrices_of_one_element_keep_their_dimensions(method):
    class Single(Classification):
        def per_class_metric(self):
            return OneClassMetric({"ap": torch.ones(1), "boxes": torch.ones(1, dtype=torch.int64)})

        def matrix_metrics(self):
            return {"confusion": OneClassMetric(torch.ones(1, 1))}

    result = examined(method, loader(), Single(CLASSES, task().example))
    assert {name: tuple(t.shape) for name, t in result.per_class.items()} == {
        "ap": (1,),
        "boxes": (1,),
    }
    assert result.matrices["confusion"].shape == (1, 1)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x,), lambda x: SimpleNamespace(maps=[x])])
def test_nan_in_outputs_is_warned_of_by_name(method, wrap):
    predict = method.predict

    def broken(inputs):
        outputs = predict(inputs)
        return outputs | {"exit1": wrap(outputs["exit1"] * torch.nan)}

    class Counts(Classification):
        def metric(self):
            return MetricCollection({"accuracy": OneClassMetric(torch.ones(()))})

    method.predict = broken
    with pytest.warns(UserWarning, match="outputs of exit1 hold NaN"):
        evaluate_predictors(method, loader(), Counts(CLASSES, task().example))

"""Mixed labels: a method learns from them as from labels, or says that it cannot."""

import torch
from contract_cases import CASES as ALL
from contract_cases import Case, moment, over
from torch.nn import functional as F

K = 5
CASES = [case for case in ALL if case.task == "classification"]


def terms(case: Case, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    method = case.method()
    step = method(case.batch()._replace(targets=targets), moment(step=500))
    return {name: loss.detach() for name, loss in step.losses.items()}


@over(CASES)
def test_parts_of_one_class_are_its_label(case):
    if case.method().needs.single_label or case.method().needs.same_class:
        return
    labels = case.batch().targets
    hard, soft = terms(case, labels), terms(case, F.one_hot(labels, K).float())
    assert hard.keys() == soft.keys()
    for name, loss in hard.items():
        torch.testing.assert_close(soft[name], loss, msg=f"{case}: {name}")


@over(CASES)
def test_a_supervised_term_is_linear_in_the_parts(case):
    needs = case.method().needs
    if needs.single_label or needs.same_class or needs.unlabeled:
        return
    labels = case.batch().targets
    first, second = F.one_hot(labels, K).float(), F.one_hot((labels + 2) % K, K).float()
    both = [terms(case, targets) for targets in (first, second, 0.3 * first + 0.7 * second)]
    if "task" in both[0]:
        torch.testing.assert_close(both[2]["task"], 0.3 * both[0]["task"] + 0.7 * both[1]["task"])

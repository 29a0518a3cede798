"""Each method with each task: it trains, or is refused in a sentence that tells what is missing."""

import pytest
import torch
from contract_cases import TARGETS, Case, defaults, moment

from selfdistill.core import METHODS, ConfigError
from selfdistill.recipe.build_method import unsupported_reason
from selfdistill.tasks import TASKS

PAIRS = [Case(name, "defaults", {}, task) for task in TARGETS for name in METHODS]
SERVED = {str(case) for task in TARGETS for case in defaults(task)}
ON_CLIPS = {"at", "ce", "dist", "kd", "muse", "pskd", "skd-srl", "ttm"}
REFUSED = {  # besides clips and embeddings
    "aicsd": {"classification", "detection"},
    "crd": {"segmentation", "detection"},
    "cskd": {"segmentation", "detection"},
    "ddgsd": {"segmentation", "detection"},
    "deit": {"segmentation", "detection"},
    "dist": {"detection"},
    "dkd": {"segmentation", "detection"},
    "feature-kd": {"classification", "segmentation", "detection"},
    "hsakd": {"segmentation", "detection"},
    "hsakd-online": {"segmentation", "detection"},
    "hsakd-teacher": {"segmentation", "detection"},
    "kd3": {"segmentation", "detection"},
    "kdcl": {"segmentation", "detection"},
    "lsp": {"classification", "segmentation", "detection"},
    "mixskd": {"detection"},
    "mlkd": {"segmentation", "detection"},
    "nkd": {"segmentation", "detection"},
    "ofa-kd": {"segmentation", "detection"},
    "one": {"detection"},
    "pskd": {"segmentation", "detection"},
    "snapshot": {"detection"},
    "srrl": {"segmentation", "detection"},
    "skd-srl": {"segmentation", "detection"},
    "sskd": {"segmentation", "detection"},
    "sskd-teacher": {"segmentation", "detection"},
    "ttm": {"detection"},
    "uskd": {"segmentation", "detection"},
    "wcord": {"segmentation", "detection"},
}


def test_every_task_is_here():
    assert TARGETS.keys() == TASKS.keys()


def test_who_is_refused():
    found = {}
    for case in PAIRS:
        if str(case) not in SERVED:
            found.setdefault(case.name, set()).add(case.task)
    assert found.keys() == set(METHODS)
    for name, tasks in found.items():
        assert tasks - {"clips", "embedding"} == REFUSED.get(name, set())
        assert ("embedding" in tasks) == (name != "feature-kd")
        assert ("clips" in tasks) == (name not in ON_CLIPS)


@pytest.mark.parametrize("case", [c for c in PAIRS if str(c) not in SERVED], ids=str)
def test_refused_in_a_sentence(case):
    with pytest.raises(ConfigError) as refusal:
        case.method()
    said = str(refusal.value)
    assert said.startswith(
        f"method '{case.name}' {unsupported_reason(METHODS[case.name], TASKS[case.task])}"
    )
    assert case.task in said
    assert said.endswith("`selfdistill methods` says what each method serves")
    assert "\n" not in said


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in PAIRS if str(c) in SERVED], ids=str)
def test_a_step_of_all_others_is_finite(case):
    method = case.method()
    step = method(case.batch(), moment(500))
    step.total.backward()
    assert all(torch.isfinite(loss) for loss in step.losses.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)

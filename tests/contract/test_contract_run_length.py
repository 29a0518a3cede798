"""A method says whether it must know how long a run is: it asks for it then, and only then."""

import pytest
import torch
from contract_cases import CASES, of_each_method, over

from selfdistill.core import Progress


class Asked(Exception):
    pass


class Endless(Progress):
    """Progress of a run of unknown length."""

    @property
    def total(self):
        raise Asked

    @property
    def fraction(self):
        raise Asked


@over(CASES, of_each_method)
def test_the_length_is_asked_for_where_it_is_needed(case):
    method = case.method().train()
    progress = Endless(*map(torch.tensor, (0, 0, 3, 0)))

    def step():
        method(case.batch(), progress)
        method.after_step(progress)

    if not method.needs.run_length:
        step()
        return
    with pytest.raises(Asked):
        step()

import torch
from torch import nn

from selfdistill.core import Method, NetworkWrapper, StepOutput


class Trained(Method):
    def __init__(self, student):
        super().__init__()
        self.student = student

    def forward(self, batch, progress):
        return StepOutput(self.student(batch.inputs), {})


class Wrapper(NetworkWrapper):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return 2 * self.network(x)


def test_a_method_leaves_its_student_behind_by_default():
    network = nn.Linear(3, 4)
    assert Trained(network).predictors() == {"student": network}
    x = torch.ones(1, 3)
    torch.testing.assert_close(Trained(network).predict(x), {"student": network(x)})


def test_a_network_in_a_wrapper_is_left_behind_without_it():
    network = nn.Linear(3, 4)
    assert Trained(Wrapper(network)).predictors() == {"student": network}


def test_a_network_that_only_has_a_part_of_that_name_is_no_wrapper():
    student = nn.Sequential()
    student.network = nn.Linear(3, 4)
    assert Trained(student).predictors() == {"student": student}

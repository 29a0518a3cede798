"""A student that is more, or other, than the network that its method was given."""

from torch import nn

from ..core import STUDENT, Method


class CompositeNetwork(nn.Module):
    """A network that a method builds of a given one and parts of its own; all of it is deployed.

    A method with such a student says so by `Method.composite`, and sets it as its first attribute,
    `student`, so that a checkpoint keeps its tensors as those of the student.

    Attributes:
        description: what it is made of, a phrase.
    """

    description: str


def composite_description(method: Method) -> str:
    """What a method's student is made of, a phrase; "" where it is the network that was given."""
    student = method.predictors()[STUDENT]
    return student.description if isinstance(student, CompositeNetwork) else ""


def student_taps(method: Method, taps: str) -> str:
    """The taps of a recipe, which name modules of the given network: of a composite its own."""
    return "auto" if method.composite else taps

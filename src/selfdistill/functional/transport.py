"""Optimal transport between the points of two small sets."""

from torch import Tensor


def sinkhorn_plan(cost: Tensor, regularization: float, num_iterations: int) -> Tensor:
    r"""Entropic transport plan between uniform weights of Cuturi 2013, https://arxiv.org/abs/1306.0895.

    .. math:: \min_{P \ge 0} \sum_{ij} P_{ij} C_{ij} + \varepsilon \sum_{ij} P_{ij} \log P_{ij},
        \quad \sum_j P_{ij} = 1/N, \quad \sum_i P_{ij} = 1/M

    Each iteration scales the columns, then the rows, of :math:`e^{-C/\varepsilon}` to their sums.
    It does so in the logarithm and in fp32: the exponentials of small ε leave the range of fp16 and
    fp32. Rows end exact, columns as near as the iterations bring them; the smaller ε, the more of
    them it takes.

    Args:
        cost: (N, M), finite.
        regularization: ε > 0, in the unit of the costs: towards 0 the plan becomes that of least
            cost, towards infinity uniform.
        num_iterations: 1 or more.

    Returns:
        The plan (N, M), whose elements sum to 1. To learn from the cost of a plan, detach the plan:
        at its optimum that is the gradient of the minimum above.
    """
    log_plan = -cost.float() / regularization
    for _ in range(num_iterations):
        log_plan = log_plan.log_softmax(0).log_softmax(1)
    return log_plan.exp() / len(cost)

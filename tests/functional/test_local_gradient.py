"""A backward pass that is run at once, against the one that torch runs later."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from selfdistill.functional.local_gradient import backward_now

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))


def loss_of(net: nn.Module, x: Tensor = X) -> Tensor:
    return net(x).float().square().mean()


def grads(net: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in net.parameters()]


def test_value_and_gradients_are_torchs_own():
    plain, net = network(), network()
    want, got = loss_of(plain), backward_now(loss_of(net), net.parameters())
    assert torch.equal(got, want)
    want.backward()
    assert grads(net) == [None] * 6  # nothing is handed over before the backward pass
    got.backward()
    assert all(torch.equal(a, b) for a, b in zip(grads(net), grads(plain), strict=True))


def test_gradients_are_scaled_and_accumulate_like_others():
    plain, net = network(), network()
    for scale in (0.25, 3.0, 65536.0):
        (scale * loss_of(plain)).backward()
        (scale * backward_now(loss_of(net), net.parameters())).backward()
    for a, b in zip(grads(net), grads(plain), strict=True):
        torch.testing.assert_close(a, b)


def test_several_backward_passes_over_one_loss():
    net = network()
    loss = backward_now(loss_of(net), net.parameters())
    first = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    again = torch.autograd.grad(loss, list(net.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with pytest.raises(RuntimeError, match="second time"):  # freed, as torch's own graph
        loss.backward()


def test_gradients_cannot_be_differentiated_again():
    net = network()
    loss = backward_now(loss_of(net), net.parameters())
    first, *_ = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        first.sum().backward()


def test_graph_is_freed_at_once():
    net = network()
    loss = loss_of(net)
    backward_now(loss, net.parameters())
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_batch_statistics_move_once():
    plain, net = network(), network()
    backward_now(loss_of(net), net.parameters()).backward()
    loss_of(plain).backward()
    assert net[1].num_batches_tracked == 1
    assert torch.equal(net[1].running_mean, plain[1].running_mean)


def test_what_the_loss_does_not_reach_gets_no_gradient():
    net, other = network(), nn.Linear(2, 2)
    backward_now(loss_of(net), [*other.parameters(), *net.parameters()]).backward()
    assert grads(other) == [None, None]
    assert all(g is not None for g in grads(net))


def test_a_parameter_of_two_losses_gets_the_sum():
    plain, net = nn.Linear(4, 4), nn.Linear(4, 4)
    net.load_state_dict(plain.state_dict())
    (loss_of(plain) + loss_of(plain, plain(X).detach())).backward()
    first = backward_now(loss_of(net), net.parameters())
    (first + backward_now(loss_of(net, net(X).detach()), net.parameters())).backward()
    for a, b in zip(grads(net), grads(plain), strict=True):
        torch.testing.assert_close(a, b)


def test_without_gradients_it_is_the_value():
    net = network()
    with torch.no_grad():
        off = backward_now(loss_of(net), net.parameters())
    constant = backward_now(loss_of(net.requires_grad_(False)), net.parameters())
    nothing = backward_now(loss_of(network()), [])
    elsewhere = backward_now(loss_of(network()), nn.Linear(2, 2).parameters())
    for loss in (off, constant, nothing, elsewhere):
        assert not loss.requires_grad
        assert loss == loss_of(network())


def test_bf16_autocast_gives_the_gradients_of_a_later_pass():
    plain, net = network(), network()
    with torch.autocast("cpu", torch.bfloat16):
        want = loss_of(plain)
        got = backward_now(loss_of(net), net.parameters())
        assert torch.is_autocast_enabled("cpu")
    want.backward()
    got.backward()
    assert got == want
    assert all(torch.equal(a, b) for a, b in zip(grads(net), grads(plain), strict=True))


def test_fp32_arithmetic_of_a_backward_pass_stays_fp32_under_autocast():
    """Autocast would round the products of the backward pass, which fp32 layers ask not to be."""
    weight = nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))

    def loss() -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return (X @ weight).square().mean()

    with torch.autocast("cpu", torch.bfloat16):
        backward_now(loss(), [weight]).backward()
    [want] = torch.autograd.grad(loss(), weight)
    assert torch.equal(weight.grad, want)


def test_small_gradients_survive_fp16():
    """5e-9 at the features, which fp16 rounds to zero, and 1024 times which it holds."""
    weight = nn.Parameter(torch.ones(4, 4))

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.float16):
            features = X @ weight
        return 5e-9 * features.float().sum()

    with torch.autocast("cpu", torch.float16):
        local = backward_now(loss(), [weight])
    local.backward()
    want = 5e-9 * X.sum(0)[:, None].expand(4, 4)
    torch.testing.assert_close(weight.grad, want, rtol=0.02, atol=0)
    [plain] = torch.autograd.grad(loss(), weight)
    assert not plain.any()


def test_hooks_of_the_accumulated_gradient_run_once():
    """Those by which gradients are exchanged between processes."""
    net, calls = network(), []
    for parameter in net.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: calls.append(p))
    loss = backward_now(loss_of(net), net.parameters())
    assert not calls
    loss.backward()
    assert len(calls) == 6


def test_data_parallel_processes_exchange_the_gradients(tmp_path):
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            return backward_now(loss_of(self.net, x), self.net.parameters())

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
    )
    try:
        wrapped, plain = DistributedDataParallel(Step()), network()
        seen = []
        wrapped.register_comm_hook(None, lambda _, bucket: recorded(seen, bucket))
        with wrapped.no_sync():
            wrapped(X).backward()
        assert not seen
        wrapped(X).backward()
    finally:
        torch.distributed.destroy_process_group()
    assert sum(seen) == sum(p.numel() for p in plain.parameters())
    for _ in range(2):
        loss_of(plain).backward()
    for a, b in zip(grads(wrapped.module.net), grads(plain), strict=True):
        torch.testing.assert_close(a, b)


def recorded(seen: list[int], bucket):
    seen.append(bucket.buffer().numel())
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def test_copies_learn_alike():
    net = network()
    twin = copy.deepcopy(net)
    for each in (net, twin):
        backward_now(loss_of(each), each.parameters()).backward()
    assert all(torch.equal(a, b) for a, b in zip(grads(net), grads(twin), strict=True))

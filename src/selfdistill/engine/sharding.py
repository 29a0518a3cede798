"""Weights of frozen networks, split among the processes of a run."""

from lightning_fabric import Fabric
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from ..core import ConfigError, Frozen, Method

_MIN_PARAMETERS = 1024  # of a layer; a smaller one is not worth a message


def check_shardable(method: Method) -> None:
    """Raise `ConfigError` unless a method runs its frozen networks in its steps alone.

    Held-out images, and those that are scored before an epoch, are shared unevenly: a process that
    has one batch more would wait for the others' parts of a layer for ever.
    """
    evaluated = (m for network in method.predictors().values() for m in network.modules())
    deployed = any(isinstance(m, Frozen) and not m.saved for m in evaluated)
    if deployed or method.needs.chosen_extra:
        raise ConfigError(
            "this method runs its teacher beside the steps, too, so that its weights cannot be "
            "split among processes; leave out shard_teacher"
        )


def shard_frozen(fabric: Fabric, method: Method) -> int:
    """Split the layers of the frozen networks that checkpoints leave out, by FSDP2.

    A layer's weights are gathered for its own pass and given back behind it, whatever part of the
    network runs: networks are entered at many places, so each layer is split by itself. All
    processes must then run the network equally often.

    Args:
        fabric: launched.
        method: that `check_shardable` lets pass; what of it trains is not touched.

    Returns:
        The number of parameters that are split; 0 in a run of one process.
    """
    if fabric.world_size == 1:
        return 0
    mesh = init_device_mesh(fabric.device.type, (fabric.world_size,))
    frozen = {n: m for n, m in method.named_modules() if isinstance(m, Frozen) and not m.saved}
    elsewhere = {  # a layer of the teacher's may be a part of the student, too
        module
        for name, module in method.named_modules(remove_duplicate=False)
        if not any(f"{name}.".startswith(f"{n}.") for n in frozen)
    }
    split = 0
    for layer in method.modules():
        count = sum(p.numel() for p in layer.parameters(recurse=False))
        if layer not in elsewhere and count >= _MIN_PARAMETERS:
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
            split += count
    names = [
        f"{name}.{key}"
        for name, module in frozen.items()
        for key, _ in (*module.named_parameters(), *module.named_buffers())
    ]
    # The wrapper would compare and send what it must not touch.
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(method, names)
    return split

"""Layers of an ONNX graph: convolutions and matrix products with all that follows them."""

from ast import literal_eval
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_LAYER_TYPES = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_WRAPPERS = ("network.", "trunk.")  # around a trained network, see `NormalizedInput`


class Layer(NamedTuple):
    """A convolution or a matrix product by weights, and the operations between it and the next.

    Attributes:
        name: of its module in the network that was trained.
        nodes: names of its nodes in the graph, the one with the weights first.
        output: name of that node's output.
    """

    name: str
    nodes: list[str]
    output: str


def name_nodes(model: Any) -> None:
    """Give a graph's nodes names of their own, in place.

    Those of an inlined function, as of a hard swish, come without one.
    """
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{number}"
        taken.add(node.name)


def read_layers(model: Any) -> list[Layer]:
    """The layers of a graph in its order.

    Operations before the first layer, as the normalization of the input, and those from which no
    layer is reached, as the decoding of boxes, belong to none.

    Args:
        model: an `onnx.ModelProto`, its nodes named, see `name_nodes`, and in topological order.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    layers: list[Layer] = []
    last_layer: dict[str, int] = {}  # {tensor: index of the last layer on the way to it}
    leading = _leading_nodes(model, weights)
    for node in model.graph.node:
        if is_layer := _is_layer(node, weights):
            layers.append(Layer(_layer_name(node), [node.name], node.output[0]))
        before = [last_layer[name] for name in node.input if name in last_layer]
        if not (is_layer or before):
            continue
        index = len(layers) - 1 if is_layer else max(before)
        last_layer |= dict.fromkeys(node.output, index)
        if not is_layer and node.name in leading:
            layers[index].nodes.append(node.name)
    return layers


def last_outputs(model: Any, layers: Sequence[Layer]) -> list[str]:
    """Outputs of the layers that lead to no other."""
    weights = {tensor.name for tensor in model.graph.initializer}
    leading = _leading_nodes(model, weights)
    return [layer.output for layer in layers if layer.nodes[0] not in leading]


def _leading_nodes(model: Any, weights: Collection[str]) -> set[str]:
    """Names of the nodes from which a layer is reached."""
    wanted: set[str] = set()  # tensors
    names = set()
    for node in reversed(model.graph.node):
        leads = not wanted.isdisjoint(node.output)
        if leads:
            names.add(node.name)
        if leads or _is_layer(node, weights):
            wanted.update(_inputs(node))
    return names


def cut_behind(model: Any, outputs: Sequence[str]) -> Any:
    """A copy of a graph that ends in these tensors, float32 ones."""
    from onnx import ModelProto, TensorProto, helper

    cut = ModelProto()
    cut.CopyFrom(model)
    wanted, kept = set(outputs), []
    for node in reversed(model.graph.node):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(_inputs(node))
    _replace(cut, kept[::-1], list(cut.graph.initializer))
    del cut.graph.output[:]
    cut.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs
    )
    return cut


def quantize_layer(model: Any, quantized: Any, layer: Layer) -> Any:
    """A copy of a graph in which the nodes of one layer read what they read in a quantized one.

    Args:
        model: an `onnx.ModelProto` in float32.
        quantized: the same graph with `QuantizeLinear` and `DequantizeLinear` nodes in between.
        layer: of the graph.
    """
    from onnx import ModelProto

    mixed = ModelProto()
    mixed.CopyFrom(model)
    counterparts = {node.name: node for node in quantized.graph.node}
    conversions = {
        name: node
        for node in quantized.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for name in node.output
    }
    nodes: dict[str, Any] = {}  # by their first output, in topological order
    for node in mixed.graph.node:
        # a ReLU may be missing there, where the range of its feature stands for it
        if node.name in layer.nodes and node.name in counterparts:
            inputs = list(counterparts[node.name].input)
            for name in inputs:
                nodes |= _conversions_before(name, conversions)
            del node.input[:]
            node.input.extend(inputs)
        nodes[node.output[0]] = node
    own = {tensor.name for tensor in model.graph.initializer}
    # a bias that is converted keeps its name
    tensors = [t for t in mixed.graph.initializer if t.name not in nodes]
    tensors += [t for t in quantized.graph.initializer if t.name not in own]
    _replace(mixed, list(nodes.values()), tensors)
    return mixed


def _replace(model: Any, nodes: Sequence[Any], tensors: Iterable[Any]) -> None:
    """Give a graph other nodes, and of the tensors those that they read."""
    read = {name for node in nodes for name in _inputs(node)}
    used = [tensor for tensor in tensors if tensor.name in read]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(used)


def _conversions_before(name: str, conversions: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes that make a tensor of int8 of one in float32, and one in float32 of that."""
    node, nodes = conversions.get(name), {}
    while node is not None:
        nodes[node.output[0]] = node
        node = conversions.get(node.input[0])
    return dict(reversed(nodes.items()))


def _inputs(node: Any) -> Iterator[str]:
    """What a node reads, of the graphs inside of it, too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _inputs(inner)


def _is_layer(node: Any, weights: Collection[str]) -> bool:
    return node.op_type in _LAYER_TYPES and any(name in weights for name in node.input[:2])


def _layer_name(node: Any) -> str:
    """The name of the module that a node was exported from, as the exporter noted it."""
    notes = {note.key: note.value for note in node.metadata_props}
    scopes = literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
    name = str(scopes[-2]) if len(scopes) > 1 else ""
    name = name or next((t.removesuffix(".weight") for t in node.input[1:2] if "." in t), "")
    return trained_name(name) or node.name


def trained_name(name: str) -> str:
    """A module's name in the network that was trained, by its name in an exported one."""
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name

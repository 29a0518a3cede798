"""Which nodes of a graph are a layer's, and graphs that end before their own end."""

import numpy as np
import onnxruntime
import pytest
from onnx_graphs import classifier_nodes, make_model, save_model

from selfdistill.export.onnx_int8 import Int8Quantizer
from selfdistill.export.onnx_layers import cut_behind, last_outputs, read_layers

DRAW = np.random.default_rng(0)
WEIGHTS = {
    "scale.weight": np.full((1, 1, 1), 2.0),
    "network.first.weight": DRAW.normal(size=(4, 1, 3, 3)),
    "network.trunk.second.weight": DRAW.normal(size=(6, 4, 3, 3)),
    "network.fc.weight": DRAW.normal(size=(10, 96)),
    "first.bias": np.zeros(4),
    "second.bias": np.zeros(6),
    "fc.bias": np.zeros(10),
}


def test_a_layer_has_what_follows_it_up_to_the_next():
    model = make_model(classifier_nodes(), WEIGHTS, (1, 8, 8))
    layers = read_layers(model)
    assert [layer.name for layer in layers] == ["first", "second", "fc"]
    assert [layer.nodes for layer in layers] == [
        ["first", "relu1"],
        ["second", "relu2", "pool", "flat"],
        ["fc"],
    ]
    assert last_outputs(model, layers) == ["logits"]


def test_neither_the_normalization_nor_what_comes_last_is_a_layer_s():
    nodes = [*classifier_nodes(), ("Softmax", "softmax", ["logits"], "p", {})]
    model = make_model(nodes, WEIGHTS, (1, 8, 8), output="p")
    layers = read_layers(model)
    assert {"scale", "softmax"}.isdisjoint(name for layer in layers for name in layer.nodes)
    assert last_outputs(model, layers) == ["logits"]


def test_two_ends_and_a_product_of_two_features():
    """Attention multiplies features, which is no layer; a detector ends in several layers."""
    nodes = [
        ("MatMul", "query", ["images", "q"], "a", {}),
        ("MatMul", "key", ["images", "k"], "b", {}),
        ("MatMul", "product", ["a", "b"], "c", {}),
        ("MatMul", "left", ["c", "l"], "d", {}),
        ("MatMul", "right", ["c", "r"], "e", {}),
        ("Add", "sum", ["d", "e"], "out", {}),
    ]
    weights = {name: DRAW.normal(size=(5, 5)) for name in "qklr"}
    model = make_model(nodes, weights, (5, 5), output="out")
    layers = read_layers(model)
    assert [layer.nodes for layer in layers] == [["query"], ["key", "product"], ["left"], ["right"]]
    assert last_outputs(model, layers) == ["d", "e"]


def test_a_graph_without_layers():
    model = make_model([("Relu", "relu", ["images"], "out", {})], {}, (5,), output="out")
    assert read_layers(model) == []


@pytest.mark.parametrize("output", ["b", "d"])
def test_a_cut_graph_gives_what_the_whole_one_computes(output):
    model = make_model(classifier_nodes(), WEIGHTS, (1, 8, 8))
    cut = cut_behind(model, [output])
    assert len(cut.graph.node) < len(model.graph.node)
    model.graph.output.extend(cut.graph.output)  # the feature as an output of the whole graph
    images = DRAW.random((3, 1, 8, 8), dtype=np.float32)
    actual, expected = (
        onnxruntime.InferenceSession(graph.SerializeToString()).run([output], {"images": images})
        for graph in (cut, model)
    )
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5, atol=1e-5)


def test_nodes_without_names_are_of_their_own_layers(tmp_path):
    """As those of a hard swish are, which the exporter writes as a function and takes apart."""
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        ("Conv", "first", ["images", "network.first.weight", "first.bias"], "a", pads),
        ("HardSigmoid", "", ["a"], "b", {}),
        ("Mul", "", ["a", "b"], "c", {}),
        ("Conv", "second", ["c", "network.trunk.second.weight", "second.bias"], "d", pads),
        ("HardSigmoid", "", ["d"], "e", {}),
        ("Mul", "", ["d", "e"], "f", {}),
        ("GlobalAveragePool", "", ["f"], "g", {}),
        ("Flatten", "", ["g"], "h", {}),
        ("Gemm", "fc", ["h", "small.weight", "fc.bias"], "logits", {"transB": 1}),
    ]
    weights = WEIGHTS | {"small.weight": DRAW.normal(size=(10, 6))}
    path = save_model(make_model(nodes, weights, (1, 8, 8)), tmp_path / "swish.onnx")
    quantizer = Int8Quantizer(path, [DRAW.random((16, 1, 8, 8), dtype=np.float32)])
    names = [name for layer in quantizer.layers for name in layer.nodes]
    assert len(names) == len(set(names)) == len(nodes)
    errors = quantizer.layer_errors()
    assert len(errors) == 3
    assert all(0 < error < 0.1 for error in errors)

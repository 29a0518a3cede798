"""ONNX files made by hand, of weights that a test knows."""

import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

METADATA = {"task": "classification", "predictor": "student", "data": "digits"}
METADATA |= {"parameters": "1234", "macs": "56789"}


def make_model(nodes, weights, shape, output="logits", **metadata):
    """A file's graph from `images` (B, *shape) to one output; a node is (type, name, inputs, …)."""
    graph = helper.make_graph(
        [
            helper.make_node(kind, inputs, [out], name=name, **attributes)
            for kind, name, inputs, out, attributes in nodes
        ],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata)
    return model


def classifier_nodes():
    """Normalization, two convolutions with ReLU, pooling, a linear layer and its probabilities."""
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    return [
        ("Mul", "scale", ["images", "scale.weight"], "scaled", {}),
        ("Conv", "first", ["scaled", "network.first.weight", "first.bias"], "a", pads),
        ("Relu", "relu1", ["a"], "b", {}),
        ("Conv", "second", ["b", "network.trunk.second.weight", "second.bias"], "c", pads),
        ("Relu", "relu2", ["c"], "d", {}),
        ("MaxPool", "pool", ["d"], "e", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Flatten", "flat", ["e"], "f", {}),
        ("Gemm", "fc", ["f", "network.fc.weight", "fc.bias"], "logits", {"transB": 1}),
    ]


def classifier_weights(network):
    """The weights of a torch network of the same layers; `network.scale` is of the images."""
    arrays = {"scale.weight": np.full((1, 1, 1), network.scale)}
    for name, module in (("first", network.first), ("second", network.second), ("fc", network.fc)):
        prefix = "network.trunk." if name == "second" else "network."
        arrays[f"{prefix}{name}.weight"] = module.weight.detach().numpy()
        arrays[f"{name}.bias"] = module.bias.detach().numpy()
    return arrays


def digits_metadata(**changes):
    """What `selfdistill export` would write into a file for the digits."""
    preparation = {"shape": [1, 8, 8], "fit": "stretch", "resize_ratio": 1.0}
    classes = [str(i) for i in range(10)]
    texts = {"classes": json.dumps(classes), "preparation": json.dumps(preparation)}
    return METADATA | texts | changes


def save_model(model, path):
    save(model, path)
    return path

"""Writes all-MiniLM-L6-v2 as an ONNX graph from its safetensors weights, without torch.

The model is a BERT encoder (Devlin et al. 2018, arXiv:1810.04805) of 6 layers, 12 heads and width 384,
followed by the mean over the tokens and an L2 norm (Reimers and Gurevych 2019, arXiv:1908.10084). The sizes
and the LayerNorm epsilon of 1e-12 are of the model's config.json; activation is the exact (erf) GELU. Dropout
is left out: it is the identity when nothing is trained. Opset 20 is the first that has both operators,
LayerNormalization and Gelu.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 384
HEADS = 12
HEAD_WIDTH = WIDTH // HEADS
LAYERS = 6
LAYER_NORM_EPSILON = 1e-12
# Added to the attention scores of padding: after softmax nothing of it is left in float32.
MASKED = -1e9
OPSET = 20
# The oldest file format that carries opset 20; newer ones would shut out older runtimes.
IR_VERSION = 10

_DTYPES = {"F32": np.float32, "I64": np.int64}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name (https://github.com/huggingface/safetensors#format).

    Eight bytes of header length (little endian), a JSON header of dtype, shape and data_offsets, then data.

    Raises:
        KeyError: A dtype other than F32 and I64, which this model does not have.
    """
    raw = path.read_bytes()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    header: dict[str, Any] = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(
            raw[start + info["data_offsets"][0] : start + info["data_offsets"][1]], _DTYPES[info["dtype"]]
        ).reshape(info["shape"])
        for name, info in header.items()
    }


class _Graph:
    """Collects nodes and constants; every method that adds one returns the name of its output."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        # np.array keeps 0-d arrays 0-d; ascontiguousarray makes them 1-d, which Range and Gather refuse.
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        return self.constant(np.array(value, np.int64))

    def real(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def linear(self, x: str, name: str) -> str:
        """Computes x · Wᵀ + b, with the weight stored as [out, in]."""
        product = self.add("MatMul", x, self.constant(self.weights[f"{name}.weight"].T))
        return self.add("Add", product, self.constant(self.weights[f"{name}.bias"]))

    def layer_norm(self, x: str, name: str) -> str:
        weight, bias = (self.constant(self.weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.add("LayerNormalization", x, weight, bias, axis=-1, epsilon=LAYER_NORM_EPSILON)


def _embed_tokens(graph: _Graph) -> str:
    """[batch, length, WIDTH]: the sum of word, position and segment embeddings, normalised."""
    length = graph.add("Gather", graph.add("Shape", "input_ids"), graph.scalar(1))
    positions = graph.add("Range", graph.scalar(0), length, graph.scalar(1))
    words = graph.add(
        "Gather", graph.constant(graph.weights["embeddings.word_embeddings.weight"]), "input_ids"
    )
    places = graph.add(
        "Gather", graph.constant(graph.weights["embeddings.position_embeddings.weight"]), positions
    )
    # A single text is always segment 0.
    segment = graph.constant(graph.weights["embeddings.token_type_embeddings.weight"][0])
    summed = graph.add("Add", graph.add("Add", words, places), segment)
    return graph.layer_norm(summed, "embeddings.LayerNorm")


def _attend(graph: _Graph, x: str, layer: str, bias: str) -> str:
    """Multi-head self-attention with its output projection, residual and norm."""

    def heads(name: str, order: list[int]) -> str:
        split = graph.add("Reshape", graph.linear(x, f"{layer}.attention.self.{name}"), shape)
        return graph.add("Transpose", split, perm=order)

    # 0 in a Reshape keeps the input's dimension: batch and length stay free.
    shape = graph.integers(0, 0, HEADS, HEAD_WIDTH)
    query = heads("query", [0, 2, 1, 3])
    key = heads("key", [0, 2, 3, 1])
    value = heads("value", [0, 2, 1, 3])
    scores = graph.add("Mul", graph.add("MatMul", query, key), graph.real(HEAD_WIDTH**-0.5))
    weights = graph.add("Softmax", graph.add("Add", scores, bias), axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", weights, value), perm=[0, 2, 1, 3])
    joined = graph.add("Reshape", mixed, graph.integers(0, 0, WIDTH))
    projected = graph.linear(joined, f"{layer}.attention.output.dense")
    return graph.layer_norm(graph.add("Add", x, projected), f"{layer}.attention.output.LayerNorm")


def _feed_forward(graph: _Graph, x: str, layer: str) -> str:
    inner = graph.add("Gelu", graph.linear(x, f"{layer}.intermediate.dense"))
    outer = graph.linear(inner, f"{layer}.output.dense")
    return graph.layer_norm(graph.add("Add", x, outer), f"{layer}.output.LayerNorm")


def _pool(graph: _Graph, x: str, mask: str) -> None:
    """The mean over the tokens that are not padding, scaled to length 1: the graph's output."""
    visible = graph.add("Mul", x, graph.add("Unsqueeze", mask, graph.integers(2)))
    total = graph.add("ReduceSum", visible, graph.integers(1), keepdims=0)
    mean = graph.add("Div", total, graph.add("ReduceSum", mask, graph.integers(1), keepdims=1))
    norm = graph.add("ReduceL2", mean, graph.integers(1), keepdims=1)
    graph.nodes.append(helper.make_node("Div", [mean, norm], ["embedding"]))


def write_graph(weights_file: Path, target: Path) -> None:
    """Writes the float32 graph: int64 input_ids and attention_mask [batch, length] to embedding [batch, 384].

    Raises:
        OSError: A file cannot be read or written.
        onnx.checker.ValidationError: The graph is not valid ONNX.
    """
    graph = _Graph(read_safetensors(weights_file))
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    hidden = graph.add("Unsqueeze", mask, graph.integers(1, 2))
    bias = graph.add("Mul", graph.add("Sub", graph.real(1.0), hidden), graph.real(MASKED))
    x = _embed_tokens(graph)
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        x = _feed_forward(graph, _attend(graph, x, layer, bias), layer)
    _pool(graph, x, mask)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", WIDTH])]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "minilm", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(target))

"""The two networks of Marian, as ONNX, from a checkpoint's weights: https://github.com/marian-nmt, as transformers' MarianMTModel.

One sentence at a time, so nothing is padded and nothing masked. Transformer layers that normalise after each part; positions are
sinusoids; source and target share one vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from faceclip_serving.contract.errors import UserError

Weights = Mapping[str, NDArray[np.float32]]
EPSILON = 1e-5
"""Of layer norms."""
EXPECTED: Mapping[str, Any] = {
    "model_type": "marian",
    "scale_embedding": True,
    "static_position_embeddings": True,
    "normalize_embedding": False,
    "share_encoder_decoder_embeddings": True,
}
ACTIVATIONS = ("swish", "silu", "relu")
EMBEDDING = "model.shared.weight"


class TranslatorError(UserError):
    """The checkpoint is none that this project translates with."""


def check_config(config: Mapping[str, Any]) -> None:
    """Raises `TranslatorError` where `config.json` is of another network than these graphs. What it leaves out is as expected."""
    wrong = [name for name, value in EXPECTED.items() if config.get(name, value) != value]
    if config.get("activation_function", "swish") not in ACTIVATIONS:
        wrong.append("activation_function")
    if wrong:
        name = wrong[0]
        expected = EXPECTED.get(name, " or ".join(ACTIVATIONS))
        raise TranslatorError(f"config.json: {name}: expected {expected}, got {config.get(name)!r}; use an OPUS-MT checkpoint")


def encoder(config: Mapping[str, Any], weights: Weights) -> onnx.ModelProto:
    """`tokens` [1, source] -> `memory` [decoder layers, 2, 1, heads, source, head]: keys and values of the decoder's cross-attention."""
    graph = _Graph(config, weights, "encoder", int(config["encoder_attention_heads"]))
    x = graph.embedded(
        "tokens", graph.node("Slice", graph.positions(), graph.whole(0), graph.shape("tokens", 1), graph.whole(0))
    )
    for layer in range(int(config["encoder_layers"])):
        name = f"model.encoder.layers.{layer}"
        heads = [graph.heads(x, f"{name}.self_attn.{part}_proj") for part in "kv"]
        x = graph.attended(x, f"{name}.self_attn", *heads)
        x = graph.fed(x, name)
    graph.heads_of(int(config["decoder_attention_heads"]))
    pairs = []
    for layer in range(int(config["decoder_layers"])):
        pairs += [graph.heads(x, f"model.decoder.layers.{layer}.encoder_attn.{part}_proj") for part in "kv"]
    graph.stacked(pairs, "memory")
    heads_of = int(config["decoder_attention_heads"])
    shape = [config["decoder_layers"], 2, 1, heads_of, "source", int(config["d_model"]) // heads_of]
    return graph.model({"tokens": (TensorProto.INT64, [1, "source"])}, {"memory": (TensorProto.FLOAT, shape)})


def decoder(config: Mapping[str, Any], weights: Weights) -> onnx.ModelProto:
    """One step of several beams: `token` [beams, 1], `past` [layers, 2, beams, heads, time, head], `memory` as the encoder gives it ->
    `logits` [beams, vocabulary], `present` [layers, 2, beams, heads, time + 1, head]."""
    heads_of, layers = int(config["decoder_attention_heads"]), int(config["decoder_layers"])
    graph = _Graph(config, weights, "decoder", heads_of)
    time = graph.shape("past", 4)
    x = graph.embedded("token", graph.node("Gather", graph.positions(), time, axis=0))
    kept: list[str] = []
    for layer in range(layers):
        name = f"model.decoder.layers.{layer}"
        own = []
        for i, part in enumerate("kv"):
            before = graph.part("past", layer, i)
            own.append(graph.node("Concat", before, graph.heads(x, f"{name}.self_attn.{part}_proj"), axis=2))
        kept += own
        x = graph.attended(x, f"{name}.self_attn", *own)
        x = graph.attended(x, f"{name}.encoder_attn", *(graph.part("memory", layer, i) for i in range(2)))
        x = graph.fed(x, name)
    graph.stacked(kept, "present")
    table = graph.node("Transpose", graph.weight(EMBEDDING), perm=[1, 0])
    scores = graph.node("Add", graph.node("MatMul", x, table), graph.weight("final_logits_bias"))
    graph.node("Squeeze", scores, graph.whole(1), output="logits")
    head = int(config["d_model"]) // heads_of
    past = [layers, 2, "beams", heads_of, "time", head]
    return graph.model(
        {
            "token": (TensorProto.INT64, ["beams", 1]),
            "past": (TensorProto.FLOAT, past),
            "memory": (TensorProto.FLOAT, [layers, 2, 1, heads_of, "source", head]),
        },
        {
            "logits": (TensorProto.FLOAT, ["beams", "vocabulary"]),
            "present": (TensorProto.FLOAT, [layers, 2, "beams", heads_of, "time_now", head]),
        },
    )


def sinusoids(count: int, width: int) -> NDArray[np.float32]:
    """Positions [count, width]: sines in the first half, cosines in the second."""
    rates = 1 / np.power(10000, 2 * np.arange((width + 1) // 2) / width)
    angles = np.arange(count)[:, None] * rates
    return np.asarray(np.concatenate([np.sin(angles), np.cos(angles)[:, : width // 2]], axis=1), np.float32)


class _Graph:
    """Nodes in their order; each call adds some and names their output. Sequences are [batch, length, width]."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, name: str, heads: int) -> None:
        self._config, self._weights, self._name = config, weights, name
        self._width = int(config["d_model"])
        self._activation = str(config.get("activation_function", "swish"))
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self.heads_of(heads)

    def heads_of(self, count: int) -> None:
        """So many from here on."""
        self._heads, self._head = count, self._width // count

    def constant(self, array: NDArray[Any], name: str = "") -> str:
        name = name or f"constant_{len(self._constants)}"
        self._constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def whole(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def weight(self, name: str) -> str:
        """Raises `TranslatorError` where the checkpoint has none of that name."""
        if name not in self._weights:
            raise TranslatorError(
                f"checkpoint: expected the tensor {name}, got none; use an OPUS-MT checkpoint of MarianMTModel"
            )
        return self.constant(self._weights[name], name)

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def shape(self, of: str, axis: int) -> str:
        """Length [1] of an axis."""
        return self.node("Shape", of, start=axis, end=axis + 1)

    def positions(self) -> str:
        return self.constant(sinusoids(int(self._config["max_position_embeddings"]), self._width), "positions")

    def embedded(self, tokens: str, positions: str) -> str:
        """Words and their places, [batch, length, width]."""
        words = self.node("Gather", self.weight(EMBEDDING), tokens)
        scale = self.constant(np.array(self._width**0.5, np.float32))
        return self.node("Add", self.node("Mul", words, scale), positions)

    def linear(self, x: str, name: str) -> str:
        matrix = self.node("Transpose", self.weight(f"{name}.weight"), perm=[1, 0])
        return self.node("Add", self.node("MatMul", x, matrix), self.weight(f"{name}.bias"))

    def heads(self, x: str, name: str) -> str:
        """A projection in heads, [batch, heads, length, head]."""
        parted = self.node("Reshape", self.linear(x, name), self.whole(0, 0, self._heads, self._head))
        return self.node("Transpose", parted, perm=[0, 2, 1, 3])

    def attended(self, x: str, name: str, keys: str, values: str) -> str:
        """An attention, what it is added to, and the norm behind it."""
        scale = self.constant(np.array(self._head**-0.5, np.float32))
        queries = self.node("Mul", self.heads(x, f"{name}.q_proj"), scale)
        shares = self.node("Softmax", self.node("MatMul", queries, self.node("Transpose", keys, perm=[0, 1, 3, 2])), axis=-1)
        found = self.node("Transpose", self.node("MatMul", shares, values), perm=[0, 2, 1, 3])
        joined = self.node("Reshape", found, self.whole(0, 0, self._width))
        return self.normed(self.node("Add", x, self.linear(joined, f"{name}.out_proj")), f"{name}_layer_norm")

    def fed(self, x: str, name: str) -> str:
        """The two linear layers at the end of a layer."""
        y = self.linear(x, f"{name}.fc1")
        y = self.node("Relu", y) if self._activation == "relu" else self.node("Mul", y, self.node("Sigmoid", y))
        return self.normed(self.node("Add", x, self.linear(y, f"{name}.fc2")), f"{name}.final_layer_norm")

    def normed(self, x: str, name: str) -> str:
        norm = [self.weight(f"{name}.{part}") for part in ("weight", "bias")]
        return self.node("LayerNormalization", x, *norm, axis=-1, epsilon=EPSILON)

    def part(self, of: str, layer: int, index: int) -> str:
        """Keys (0) or values (1) of a layer."""
        both = self.node("Gather", of, self.constant(np.array(layer, np.int64)), axis=0)
        return self.node("Gather", both, self.constant(np.array(index, np.int64)), axis=0)

    def stacked(self, pairs: list[str], output: str) -> None:
        """Keys and values of all layers, one after the other, as [layers, 2, batch, heads, length, head]."""
        rows = [self.node("Unsqueeze", each, self.whole(0, 1)) for each in pairs]
        layers = [self.node("Concat", *rows[i : i + 2], axis=1) for i in range(0, len(rows), 2)]
        self.node("Concat", *layers, axis=0, output=output)

    def model(self, inputs: Mapping[str, tuple[int, Any]], outputs: Mapping[str, tuple[int, Any]]) -> onnx.ModelProto:
        taken, given = (
            [helper.make_tensor_value_info(name, *each) for name, each in tensors.items()] for tensors in (inputs, outputs)
        )
        graph = helper.make_graph(self._nodes, self._name, taken, given, list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model

"""Networks for `fuzz_weights.py`: valid files of them, and what reads them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import fastlstm
from fastlstm import LSTM, BiLSTM, weights
from fastlstm.training import Embedding, HeadSpec, Network, Scaling


def networks() -> dict[str, Network]:
    """Networks with all that files keep of them, by the names of such files."""
    scaling = Scaling(np.ones(3), np.full(3, 2.0), np.zeros(2), 3.0)
    made = {
        "scaled.npz": Network(
            LSTM(3, 4, seed=1),
            2,
            targets=["a", "b"],
            features=["x", "y", "z"],
            scaling=scaling,
            metadata={"a": [1, {"b": None}]},
        ),
        "heads.npz": Network(
            BiLSTM(2, 3, seed=1),
            each_step=False,
            pooling="mean",
            embedding=Embedding(5, 2, padding_idx=0),
            heads={
                "one": HeadSpec(1, loss="pinball", quantiles=[0.1, 0.9]),
                "other": HeadSpec(loss="cross_entropy", classes=["a", "b"], class_weights=[1, 2]),
            },
        ),
    }
    made["digits-network.npz"] = fastlstm.quantize(
        Network(LSTM(20, 4, seed=1), 2, hidden=(3, "relu"), seed=1), 8
    )
    return {**made, "scaled.safetensors": made["scaled.npz"]}


def seeds() -> dict[str, bytes]:
    """Files of other frameworks that hold whole networks."""
    arrays = {"emb.weight": np.ones((5, 3), np.float32)}
    arrays |= {f"rnn.{name}": each for name, each in LSTM(3, 4, 2, seed=0).state_dict().items()}
    arrays |= {f"top.{name}": each for name, each in BiLSTM(4, 2, seed=0).state_dict().items()}
    arrays |= {"out.weight": np.ones((2, 4), np.float32), "out.bias": np.ones(2, np.float32)}
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    made = {"tagger.npz": stream.getvalue()} | onnx_seeds()
    try:
        import torch
    except ImportError:
        return made
    stream = io.BytesIO()
    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, stream)
    return {**made, "tagger.pt": stream.getvalue()}


def onnx_seeds() -> dict[str, bytes]:
    """A graph that computes the shapes between its parts, and one with a mean over time."""
    try:
        from onnx import helper, numpy_helper
    except ImportError:
        return {}
    V, E, H, K, node = 5, 3, 4, 2, helper.make_node
    arrays: dict[str, Any] = {
        "table": np.ones((V, E), np.float32),
        "W": np.ones((2, 4 * H, E), np.float32),
        "R": np.ones((2, 4 * H, H), np.float32),
        "w": np.ones((2 * H, K), np.float32),
        "c": np.ones(K, np.float32),
        "zero": [0],
        "two": [2],
        "minus": [-1],
        "time": [1],
    }
    tensors = [numpy_helper.from_array(np.asarray(each), name) for name, each in arrays.items()]
    start = [
        node("Gather", ["table", "x"], ["e"]),
        node("Transpose", ["e"], ["s"], perm=[1, 0, 2]),
        node("LSTM", ["s", "W", "R"], ["Y"], hidden_size=H, direction="bidirectional"),
        node("Transpose", ["Y"], ["t"], perm=[2, 0, 1, 3]),
        node("Shape", ["t"], ["n"]),
        node("Slice", ["n", "zero", "two"], ["o"]),
        node("Concat", ["o", "minus"], ["p"], axis=0),
        node("Reshape", ["t", "p"], ["f"]),
    ]
    heads = {
        "steps.onnx": [node("MatMul", ["f", "w"], ["z"]), node("Add", ["z", "c"], ["q"])],
        "mean.onnx": [
            node("ReduceMean", ["f"], ["m"], axes=[1], keepdims=0),
            node("Gemm", ["m", "w", "c"], ["q"]),
        ],
    }
    made = {}
    for name, head in heads.items():
        nodes = [*start, *head, node("Softmax", ["q"], ["y"], axis=-1)]
        given = [helper.make_tensor_value_info("x", 7, ("b", "t"))]
        answers = [helper.make_tensor_value_info("y", 1, None)]
        graph = helper.make_graph(nodes, "graph", given, answers, tensors)
        opsets = [helper.make_opsetid("", 17)]
        made[name] = helper.make_model(graph, opset_imports=opsets).SerializeToString()
    return made


def load(path: Path) -> None:
    """Read all arrays of a file, and its network if it has one."""
    try:
        for array in weights.arrays(path).values():
            assert not array.flags.writeable
    except ValueError as error:
        check_begins_with_file(error, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is assumed
            fastlstm.load_network(path)
    except ValueError as error:
        check_begins_with_file(error, path)


def check_begins_with_file(error: ValueError, path: Path) -> None:
    """Raise an AssertionError if an error does not name the file."""
    if not str(error).startswith(str(path)):
        raise AssertionError(f"the error does not begin with the file: {error}") from error

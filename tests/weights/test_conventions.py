"""LSTM.from_arrays: the other libraries' own results, every order and layout, and the errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from fastlstm._conventions import CONVENTIONS
from fastlstm._gates import LAYOUTS
from support.arrays import assert_same_bits
from support.layers import layer_class, random_state, results
from support.optional import require

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

SIZES = [(1, 1), (3, 5), (13, 7)]  # I, H
T, B = 9, 2

# Largest difference relative to the largest number compared; measured: 2.4e-7 to 5.0e-7.
TOLERANCE = 1e-6


class Case:
    """Random weights, inputs and states, different everywhere, float32 unless told."""

    def __init__(self, seed: int, dtype: Any = np.float32) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype

    def array(self, *shape: int) -> np.ndarray:
        return (0.7 * self.rng.normal(size=shape)).astype(self.dtype)

    def states(self, *shape: int) -> tuple[np.ndarray, np.ndarray]:
        return random_state(self.rng, shape, self.dtype)


def assert_close(got: list[Any], expected: list[Any]) -> None:
    for ours, theirs in zip(got, map(np.asarray, expected), strict=True):
        assert ours.shape == theirs.shape
        scale = np.abs(theirs).max()
        assert scale > 0
        assert np.abs(ours.astype(np.float64) - theirs).max() <= TOLERANCE * scale


def unrolled(step: Any, x: np.ndarray, h: Any, c: Any) -> list[np.ndarray]:
    """[y, h_n, c_n] of a cell that is called with x_t, h and c and returns h and c."""
    y = []
    for x_t in x:
        h, c = step(x_t, h, c)
        y.append(np.asarray(h))
    return [np.stack(y), np.asarray(h)[np.newaxis], np.asarray(c)[np.newaxis]]


def randomised(tree: Any, case: Case) -> Any:
    """Nested dicts of parameters, with other values."""
    if isinstance(tree, dict):
        return {name: randomised(branch, case) for name, branch in tree.items()}
    return case.array(*tree.shape)


# The libraries. Each snippet of docs/weights.md is the expression that makes `ours`.


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("L", "D", "P"), [(1, 1, 0), (2, 2, 0), (2, 1, 0), (2, 2, 3)])
def test_pytorch(sizes: tuple[int, int], L: int, D: int, P: int) -> None:
    torch = require("torch")
    I, H = sizes
    P = P if H > P else 0
    case = Case(0)
    theirs = torch.nn.LSTM(I, H, L, bidirectional=D == 2, proj_size=P)
    by_kind: dict[str, list[Any]] = {}
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.from_numpy(case.array(*parameter.shape)))
            by_kind.setdefault(name.split("_l")[0], []).append(parameter.detach())
    ours = layer_class(D).from_arrays(**by_kind, convention="pytorch")
    assert (ours.num_layers, ours.proj_size, ours.dtype) == (L, P, np.float32)
    x = case.array(T, B, I)
    h_0, c_0 = case.array(L * D, B, P or H), case.array(L * D, B, H)
    states = torch.from_numpy(h_0), torch.from_numpy(c_0)
    with torch.inference_mode():
        expected = results(theirs(torch.from_numpy(x), states))
    assert_close(results(ours(x, (h_0, c_0))), expected)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", ["LSTMCell", "OptimizedLSTMCell"])
def test_flax_linen(sizes: tuple[int, int], kind: str) -> None:
    nn, jax = require("flax.linen"), require("jax")
    I, H = sizes
    case = Case(1)
    cell = getattr(nn, kind)(features=H)
    x, (h, c) = case.array(T, B, I), case.states(B, H)
    shapes = jax.eval_shape(cell.init, jax.random.key(0), (c, h), x[0])
    params = randomised(shapes["params"], case)
    step = jax.jit(lambda x_t, h, c: cell.apply({"params": params}, (c, h), x_t)[0][::-1])

    ours = LSTM.from_arrays(
        {g: params["i" + g]["kernel"] for g in "ifgo"},
        {g: params["h" + g]["kernel"] for g in "ifgo"},
        bias_hh={g: params["h" + g]["bias"] for g in "ifgo"},
        convention="flax",
    )
    assert_close(results(ours(x, (h[None], c[None]))), unrolled(step, x, h, c))


def filled(nnx: Any, kind: str, sizes: tuple[int, int], case: Case) -> Any:
    """A cell of Flax's new interface with random parameters."""
    cell = nnx.eval_shape(lambda: getattr(nnx, kind)(*sizes, rngs=nnx.Rngs(0)))
    for _, linear in nnx.iter_graph(cell):
        if isinstance(linear, nnx.Linear):
            linear.kernel.set_value(case.array(*linear.kernel.shape))
            if linear.use_bias:
                linear.bias.set_value(case.array(*linear.bias.shape))
    return cell


@pytest.mark.parametrize("sizes", SIZES)
def test_flax_nnx_optimized(sizes: tuple[int, int]) -> None:
    nnx, jax = require("flax.nnx"), require("jax")
    H = sizes[1]
    case = Case(2)
    cell = filled(nnx, "OptimizedLSTMCell", sizes, case)
    x, (h, c) = case.array(T, B, sizes[0]), case.states(B, H)
    step = jax.jit(lambda x_t, h, c: cell((c, h), x_t)[0][::-1])
    ours = LSTM.from_arrays(
        cell.dense_i.kernel[...],
        cell.dense_h.kernel[...],
        bias_hh=cell.dense_h.bias[...],
        convention="flax",
    )
    assert_close(results(ours(x, (h[None], c[None]))), unrolled(step, x, h, c))


@pytest.mark.parametrize("sizes", SIZES)
def test_flax_nnx(sizes: tuple[int, int]) -> None:
    nnx, jax = require("flax.nnx"), require("jax")
    H = sizes[1]
    case = Case(3)
    cell = filled(nnx, "LSTMCell", sizes, case)
    x, (h, c) = case.array(T, B, sizes[0]), case.states(B, H)
    step = jax.jit(lambda x_t, h, c: cell((c, h), x_t)[0][::-1])
    inputs = {"i": cell.ii, "f": cell.if_, "g": cell.ig, "o": cell.io}
    hidden = {"i": cell.hi, "f": cell.hf, "g": cell.hg, "o": cell.ho}
    ours = LSTM.from_arrays(
        {gate: linear.kernel[...] for gate, linear in inputs.items()},
        {gate: linear.kernel[...] for gate, linear in hidden.items()},
        bias_hh={gate: linear.bias[...] for gate, linear in hidden.items()},
        convention="flax",
    )
    assert_close(results(ours(x, (h[None], c[None]))), unrolled(step, x, h, c))


@pytest.mark.parametrize("sizes", SIZES)
def test_haiku(sizes: tuple[int, int]) -> None:
    hk, jax = require("haiku"), require("jax")
    I, H = sizes
    case = Case(3)
    cell = hk.without_apply_rng(hk.transform(lambda x, h, c: hk.LSTM(H)(x, hk.LSTMState(h, c))[1]))
    x, (h, c) = case.array(T, B, I), case.states(B, H)
    params = randomised(jax.eval_shape(cell.init, jax.random.key(0), x[0], h, c), case)
    w, b = params["lstm/linear"]["w"], params["lstm/linear"]["b"]
    step = jax.jit(lambda x_t, h, c: cell.apply(params, x_t, h, c))
    ours = LSTM.from_arrays(w[:I], w[I:], b, convention="haiku")
    assert_close(results(ours(x, (h[None], c[None]))), unrolled(step, x, h, c))


@pytest.mark.parametrize("sizes", SIZES)
def test_equinox(sizes: tuple[int, int]) -> None:
    eqx, jax = require("equinox"), require("jax")
    I, H = sizes
    case = Case(4)
    x, (h, c) = case.array(T, I), case.states(H)
    names = ("weight_ih", "weight_hh", "bias")
    cell = eqx.tree_at(
        lambda cell: [getattr(cell, name) for name in names],
        eqx.filter_eval_shape(eqx.nn.LSTMCell, I, H, key=jax.random.key(0)),
        [case.array(4 * H, I), case.array(4 * H, H), case.array(4 * H)],
    )
    step = jax.jit(lambda x_t, h, c: cell(x_t, (h, c)))
    ours = LSTM.from_arrays(cell.weight_ih, cell.weight_hh, cell.bias, convention="equinox")
    assert_close(results(ours(x, (h[None], c[None]))), unrolled(step, x, h, c))


@pytest.fixture
def opset(monkeypatch: pytest.MonkeyPatch) -> Any:
    """OpenVINO's operators; its first import would report itself over the network."""
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)
    return require("openvino.opset13")


def on_cpu(nodes: Any, inputs: Any) -> Any:
    """A model of OpenVINO, in float32 also where the processor has bfloat16."""
    openvino = require("openvino")
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return openvino.Core().compile_model(openvino.Model(nodes, inputs, "lstm"), "CPU", options)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_openvino_sequence(opset: Any, sizes: tuple[int, int], direction: str) -> None:
    I, H = sizes
    D = 1 + (direction == "bidirectional")
    case = Case(5)
    x = case.array(T, B, I)
    h_0, c_0 = case.states(D, B, H)
    W, R, bias = case.array(D, 4 * H, I), case.array(D, 4 * H, H), case.array(D, 4 * H)
    inputs = [opset.parameter(list(s), np.float32) for s in ((B, T, I), (B, D, H), (B, D, H))]
    constants = [opset.constant(a) for a in (np.full(B, T, np.int32), W, R, bias)]
    node = opset.lstm_sequence(*inputs, *constants, H, direction)
    run = on_cpu(node.outputs(), inputs)([x.swapaxes(0, 1), h_0.swapaxes(0, 1), c_0.swapaxes(0, 1)])
    y = run[0].transpose(2, 0, 1, 3).reshape(T, B, D * H)  # (B, D, T, H)
    expected = [y, run[1].swapaxes(0, 1), run[2].swapaxes(0, 1)]

    if direction == "bidirectional":
        ours = BiLSTM.from_arrays(list(W), list(R), list(bias), convention="openvino")
        assert_close(results(ours(x, (h_0, c_0))), expected)
        return
    one = LSTM.from_arrays(W[0], R[0], bias[0], convention="openvino")
    backwards = slice(None, None, -1 if direction == "reverse" else 1)
    y, (h_n, c_n) = one(x[backwards], (h_0, c_0))
    assert_close([y[backwards], h_n, c_n], expected)


@pytest.mark.parametrize("sizes", SIZES)
def test_openvino_cell(opset: Any, sizes: tuple[int, int]) -> None:
    I, H = sizes
    case = Case(6)
    x, (h, c) = case.array(T, B, I), case.states(B, H)
    W, R, bias = case.array(4 * H, I), case.array(4 * H, H), case.array(4 * H)
    inputs = [opset.parameter(list(s), np.float32) for s in ((B, I), (B, H), (B, H))]
    node = opset.lstm_cell(*inputs, *map(opset.constant, (W, R, bias)), H)
    compiled = on_cpu(node.outputs(), inputs)

    def step(x_t: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        run = compiled([x_t, h, c])
        return run[0].copy(), run[1].copy()

    ours = LSTM.from_arrays(W, R, bias, convention="openvino")
    assert_close(results(ours(x, (h[None], c[None]))), unrolled(step, x, h, c))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("depth", "D"), [(1, 1), (2, 1), (2, 2)])
def test_thinc(sizes: tuple[int, int], depth: int, D: int) -> None:
    thinc, types = require("thinc.api"), require("thinc.types")
    I, H = sizes
    case = Case(7)
    x = case.array(T, B, I)
    model = thinc.LSTM(D * H, I, bi=D == 2, depth=depth)
    model.initialize()
    for name in ("LSTM", "HC0"):
        model.set_param(name, case.array(*model.get_param(name).shape))
    whole = np.full(T, B, np.int32), np.full(B, T, np.int32), np.arange(B, dtype=np.int32)
    expected = model.predict(types.Padded(x, *whole)).data

    W, bias_ih, U, bias_hh = [], [], [], []
    rest = model.get_param("LSTM")
    for k in range(depth * D):
        n = I if k < D else D * H
        w, b, u, c, rest = np.split(rest, 4 * H * np.cumsum([n, 1, H, 1]))
        W.append(w.reshape(4 * H, n))
        U.append(u.reshape(4 * H, H))
        bias_ih.append(b)
        bias_hh.append(c)
    assert rest.size == 0
    ours = layer_class(D).from_arrays(W, U, bias_ih, bias_hh, convention="thinc")
    # The library's own slip: what it calls H0 is where its cell begins, and the other way round.
    c_0, h_0 = model.get_param("HC0").reshape(2, depth * D, 1, H).repeat(B, axis=2)
    assert_close([ours(x, (h_0, c_0))[0]], [expected])


def ncnn_results(
    path: Path, blobs: list[np.ndarray], options: str, inputs: list[np.ndarray]
) -> list[np.ndarray]:
    """[y, h_n, c_n] of ncnn's LSTM layer in float32, out of a model written to two files."""
    ncnn = require("ncnn")
    (path / "model.param").write_text(
        "7767517\n4 6\nInput x 0 1 x\nInput h_0 0 1 h_0\nInput c_0 0 1 c_0\n"
        f"LSTM lstm 3 3 x h_0 c_0 y h_n c_n {options}\n"
    )
    float32 = bytes(4)  # the tag before each array
    (path / "model.bin").write_bytes(b"".join(float32 + blob.tobytes() for blob in blobs))
    net = ncnn.Net()
    net.opt.num_threads = 1
    for name in dir(net.opt):
        if name.startswith(("use_fp16", "use_bf16")):
            setattr(net.opt, name, False)
    assert net.load_param(str(path / "model.param")) == 0
    assert net.load_model(str(path / "model.bin")) == 0
    extractor = net.create_extractor()
    for name, array in zip(("x", "h_0", "c_0"), inputs, strict=True):
        extractor.input(name, ncnn.Mat(array))
    return [np.array(extractor.extract(name)[1]) for name in ("y", "h_n", "c_n")]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("direction", [0, 2])
@pytest.mark.parametrize("P", [0, 3])
def test_ncnn(sizes: tuple[int, int], direction: int, P: int, tmp_path: Path) -> None:
    require("ncnn")
    I, H = sizes
    P = P if H > P else 0
    D = 2 if direction == 2 else 1
    case = Case(8)
    x, h_0, c_0 = case.array(T, I), case.array(D, P or H), case.array(D, H)
    xc, bias, hc = case.array(D, 4 * H, I), case.array(D, 4, H), case.array(D, 4 * H, P or H)
    hr = case.array(D, P, H)
    blobs = [xc, bias, hc, hr] if P else [xc, bias, hc]
    options = f"0={P or H} 1={xc.size} 2={direction} 3={H}"
    expected = ncnn_results(tmp_path, blobs, options, [x, h_0, c_0])
    ours = layer_class(D).from_arrays(
        list(xc), list(hc), list(bias), weight_hr=list(hr) if P else None, convention="ncnn"
    )
    assert_close(results(ours(x, (h_0, c_0))), expected)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("extra", ["", "P", "input_forget"])
def test_onnx(sizes: tuple[int, int], D: int, extra: str) -> None:
    onnx, runtime = require("onnx"), require("onnxruntime")
    I, H = sizes
    case = Case(9)
    arrays = {
        "W": case.array(D, 4 * H, I),
        "R": case.array(D, 4 * H, H),
        "B": case.array(D, 8 * H),
        "P": case.array(D, 3 * H),
    }
    if not extra:
        del arrays["P"]
    x, (h_0, c_0) = case.array(T, B, I), case.states(D, B, H)
    names = ["x", "W", "R", "B", "", "h_0", "c_0", "P" if extra else ""]
    helper = onnx.helper
    node = helper.make_node(
        "LSTM",
        names,
        ["y", "h_n", "c_n"],
        hidden_size=H,
        direction="bidirectional" if D == 2 else "forward",
        input_forget=int(extra == "input_forget"),
    )
    real = onnx.TensorProto.FLOAT
    fed = {"x": x, "h_0": h_0, "c_0": c_0}
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info(name, real, array.shape) for name, array in fed.items()],
        [helper.make_tensor_value_info(name, real, None) for name in ("y", "h_n", "c_n")],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    y, h_n, c_n = session.run(None, fed)
    expected = [y.swapaxes(1, 2).reshape(T, B, D * H), h_n, c_n]

    W, R, bias = (list(arrays[name]) for name in "WRB")
    ours = layer_class(D).from_arrays(
        W,
        R,
        [b[: 4 * H] for b in bias],
        [b[4 * H :] for b in bias],
        peepholes=list(arrays["P"]) if extra else None,
        convention="onnx",
        coupled_gates=extra == "input_forget",
    )
    assert_close(results(ours(x, (h_0, c_0))), expected)


# Keras asks PyTorch's tensors for an array in a way that NumPy 2 wants changed.
KERAS_WARNS = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@KERAS_WARNS
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_keras(sizes: tuple[int, int], bidirectional: bool, use_bias: bool) -> None:
    keras = require("keras")
    I, H = sizes
    case = Case(10)
    layer = keras.layers.LSTM(H, return_sequences=True, use_bias=use_bias)
    if bidirectional:
        layer = keras.layers.Bidirectional(layer)
    layer.build((B, T, I))
    layer.set_weights([case.array(*weight.shape) for weight in layer.get_weights()])
    D = 1 + bidirectional
    x, (h_0, c_0) = case.array(B, T, I), case.states(D, B, H)
    states = [state[d] for d in range(D) for state in (h_0, c_0)]
    expected = keras.ops.convert_to_numpy(layer(x, initial_state=states))

    weights, each = layer.get_weights(), 3 if use_bias else 2
    kernel, recurrent, *bias = (weights[k::each] for k in range(each))
    ours = layer_class(D).from_arrays(
        kernel, recurrent, *bias, convention="keras", batch_first=True
    )
    assert_close([ours(x, (h_0, c_0))[0]], [expected])


@KERAS_WARNS
@pytest.mark.parametrize("sizes", SIZES)
def test_rtneural(sizes: tuple[int, int], tmp_path: Path) -> None:
    """What RTNeural's python/model_utils.py writes: Keras' get_weights() as JSON, two layers."""
    keras = require("keras")
    I, H = sizes
    case = Case(11)
    layers = [keras.layers.LSTM(n, return_sequences=True) for n in (H, H)]
    model = keras.Sequential([keras.Input((None, I)), *layers])
    for layer in layers:
        layer.set_weights([case.array(*weight.shape) for weight in layer.get_weights()])
    path = tmp_path / "model.json"
    exported = [
        {
            "type": "lstm",
            "activation": "tanh",
            "shape": [None, None, H],
            "weights": [weight.tolist() for weight in layer.get_weights()],
        }
        for layer in layers
    ]
    path.write_text(json.dumps({"in_shape": [None, None, I], "layers": exported}))
    x = case.array(1, T, I)
    expected = keras.ops.convert_to_numpy(model(x))[0]

    found = [each for each in json.loads(path.read_text())["layers"] if each["type"] == "lstm"]
    W, U, b = zip(*(each["weights"] for each in found), strict=True)
    ours = LSTM.from_arrays(W, U, b, convention="rtneural", dtype=np.float32)
    assert ours.num_layers == 2
    assert_close([ours(x[0])[0]], [expected])


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("forget_bias", [None, 0.0, 2.5])
@pytest.mark.parametrize("everything", [False, True])
def test_tensorflow_1(sizes: tuple[int, int], forget_bias: float | None, everything: bool) -> None:
    """The equations of LSTMCell in tensorflow/python/ops/rnn_cell_impl.py (1.15), in float64."""
    I, H = sizes
    case = Case(12, np.float64)
    P = H // 2 if everything else 0
    x, h, c = case.array(T, B, I), case.array(B, P or H), case.array(B, H)
    kernel, bias = case.array(I + (P or H), 4 * H), case.array(4 * H)
    diagonal = {gate: case.array(H) if everything else np.zeros(H) for gate in "fio"}
    projection = case.array(H, P)
    clip = 0.8

    def step(x_t: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        i, j, f, o = np.split(np.concatenate([x_t, h], axis=1) @ kernel + bias, 4, axis=1)
        added = 1.0 if forget_bias is None else forget_bias
        c = sigmoid(f + added + diagonal["f"] * c) * c + sigmoid(i + diagonal["i"] * c) * np.tanh(j)
        if everything:
            c = np.clip(c, -clip, clip)
        m = sigmoid(o + diagonal["o"] * c) * np.tanh(c)
        return (m @ projection if P else m), c

    ours = LSTM.from_arrays(
        kernel[:I],
        kernel[I:],
        bias,
        weight_hr=projection if P else None,
        peepholes=diagonal if everything else None,
        convention="tensorflow1",
        forget_bias=forget_bias,
        cell_clip=clip if everything else None,
    )
    assert_close(results(ours(x, (h[None], c[None]))), unrolled(step, x, h, c))


def test_every_convention_is_tested_and_documented() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in CONVENTIONS if f'convention="{name}"' not in text] == []
    assert [name for name in CONVENTIONS if f'"{name}"' not in str(LSTM.from_arrays.__doc__)] == []


# Every order, layout and form.


def arranged(
    rows: np.ndarray, gates: str, order: str, layout: str, form: str, rng: np.random.Generator
) -> Any:
    """Rows of gates (G*H, I) or (G*H,), as a library would keep them; f is made up if missing."""
    G = len(gates)
    by_gate = dict(zip(gates, rows.reshape(G, -1, *rows.shape[1:]), strict=True))
    made_up = rng.normal(size=by_gate["i"].shape).astype(rows.dtype)
    axes = layout if rows.ndim == 2 else layout.replace("I", "")
    own = "GHI" if rows.ndim == 2 else "GH"
    if form == "mapping":
        flat = f"{own[1:]}->{axes.replace('G', '')}"
        return {
            {"g": "c"}.get(gate, gate): np.einsum(flat, by_gate.get(gate, made_up))
            for gate in order
        }
    stacked = np.stack([by_gate.get(gate, made_up) for gate in order])
    array = np.einsum(f"{own}->{axes}", stacked)
    at = min(axes.index("G"), axes.index("H"))
    if form == "apart" or {axes[at], axes[at + 1]} != {"G", "H"}:
        return array
    return array.reshape(*array.shape[:at], -1, *array.shape[at + 2 :])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["merged", "apart", "mapping"])
@pytest.mark.parametrize("trial", range(6))
def test_any_order_and_layout_gives_the_same_bits(
    layout: str, form: str, trial: int, dtype: type
) -> None:
    rng = np.random.default_rng([trial, *layout.encode(), *form.encode()])
    I, H, L, D = (int(rng.integers(1, high)) for high in (8, 8, 4, 3))
    peepholes, coupled = (bool(n) for n in rng.integers(0, 2, 2))
    P = int(rng.integers(0, H))
    options: dict[str, Any] = {"coupled_gates": coupled, "clip": 3.0, "batch_first": True}
    expected = layer_class(D)(
        I, H, L, proj_size=P, peepholes=peepholes, dtype=dtype, seed=trial, **options
    )
    gates = "igo" if coupled else "ifgo"
    letters = "ifgo" if not coupled or rng.integers(0, 2) else "igo"
    order = "".join(rng.permutation(list(letters)))

    given: dict[str, list[Any]] = {}
    for name, array in expected.state_dict().items():
        kind = name.split("_l")[0]
        if kind == "weight_hr":
            first = layout.index("I") < layout.index("H")
            given.setdefault(kind, []).append(array.T if first else array)
        elif kind == "weight_co":
            rows = np.concatenate(
                [expected.state_dict()[name.replace("_co", f"_c{g}")] for g in gates if g != "g"]
            )
            of = gates.replace("g", ""), order.replace("g", "")
            given.setdefault("peepholes", []).append(arranged(rows, *of, layout, form, rng))
        elif not kind.startswith("weight_c"):
            given.setdefault(kind, []).append(arranged(array, gates, order, layout, form, rng))
    if L * D == 1 and trial % 2:
        given = {name: arrays[0] for name, arrays in given.items()}
    got = layer_class(D).from_arrays(**given, order=order, layout=layout, **options)
    assert got.options == expected.options
    for name, array in expected.state_dict().items():
        assert_same_bits(got.state_dict()[name], array)
    x = rng.normal(size=(2, 4, I)).astype(dtype)
    for ours, theirs in zip(results(got(x)), results(expected(x)), strict=True):
        assert_same_bits(ours, theirs)


@pytest.mark.parametrize("given", [(), ("bias_ih",), ("bias_hh",), ("bias_ih", "bias_hh")])
@pytest.mark.parametrize("forget_bias", [None, 0.0, 1.0, -0.3])
def test_biases(given: tuple[str, ...], forget_bias: float | None) -> None:
    case = Case(13)
    W, U = case.array(20, 3), case.array(20, 5)
    biases = {name: case.array(20) for name in given}
    layer = LSTM.from_arrays(W, U, **biases, forget_bias=forget_bias)
    assert layer.bias == bool(given or forget_bias)
    if layer.bias:
        zeros = np.zeros(20, np.float32)
        expected = {"bias_ih": zeros, "bias_hh": zeros} | biases
        added = np.zeros(20)
        added[5:10] = forget_bias or 0.0
        assert_same_bits(layer.state_dict()["bias_ih_l0"], expected["bias_ih"])
        assert_same_bits(
            layer.state_dict()["bias_hh_l0"], (expected["bias_hh"] + added).astype(np.float32)
        )


@pytest.mark.parametrize(
    ("stored", "asked", "expected"),
    [
        ("f2", None, "float32"),
        ("f4", None, "float32"),
        (">f4", None, "float32"),
        ("f8", None, "float64"),
        (">f8", "float32", "float32"),
        ("f2", "float64", "float64"),
        ("i4", "float32", "float32"),
    ],
)
def test_dtypes(stored: str, asked: str | None, expected: str) -> None:
    W = np.arange(60).reshape(20, 3).astype(stored)
    U = np.arange(100).reshape(20, 5).astype(stored)
    layer = LSTM.from_arrays(W, U, dtype=asked)
    assert layer.dtype == expected
    assert_same_bits(layer.state_dict()["weight_hh_l0"], U.astype(expected))


def test_values_of_float32_come_through_unchanged() -> None:
    special = np.array([0.0, -0.0, 1e-42, 3.4e38, np.inf, -np.inf, np.nan, 1 / 3], np.float32)
    W = np.resize(special, (20, 3))
    layer = LSTM.from_arrays(W, np.ones((20, 5), np.float32))
    assert_same_bits(layer.state_dict()["weight_ih_l0"], W)


def test_options_pass_through() -> None:
    W, U = [np.ones((20, 3))] * 2, [np.ones((20, 5))] * 2
    layer = BiLSTM.from_arrays(
        W, U, merge_mode="sum", gate_activation="hard_sigmoid", zoneout_c=0.1
    )
    assert repr(layer) == (
        "BiLSTM(3, 5, bias=False, gate_activation='hard_sigmoid', zoneout_c=0.1, "
        "merge_mode='sum', dtype=float64)"
    )


class OnlyDLPack:
    """An array as some libraries have it, without NumPy's protocol."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_takes_whatever_numpy_can_read() -> None:
    case = Case(14)
    W, U = case.array(20, 3), case.array(20, 5)
    expected = LSTM.from_arrays(W, U).parameters
    assert_same_bits(LSTM.from_arrays(OnlyDLPack(W), OnlyDLPack(U)).parameters, expected)
    nested = LSTM.from_arrays([W.tolist()], [U.tolist()], dtype="float32")
    assert_same_bits(nested.parameters, expected)
    strided = LSTM.from_arrays(np.asfortranarray(W), np.repeat(U, 2, axis=1)[:, ::2])
    assert_same_bits(strided.parameters, expected)


# What is refused.

ONE = {"weight_ih": np.ones((20, 3)), "weight_hh": np.ones((20, 5))}
BY_GATE = {gate: np.ones((5, 3)) for gate in "ifgo"}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight_ih": None}, TypeError, "weight_ih: got None, expected an array"),
        ({"weight_hh": None}, TypeError, "weight_hh: got None, expected an array"),
        ({"weight_ih": "ones"}, TypeError, "weight_ih: got values of dtype"),
        ({"bias_ih": np.ones(20) + 1j}, TypeError, "bias_ih: got values of dtype complex128"),
        ({"bias_hh": object()}, TypeError, "bias_hh: got values of dtype object"),
        ({"weight_ih": np.ones((0, 3))}, ValueError, r"weight_ih: got shape \(0, 3\)"),
        (
            {"weight_ih": np.ones((24, 3))},
            ValueError,
            r"weight_ih: got shape \(24, 3\), expected \(20, 3\)",
        ),
        (
            {"weight_hh": np.ones((21, 5))},
            ValueError,
            r"weight_hh: got shape \(21, 5\), .* multiple of 4 .* \(order 'ifgo', layout 'GHI'\)",
        ),
        (
            {"weight_hh": np.ones((8, 32))},
            ValueError,
            r"weight_hh: got shape \(8, 32\), .* 'GHI' 2 units .* 32 numbers, expected 2, or a",
        ),
        (
            {"weight_hr": np.ones((5, 5))},
            ValueError,
            r"weight_hh: .* 5 units that read 5 numbers, expected fewer than 5",
        ),
        (
            {"weight_hh": np.ones((20, 2)), "weight_hr": np.ones((5, 2))},
            ValueError,
            r"weight_hr: got shape \(5, 2\), expected \(2, 5\)",
        ),
        (
            {"weight_hh": np.ones((20, 2)), "weight_hr": {"i": 1.0}},
            TypeError,
            r"weight_hr: got values of dtype object \(dict\)",
        ),
        (
            {"weight_hh": np.ones((4, 5, 6))},
            ValueError,
            r"weight_hh: .* 5 units that read 6 numbers",
        ),
        (
            {"weight_hh": np.ones((4, 6, 6))},
            ValueError,
            r"weight_ih: got shape \(20, 3\), expected \(24, 3\)",
        ),
        (
            {"weight_hh": np.ones((3, 5, 5))},
            ValueError,
            r"weight_hh: got shape \(3, 5, 5\), .* 4 gates",
        ),
        ({"weight_ih": 3.0}, ValueError, r"weight_ih: got shape \(\), expected the axes GHI"),
        (
            {"bias_ih": np.ones((4, 6))},
            ValueError,
            r"bias_ih: got shape \(4, 6\), expected \(4, 5\)",
        ),
        ({"bias_hh": np.ones(24)}, ValueError, r"bias_hh: got shape \(24,\), expected \(20,\)"),
        (
            {"peepholes": np.ones(20)},
            ValueError,
            r"peepholes: got shape \(20,\), expected a multiple of 3",
        ),
        ({"peepholes": np.ones(12)}, ValueError, r"peepholes: got shape \(12,\), expected \(15,\)"),
        (
            {"peepholes": BY_GATE},
            ValueError,
            "peepholes: got the gates i, f, g, o, expected i, f, o",
        ),
        (
            {"weight_ih": {"i": 1, "f": 1}},
            ValueError,
            "weight_ih: got the gates i, f, expected i, f, g, o",
        ),
        ({"weight_ih": {}}, ValueError, "weight_ih: got the gates none, expected i, f, g, o"),
        (
            {"weight_ih": BY_GATE | {"c": np.ones((5, 3))}},
            ValueError,
            "weight_ih: got the gates i, f, g, o, c",
        ),
        (
            {"weight_ih": BY_GATE | {"f": np.ones((5, 4))}},
            ValueError,
            r"weight_ih\['f'\]: got shape \(5, 4\), expected \(5, 3\) as i has",
        ),
        (
            {"weight_ih": BY_GATE | {"i": np.ones(5)}},
            ValueError,
            r"weight_ih\['i'\]: got shape \(5,\), expected the axes HI",
        ),
        (
            {"weight_ih": {gate: np.ones((3, 5)) for gate in "ifgo"}},
            ValueError,
            r"weight_ih: got shape \(3, 5\), expected \(5, 5\)",
        ),
        (
            {"bias_ih": BY_GATE},
            ValueError,
            r"bias_ih\['i'\]: got shape \(5, 3\), expected the axes H",
        ),
        (
            {"weight_ih": []},
            ValueError,
            "weight_ih: got 0 arrays, expected one for each layer",
        ),
        (
            {"weight_ih": [np.ones((20, 3))] * 2},
            ValueError,
            "weight_hh: got 1 array, expected 2, as many as weight_ih",
        ),
        (
            {"weight_ih": [np.ones((20, 3))] * 2, "weight_hh": [np.ones((20, 5))] * 2},
            ValueError,
            r"weight_ih\[1\]: got shape \(20, 3\), expected \(20, 5\)",
        ),
        (
            {"weight_ih": [ONE["weight_ih"]], "weight_hh": [ONE["weight_hh"]], "bias_ih": [None]},
            TypeError,
            r"bias_ih\[0\]: got values of dtype object",
        ),
        (
            {"weight_ih": np.ones((20, 3)).tolist()},
            ValueError,
            "weight_hh: got 1 array, expected 20, as many as weight_ih",
        ),
        (
            {"weight_ih": np.ones((20, 3), np.float32)},
            ValueError,
            "dtype: missing, and weight_ih is float32, weight_hh is float64: choose one",
        ),
        (
            {"weight_ih": np.ones((20, 3), int), "weight_hh": np.ones((20, 5), int)},
            ValueError,
            "dtype: missing, and weight_ih is int64: choose float32 or float64",
        ),
        ({"dtype": "float16"}, ValueError, "dtype: got 'float16', expected float32 or float64"),
        ({"order": "ifg"}, ValueError, "order: got 'ifg', expected the letters"),
        ({"order": "ifgg"}, ValueError, "order: got 'ifgg', expected the letters"),
        (
            {"order": "igo"},
            ValueError,
            "order: got 'igo', expected four gates, or coupled_gates=True",
        ),
        ({"order": 3}, ValueError, "order: got 3, expected the letters"),
        ({"layout": "ghi"}, ValueError, "layout: got 'ghi', expected one of GHI, "),
        ({"layout": ["GHI"]}, ValueError, r"layout: got \['GHI'\], expected one of GHI, "),
        ({"convention": "Keras"}, ValueError, "convention: got 'Keras', expected one of pytorch, "),
        ({"convention": None}, ValueError, "convention: got None, expected one of pytorch, "),
        ({"forget_bias": "1"}, TypeError, "forget_bias: got '1', expected a number"),
        ({"forget_bias": np.nan}, ValueError, "forget_bias: got nan, expected a finite number"),
        (
            {"forget_bias": 1.0, "coupled_gates": True},
            ValueError,
            "forget_bias: got 1.0, but coupled gates have no forget gate",
        ),
        ({"coupled_gates": 1}, TypeError, "coupled_gates: got 1, expected True or False"),
        (
            {"hidden_size": 5},
            TypeError,
            "hidden_size: not an option of from_arrays, the arrays decide it",
        ),
        ({"seed": 5}, TypeError, "seed: not an option of from_arrays"),
        ({"layer_norm": True}, ValueError, "layer_norm: from_arrays takes no scales"),
        ({"clip": -1.0}, ValueError, "clip: got -1.0"),
        ({"merge_modus": "sum"}, TypeError, ".*unexpected keyword argument 'merge_modus'"),
    ],
)
def test_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + message):
        LSTM.from_arrays(**(ONE | change))


@pytest.mark.parametrize(("count", "text"), [(1, "1 array"), (3, "3 arrays")])
def test_refuses_half_a_direction(count: int, text: str) -> None:
    arrays = {name: [array] * count for name, array in ONE.items()}
    expected = f"^weight_ih: got {text}, expected one for each layer and direction: forward, "
    with pytest.raises(ValueError, match=expected):
        BiLSTM.from_arrays(**arrays)


def test_needs_no_other_library() -> None:
    libraries = "torch jax flax haiku equinox keras openvino thinc ncnn onnx onnxruntime"
    script = (
        "import sys, numpy as np; from fastlstm import LSTM;"
        "LSTM.from_arrays(np.ones((20, 3)), np.ones((20, 5)));"
        f"assert not set('{libraries}'.split()) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

"""The conventions of LSTM.from_arrays: the other libraries' own results."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from fastlstm._conventions import CONVENTIONS
from support.layers import layer_class, results
from support.library_cases import Case
from support.optional import require

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

SIZES = [(1, 1), (3, 5), (13, 7)]  # I, H
T, B = 9, 2

# Largest difference relative to the largest number compared; measured: 2.4e-7 to 5.0e-7.
TOLERANCE = 1e-6


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

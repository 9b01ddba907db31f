"""LSTM.from_arrays: every order, layout and form, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from fastlstm._gates import LAYOUTS
from support.arrays import assert_same_bits
from support.layers import layer_class, results
from support.library_cases import Case

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

"""What the options of the layers refuse, and that nothing has changed then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from support.arrays import assert_same_bits

pytestmark = pytest.mark.default_isa

NO_NUMBERS: list[Any] = [True, "0.5", None, 0.5j, np.ones(2)]
NOT_FINITE: list[Any] = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [
        *((name, [1, 0, "yes", None, np.ones(2)], TypeError) for name in
          ("peepholes", "coupled_gates", "layer_norm", "return_sequences")),
        *((name, ["swish", "", "Tanh", None, 1, np.tanh, np.array(["tanh", "relu"])], ValueError)
          for name in ("gate_activation", "cell_activation", "output_activation")),
        *((name, [v for v in NO_NUMBERS if v is not None], TypeError)
          for name in ("clip", "cell_clip")),
        *((name, [*NOT_FINITE, 0, -0.0, -1, 1e-60, 1e39], ValueError)
          for name in ("clip", "cell_clip")),
        *((name, NO_NUMBERS, TypeError) for name in
          ("dropout", "recurrent_dropout", "weight_dropout", "zoneout_h", "zoneout_c")),
        *((name, [*NOT_FINITE, -0.1, 1, 1.5], ValueError) for name in
          ("dropout", "recurrent_dropout", "weight_dropout")),
        *((name, [*NOT_FINITE, -0.1, 1.5, np.nextafter(1, 2)], ValueError)
          for name in ("zoneout_h", "zoneout_c")),
        ("proj_size", [5, 6, -1, 2**70], ValueError),
        ("proj_size", [2.0, "2", None, True, False, np.False_, 0.0, np.zeros(2)], TypeError),
        ("merge_mode", ["ave", "", 0, False, ["sum"], np.array(["sum", "mean"])], ValueError),
        ("forget_bias", NOT_FINITE, ValueError),
    ],
)  # fmt: skip
def test_bad_options(name: str, values: list[Any], error: type[Exception]) -> None:
    for value in values:
        with pytest.raises(error, match=rf"^{name}: got "):
            BiLSTM(3, 5, **{name: value})


def test_one_unit_can_not_be_projected() -> None:
    with pytest.raises(ValueError, match=r"^proj_size: got 1, "):
        LSTM(3, 1, proj_size=1)
    assert LSTM(3, 1, proj_size=0).output_size == 1


@pytest.mark.parametrize("mode", ["sum", "mean", "product", None])
def test_one_direction_can_not_be_merged(mode: str | None) -> None:
    with pytest.raises(ValueError, match=rf"^merge_mode: got {mode!r}, but only a BiLSTM "):
        LSTM(3, 5, merge_mode=mode)
    assert LSTM(3, 5, merge_mode="concat").merge_mode == "concat"


@pytest.mark.parametrize(
    ("options", "arguments", "error", "message"),
    [
        ({"dropout": 0.1}, {}, ValueError, r"^rng: missing"),
        ({"recurrent_dropout": 0.1}, {}, ValueError, r"^rng: missing"),
        ({"weight_dropout": 0.1}, {}, ValueError, r"^rng: missing"),
        ({"zoneout_h": 0.1}, {}, ValueError, r"^rng: missing"),
        ({"zoneout_c": 0.1}, {"rng": None}, ValueError, r"^rng: missing"),
        ({}, {"rng": "x"}, TypeError, r"^rng: got 'x'"),
        ({"dropout": 0.1}, {"rng": "1"}, TypeError, r"^rng: got '1'"),
        ({"dropout": 0.1}, {"rng": -1}, ValueError, r"^rng: got -1"),
        ({"dropout": 0.1}, {"rng": 1.5}, TypeError, r"^rng: got 1.5"),
    ],
)
def test_bad_generators(
    options: dict[str, Any], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LSTM(3, 5, 2, **options).record(np.ones((4, 2, 3)), **arguments)


def test_a_call_takes_no_generator() -> None:
    with pytest.raises(TypeError, match="rng"):
        LSTM(3, 5, dropout=0.1)(np.ones((4, 2, 3)), rng=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("resets", "error", "message"),
    [
        (np.zeros((4, 2), int), TypeError, r"got values of dtype int64, expected booleans"),
        ([["no"] * 2] * 4, TypeError, r"got values of dtype <U2, expected booleans"),
        (np.ma.masked_array(np.zeros((4, 2), bool)), TypeError, r"got a masked array"),
        ([[True], [True, False]], ValueError, r"cannot be made an array"),
        (np.zeros((2, 4), bool), ValueError, r"got shape \(2, 4\), expected \(4, 2\)"),
        (np.zeros(4, bool), ValueError, r"got shape \(4,\), expected \(4, 2\)"),
        (np.zeros((4, 2, 1), bool), ValueError, r"got shape \(4, 2, 1\), expected \(4, 2\)"),
        (True, ValueError, r"got shape \(\), expected \(4, 2\)"),
    ],
)
def test_bad_resets(resets: Any, error: type[Exception], message: str) -> None:
    layer = BiLSTM(3, 5)
    for call in (layer, layer.record):
        with pytest.raises(error, match=f"^resets: {message}"):
            call(np.ones((4, 2, 3)), resets=resets)


def test_resets_have_the_shape_of_the_layout() -> None:
    no = np.zeros
    for layer, x, given, expected in [
        (LSTM(3, 5, batch_first=True), (4, 2, 3), {"resets": no((2, 4), bool)}, r"\(4, 2\)"),
        (LSTM(3, 5), (4, 3), {"resets": no((4, 1), bool)}, r"\(4,\)"),
        (LSTM(3, 5), (4, 3), {"resets": no((2, 2), bool), "offsets": [0, 2, 4]}, r"\(4,\)"),
    ]:
        with pytest.raises(ValueError, match=rf"^resets: got shape .*, expected {expected}"):
            layer(np.ones(x), **given)


@pytest.mark.parametrize("return_sequences", [True, False])
def test_bad_outs(return_sequences: bool) -> None:
    x = np.ones((4, 2, 3), np.float32)
    shape = (4, 2, 5) if return_sequences else (2, 5)
    for mode in ("sum", None):
        layer = BiLSTM(3, 5, merge_mode=mode, return_sequences=return_sequences)
        for wrong in [(*shape[:-1], 10), (9, *shape[1:]), (1, *shape)]:
            out = np.full(wrong, 7, np.float32)
            with pytest.raises(ValueError, match=r"^out: got "):
                layer(x, out=out)
            assert (out == 7).all()
    two = (np.empty(shape, np.float32), np.empty(shape, np.float32))
    for out in (two[0], two):
        with pytest.raises(ValueError, match=r"^out: got .* merge_mode=None"):
            layer(x, out=out)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "dy", "error", "message"),
    [
        (None, np.ones((4, 2, 5)), ValueError, r"^dy: got ndarray, expected a pair"),
        (None, (np.ones((4, 2, 5)),), ValueError, r"^dy: got "),
        (None, (np.ones((4, 2, 5)),) * 3, ValueError, r"^dy: got "),
        (None, (np.ones((4, 2, 5)), np.ones((4, 2, 4))), ValueError, r"^dy\[1\]: got shape"),
        (None, (np.ones((4, 2, 5)) * 1j, np.ones((4, 2, 5))), TypeError, r"^dy\[0\]: got "),
        ("sum", np.ones((4, 2, 10)), ValueError, r"^dy: got shape \(4, 2, 10\)"),
        ("product", (np.ones((4, 2, 5)),) * 2, ValueError, r"^dy: got shape \(2, 4, 2, 5\)"),
        ("concat", np.ones((4, 2, 5)), ValueError, r"^dy: got shape \(4, 2, 5\)"),
    ],
)
def test_bad_gradients_leave_the_tape(
    mode: str | None, dy: Any, error: type[Exception], message: str
) -> None:
    layer = BiLSTM(3, 5, merge_mode=mode, seed=0)
    y, _, tape = layer.record(np.ones((4, 2, 3)))
    with pytest.raises(error, match=message):
        tape.backward(dy)
    assert tape.nbytes
    assert tape.backward(y).params is not None


@pytest.mark.parametrize("shapes", [((2, 2, 5), (2, 2, 5)), ((2, 2, 2), (2, 2, 2))])
def test_states_of_a_projection_differ_in_width(shapes: Any) -> None:
    layer = LSTM(3, 5, 2, proj_size=2)
    h_0, c_0 = map(np.ones, shapes)
    name = "h_0" if shapes[0][-1] == 5 else "c_0"
    with pytest.raises(ValueError, match=rf"^{name}: got shape "):
        layer(np.ones((4, 2, 3)), (h_0, c_0))
    *_, tape = layer.record(np.ones((4, 2, 3)))
    with pytest.raises(ValueError, match=rf"^d{name[0]}_n: got shape "):
        tape.backward(None, (h_0, c_0))


def test_bad_state_dicts_change_nothing() -> None:
    layer = LSTM(3, 5, proj_size=2, peepholes=True, seed=0)
    before = layer.parameters.copy()
    arrays = {name: np.zeros(a.shape) for name, a in layer.state_dict().items()}
    wrong = {n: a for n, a in arrays.items() if n != "weight_cf_l0"}
    wrong |= {"weight_hr_l0": np.zeros((5, 2)), "scale_c_l0": np.zeros(5)}
    message = r"missing weight_cf_l0; unexpected scale_c_l0; weight_hr_l0 has shape \(5, 2\)"
    with pytest.raises(ValueError, match=message):
        layer.load_state_dict(wrong)
    assert_same_bits(layer.parameters, before)

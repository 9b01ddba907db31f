"""LSTMs that PyTorch quantised dynamically, and quantised tensors in state dicts: into 8 bits."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import weights
from fastlstm.weights import pytorch
from fastlstm.weights.contents import Found
from support.arrays import assert_same_bits
from support.optional import require
from support.pickle_parts import hostile, integer, items, name, storage, tensor, text

torch = require("torch")

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*quantiz", "ignore:.*TypedStorage", "ignore:.*copy construct"
)

ENDS = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")


def quantised(module: Any, kind: Any = torch.nn.LSTM, **options: Any) -> Any:
    """A module whose LSTM, or cell, is named "rnn"."""
    dtype = options.pop("dtype", torch.qint8)
    qconfig = options.pop("qconfig", None)
    spec = {kind} if qconfig is None else {kind: qconfig}
    return torch.ao.quantization.quantize_dynamic(
        torch.nn.ModuleDict({"rnn": module}), spec, dtype=dtype
    )


def saved(path: Path, state: Any, legacy: bool = False) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return path


def only(path: Path) -> Found:
    contents = pytorch.read(path)
    assert not contents.refused
    (found,) = contents.layers
    return found


def per_channel() -> Any:
    return torch.ao.quantization.per_channel_dynamic_qconfig


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize(("L", "D"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_dynamically_quantised_state_dicts(
    tmp_path: Path, L: int, D: int, channels: bool, legacy: bool
) -> None:
    """Its digits and scales as PyTorch gives them out, and results within its rounding."""
    torch.manual_seed(0)
    module = torch.nn.LSTM(12, 16, L, bidirectional=D == 2)
    model = quantised(module, qconfig=per_channel() if channels else None)
    found = only(saved(tmp_path / "m.pt", model.state_dict(), legacy))
    assert (found.name, found.kind, found.bits) == ("rnn", "PyTorch LSTM", 8)
    assert (found.option("num_layers"), found.num_directions) == (L, D)
    assert not found.assumptions
    layer = found.build()
    assert layer.bits == 8
    assert layer._quantized is not None
    ends = [end for end in ENDS if (L > 1 or "1" not in end) and (D > 1 or "rev" not in end)]
    theirs = model["rnn"].get_weight()
    for end, part in zip(ends, layer._quantized.directions, strict=True):
        assert part.w is not None
        for digits, key in ((part.w, f"weight_ih{end}"), (part.u, f"weight_hh{end}")):
            tensor = theirs[key]
            assert_same_bits(digits.digits[0], tensor.int_repr().numpy())
            scales = tensor.q_per_channel_scales() if channels else tensor.q_scale()
            expected = np.broadcast_to(np.float32(scales), len(digits.units))
            assert_same_bits(digits.units, np.ascontiguousarray(expected))
            assert_same_bits(found.arrays[key], tensor.dequantize().numpy())
        for key in (f"bias_ih{end}", f"bias_hh{end}"):
            assert_same_bits(found.arrays[key], module.state_dict()[key].numpy())
    x = np.random.default_rng(0).normal(size=(20, 3, 12)).astype(np.float32)
    with torch.inference_mode():
        expected, _ = model["rnn"](torch.from_numpy(x))
    y, _ = layer(x)
    off = np.abs(y - expected.numpy()).max()
    assert off <= 0.03
    assert np.abs(found.build(dequantize=True)(x)[0] - y).max() <= 0.03


def test_two_rows_of_equal_sizes_are_two_layers_and_told(tmp_path: Path) -> None:
    for module in (torch.nn.LSTM(5, 5, 2), torch.nn.LSTM(5, 5, bidirectional=True)):
        path = saved(tmp_path / "m.pt", quantised(module).state_dict())
        with pytest.warns(weights.AssumptionWarning, match="two layers are assumed"):
            layer = fastlstm.load(path)
        assert (layer.num_layers, layer.num_directions) == (2, 1)


def test_a_module_by_itself_and_in_a_checkpoint(tmp_path: Path) -> None:
    model = quantised(torch.nn.LSTM(3, 5))
    found = only(saved(tmp_path / "m.pt", model["rnn"].state_dict()))
    assert (found.name, found.bits) == ("", 8)
    found = only(saved(tmp_path / "c.pt", {"epoch": 3, "state_dict": model.state_dict()}))
    assert (found.name, found.bits) == ("state_dict.rnn", 8)


@pytest.mark.parametrize("cell", [False, True])
def test_float16_becomes_float32(tmp_path: Path, cell: bool) -> None:
    """Of dtype=torch.float16 the weights are floats, rounded to half precision."""
    kind = torch.nn.LSTMCell if cell else torch.nn.LSTM
    module = kind(3, 5)
    model = quantised(module, kind, dtype=torch.float16)
    found = only(saved(tmp_path / "m.pt", model.state_dict()))
    assert found.bits is None
    layer = found.build()
    for key, array in layer.state_dict().items():
        exact = module.state_dict()[key.removesuffix("_l0") if cell else key].numpy()
        rounded = exact if "bias" in key else exact.astype(np.float16).astype(np.float32)
        assert_same_bits(array, rounded)


def test_cells(tmp_path: Path) -> None:
    module = torch.nn.LSTMCell(12, 16)
    model = quantised(module, torch.nn.LSTMCell)
    found = only(saved(tmp_path / "m.pt", model.state_dict()))
    assert (found.kind, found.bits) == ("PyTorch LSTMCell", 8)
    x = np.random.default_rng(0).normal(size=(1, 2, 12)).astype(np.float32)
    with torch.inference_mode():
        h, _ = model["rnn"](torch.from_numpy(x[0]))
    assert np.abs(found.build()(x)[0] - h.numpy()).max() <= 0.02


def test_a_gru_is_none(tmp_path: Path) -> None:
    model = quantised(torch.nn.GRU(3, 5), torch.nn.GRU)
    contents = pytorch.read(saved(tmp_path / "m.pt", model.state_dict()))
    assert not contents.layers
    assert "3 gates of 5 units" in contents.others[0].what


def state_with(**tensors: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    return torch.nn.LSTM(6, 5).state_dict() | tensors


def in_8_bits(array: Any, zero: int = 0, dtype: Any = torch.qint8) -> Any:
    return torch.quantize_per_tensor(array, 0.01, zero, dtype)


def test_quantised_tensors_by_the_names_of_an_lstm(tmp_path: Path) -> None:
    W, U = (state_with()[f"weight_{end}_l0"] for end in ("ih", "hh"))
    for state in (
        state_with(weight_ih_l0=in_8_bits(W), weight_hh_l0=in_8_bits(U)),
        state_with(weight_hh_l0=in_8_bits(U)),  # W stays in float32
        state_with(
            weight_ih_l0=in_8_bits(W, 128, torch.quint8),
            weight_hh_l0=torch.quantize_per_channel(
                U, torch.full((20,), 0.01), torch.zeros(20, dtype=torch.long), 0, torch.qint8
            ),
        ),
    ):
        found = only(saved(tmp_path / "m.pt", state))
        assert found.bits == 8
        for key, value in state.items():
            floats = value.dequantize() if value.is_quantized else value
            assert_same_bits(found.arrays[key], floats.numpy())
            assert_same_bits(found.build().state_dict()[key], floats.numpy())


def test_what_does_not_fit_is_widened(tmp_path: Path) -> None:
    W, U = (state_with()[f"weight_{end}_l0"] for end in ("ih", "hh"))
    cases = {
        "weight_hh_l0 has integers from": {"weight_hh_l0": in_8_bits(4 * U, 30, torch.quint8)},
        "weight_hh_l0 is of floats": {"weight_ih_l0": in_8_bits(W)},
    }
    for reason, tensors in cases.items():
        found = only(saved(tmp_path / "m.pt", state_with(**tensors)))
        assert found.bits is None
        assert f"its weights of 8 bits became float32: {reason}" in found.widened
        with pytest.warns(UserWarning, match="became float32"):
            assert fastlstm.load(tmp_path / "m.pt").bits is None


def test_other_quantised_tensors_are_not_read(tmp_path: Path) -> None:
    """Those of other names, of other axes, and of more bits."""
    U = state_with()["weight_hh_l0"]
    ones = torch.ones(5), torch.zeros(5, dtype=torch.long)
    state = {
        "other": in_8_bits(U),
        "a.weight_hh_l0": torch.quantize_per_channel(U, *ones, 1, torch.qint8),
        "b.weight_hh_l0": in_8_bits(U, 0, torch.qint32),
    }
    contents = pytorch.read(saved(tmp_path / "m.pt", state))
    assert not contents.layers
    assert {each.name: each.what for each in contents.others} == dict.fromkeys(
        state, "quantized tensor"
    )


# Hostile files


def script(kind: str, state: bytes) -> bytes:
    body = items(state, text(f"__torch__.torch.classes.{kind}"))
    return name("torch", "ScriptObject") + b")\x81" + body + b"b"


@pytest.mark.parametrize(
    "body",
    [
        script("rnn.CellParamsBase", b")"),
        script("rnn.CellParamsBase", b"N"),
        script("rnn.CellParamsBase", items(text("quantized_dynamic"), b"]", b"]", b"]", b"]")),
        script("quantized.LinearPackedParamsBase", items(b"N", b"N")),
        script("quantized.LinearPackedParamsBase", items(integer(1), integer(2))),
        script("quantized.Conv2dPackedParamsBase", items(b"N", b"N")),
        name("torch", "ScriptObject") + b")\x81",
        name("torch", "ScriptObject") + b")\x81" + integer(3) + b"b",
    ],
)
def test_other_objects_are_passed_over(tmp_path: Path, body: bytes) -> None:
    state = items(text("x._all_weight_values.0.param"), body)
    path = tmp_path / "m.pt"
    with pytest.raises(ValueError, match=r"holds torch\.ScriptObject, a Python object"):
        pytorch.read(hostile(path, body))
    contents = pytorch.read(hostile(path, b"}(" + state[1:-1] + b"u"))
    (other,) = contents.others
    assert other.what == "torch.ScriptObject, passed over"


def test_cells_inside_each_other_end(tmp_path: Path) -> None:
    """However deep, and however often: 2^2000 ways through it."""
    inner = b"N"
    body = b""
    for number in range(2000):
        twice = b"]" + items(inner, inner)[:-1] + b"e"
        state = items(text("quantized_dynamic"), b"]", b"]", b"]", twice)
        body += script("rnn.CellParamsBase", state) + b"r" + struct.pack("<I", number) + b"0"
        inner = b"j" + struct.pack("<I", number)
    with pytest.raises(ValueError, match=r"holds torch\.ScriptObject, a Python object"):
        pytorch.read(hostile(tmp_path / "m.pt", body + inner))


def affine(scale: float = 0.5, zero: int = 0) -> bytes:
    number = b"G" + struct.pack(">d", scale)
    return items(name("torch", "per_tensor_affine"), number, integer(zero))


def channels(scales: bytes, zeros: bytes, axis: int = 0) -> bytes:
    return items(name("torch", "per_channel_affine"), scales, zeros, integer(axis))


def of_storage(key: str, count: int, kind: str, *shape: int) -> bytes:
    kinds = name("torch", f"{kind}Storage")
    stride = (1,) if len(shape) == 1 else (shape[1], 1)
    return tensor(storage(text(key), count, kinds), 0, shape, stride)


def quantised_tensor(how: bytes, count: int = 4, shape: tuple[int, int] = (4, 1)) -> bytes:
    of = storage(text("1"), count, name("torch", "QInt8Storage"))
    sizes = [items(*map(integer, values)) for values in (shape, (1, 1))]
    hooks = name("collections", "OrderedDict") + b")R"
    rebuild = name("torch._utils", "_rebuild_qtensor")
    return rebuild + items(of, integer(0), *sizes, how, b"\x89", hooks) + b"R"


def state_of(matrix: bytes, times: int = 1) -> bytes:
    """A state dict of an LSTM of one unit without biases, or of many of them."""
    entries = [
        text(f"{number}.{key}") + matrix
        for number in range(times)
        for key in ("weight_ih_l0", "weight_hh_l0")
    ]
    return b"}(" + b"".join(entries) + b"u"


#: Integers, scales and zero points of the tensors.
MEMBERS = {
    "m/data/1": bytes([1, 2, 127, 128]),
    "m/data/2": np.arange(1, 5, dtype="<f8").tobytes(),
    "m/data/3": np.array([0, 1, -1, 2**40], "<i8").tobytes(),
}

SCALES, ZEROS = of_storage("2", 4, "Double", 4), of_storage("3", 4, "Long", 4)
FEW, WIDE = of_storage("2", 4, "Double", 3), of_storage("3", 4, "Long", 4, 1)


def test_a_sound_one_by_hand(tmp_path: Path) -> None:
    path = hostile(tmp_path / "m.pt", state_of(quantised_tensor(affine())), **MEMBERS)
    layer = fastlstm.load(path, "0")
    assert layer.bits == 8
    np.testing.assert_array_equal(layer.parameters, [0.5, 1, 63.5, -64] * 2)


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (quantised_tensor(affine(), count=5), "holds 4 bytes, expected 5"),
        (quantised_tensor(affine(), shape=(5, 1)), "beyond its storage"),
        (quantised_tensor(affine(zero=256)), "zero point is none of 8 bits"),
        (quantised_tensor(affine(zero=-(2**62))), "zero point is none of 8 bits"),
        (quantised_tensor(affine(zero=-(2**63))), "zero point is none of 8 bits"),
        (quantised_tensor(affine(zero=2**70)), "scales don't fit it"),
        (quantised_tensor(channels(SCALES, ZEROS)), "zero point is none of 8 bits"),
        (quantised_tensor(channels(FEW, ZEROS)), "scales don't fit it"),
        (quantised_tensor(channels(SCALES, SCALES)), "scales don't fit it"),
        (quantised_tensor(channels(ZEROS, ZEROS)), "scales don't fit it"),
        (quantised_tensor(channels(SCALES, WIDE)), "scales don't fit it"),
    ],
)
def test_damaged_tensors(tmp_path: Path, matrix: bytes, reason: str) -> None:
    path = hostile(tmp_path / "m.pt", state_of(matrix), **MEMBERS)
    with pytest.raises(ValueError, match=rf"m\.pt: 0\.weight_ih_l0: .*{reason}"):
        pytorch.read(path)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (affine(scale=float("nan")), "weight_ih_l0.units: got nan"),
        (affine(scale=1e300), "weight_ih_l0.units: got inf"),
        (affine(scale=-1.0), "weight_ih_l0.units: got -1.0"),
        (affine(zero=100), "weight_ih_l0 has integers from -228 to 27"),
    ],
)
def test_scales_that_fit_no_digits(tmp_path: Path, how: bytes, expected: str) -> None:
    path = hostile(tmp_path / "m.pt", state_of(quantised_tensor(how)), **MEMBERS)
    found = pytorch.read(path).choose("0")
    assert found.bits is None
    assert expected in found.widened


@pytest.mark.parametrize(
    "how",
    [
        b"N",
        items(name("torch", "per_tensor_affine"), integer(1), integer(0)),
        items(name("torch", "per_tensor_affine")),
        items(name("torch", "per_channel_affine_float_qparams"), SCALES, SCALES, integer(0)),
        channels(SCALES, ZEROS, axis=1),
        channels(SCALES, ZEROS, axis=-1),
    ],
)
def test_scales_of_other_kinds(tmp_path: Path, how: bytes) -> None:
    path = hostile(tmp_path / "m.pt", state_of(quantised_tensor(how)), **MEMBERS)
    contents = pytorch.read(path)
    assert not contents.layers
    assert {each.what for each in contents.others} == {"quantized tensor"}


def test_numbers_that_are_shared_by_many(tmp_path: Path) -> None:
    """What is made of a few bytes is bounded, whatever names there are for them."""
    rows = 2**16
    numbers = {**MEMBERS, "m/data/1": bytes(rows)}
    matrix = quantised_tensor(affine(), count=rows, shape=(rows, 1))
    path = hostile(tmp_path / "m.pt", state_of(matrix, times=100), **numbers)
    with pytest.raises(ValueError, match="shares its numbers with too many"):
        pytorch.read(path)

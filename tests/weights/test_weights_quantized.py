"""Layers of 8, 16 and 24 bits in this package's own files: every digit, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, weights
from fastlstm.reference.digits import MOST_TERMS
from fastlstm.weights import native, npz, safetensors
from fastlstm.weights.contents import Head
from support.arrays import assert_same_bits
from support.layers import results
from support.optional import require
from support.quantized_files import assert_same_digits, in_bits

BITS = (8, 16, 24)

SUFFIXES = (".npz", ".safetensors")


def file_of(tmp_path: Path, suffix: str) -> Path:
    if suffix == ".safetensors":
        require("safetensors")
    return tmp_path / f"m{suffix}"


LAYERS = {
    "plain": lambda: LSTM(20, 6, 2, seed=1),
    "both": lambda: BiLSTM(3, 5, 2, merge_mode="sum", batch_first=True, seed=2),
    "no bias": lambda: LSTM(4, 3, bias=False, seed=3),
    "projection": lambda: BiLSTM(5, 6, 2, proj_size=4, seed=4),
    "coupled": lambda: LSTM(3, 4, peepholes=True, coupled_gates=True, clip=3.0, seed=5),
    "normalised": lambda: LSTM(4, 6, 2, layer_norm=True, cell_clip=2.5, reverse=True, seed=6),
}

INPUTS: tuple[dict[str, bool], ...] = ({}, {"factors": True}, {"float_input": True})


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_files_keep_every_digit(tmp_path: Path, suffix: str, bits: int, layer: Any) -> None:
    path, plain = file_of(tmp_path, suffix), layer()
    for options in INPUTS:
        quantized = in_bits(plain, bits, **options)
        fastlstm.save(quantized, path, overwrite=True)
        loaded = fastlstm.load(path)
        assert_same_digits(loaded, quantized)
        x = np.random.default_rng(0).normal(size=(3, 4, plain.input_size)).astype(np.float32)
        for got, expected in zip(results(loaded(x)), results(quantized(x)), strict=True):
            assert_same_bits(got, expected)
        again = tmp_path / f"again{suffix}"
        fastlstm.save(loaded, again, overwrite=True)
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bits", BITS)
def test_head_and_state_are_float32(tmp_path: Path, suffix: str, bits: int) -> None:
    path, layer = file_of(tmp_path, suffix), in_bits(LSTM(3, 5, seed=1), bits)
    rng = np.random.default_rng(1)
    head = Head(*(rng.normal(size=shape).astype(np.float32) for shape in ((2, 5), (2,))))
    state = (np.full((1, 5), 0.5, np.float32), np.full((1, 5), -2, np.float32))
    fastlstm.save(layer, path, head=head, state=state)
    found = weights.read(path).choose()
    assert found.bits == bits
    assert_same_digits(found.build(), layer)
    assert found.head is not None
    assert found.state is not None
    assert_same_bits(found.head.weight, head.weight)
    assert_same_bits(found.state[1], state[1])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bits", BITS)
def test_a_file_has_a_part_of_the_size(tmp_path: Path, suffix: str, bits: int) -> None:
    """A quarter, half and three quarters: and units, biases and the text of a few kilobytes."""
    plain, path = LSTM(128, 128, 2, seed=1), file_of(tmp_path, suffix)
    fastlstm.save(plain, path)
    of_floats = path.stat().st_size
    fastlstm.save(in_bits(plain, bits), path, overwrite=True)
    assert abs(path.stat().st_size / of_floats - bits / 32) < 0.025


def test_files_of_floats_are_as_they_were(tmp_path: Path) -> None:
    """Version 1, which older versions read; version 2 is what they refuse by name."""
    fastlstm.save(LSTM(3, 5, seed=1), tmp_path / "floats.npz")
    fastlstm.save(in_bits(LSTM(3, 5, seed=1), 8), tmp_path / "digits.npz")
    texts = [
        json.loads(str(npz.read_npz(tmp_path / f"{name}.npz")[native.KEY]))
        for name in ("floats", "digits")
    ]
    assert [text["version"] for text in texts] == [1, 2]
    assert [text.get("bits") for text in texts] == [None, 8]
    assert texts[0]["options"] == texts[1]["options"]


@pytest.mark.parametrize("bits", BITS)
def test_dequantize_gives_what_the_digits_stand_for(tmp_path: Path, bits: int) -> None:
    path, layer = tmp_path / "m.npz", in_bits(LSTM(20, 5, 2, seed=1), bits, factors=True)
    fastlstm.save(layer, path)
    floats = fastlstm.load(path, dequantize=True)
    assert floats.bits is None
    assert_same_bits(floats.parameters, layer.parameters)
    wide = fastlstm.load(path, dequantize=True, dtype="float64")
    assert_same_bits(wide.parameters, layer.parameters.astype(np.float64))
    assert fastlstm.load(path, dtype="float32").bits == bits
    with pytest.raises(ValueError, match=rf"dtype: got float64, but a layer of {bits} bits"):
        fastlstm.load(path, dtype="float64")
    with pytest.raises(TypeError, match="dequantize: got 1"):
        fastlstm.load(path, dequantize=1)  # type: ignore[arg-type]


def test_arguments_of_load(tmp_path: Path) -> None:
    path, layer = tmp_path / "m.npz", in_bits(LSTM(20, 5, seed=1), 8)
    fastlstm.save(layer, path)
    loaded = fastlstm.load(path, batch_first=True, isa="scalar")
    assert (loaded.batch_first, loaded.isa, loaded.bits) == (True, "scalar", 8)
    x = np.random.default_rng(0).normal(size=(3, 4, 20)).astype(np.float32)
    assert_same_bits(loaded(x)[0].swapaxes(0, 1), layer(x.swapaxes(0, 1))[0])
    with pytest.raises(ValueError, match="isa"):
        fastlstm.load(path, isa="no such")


def test_contents_say_the_bits(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    fastlstm.save(in_bits(LSTM(3, 5, seed=1), 16), path)
    contents = weights.read(path)
    found = contents.choose()
    assert str(found) == "(unnamed): LSTM 3 -> 5, 16 bits"
    assert (found.bits, found.kind, contents.others) == (16, "fastlstm LSTM", ())
    assert {name: array.dtype for name, array in found.arrays.items()} == dict.fromkeys(
        ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), np.dtype(np.float32)
    )


@pytest.mark.parametrize("suffix", [".pt", ".keras", ".h5", ".onnx"])
@pytest.mark.parametrize("bits", BITS)
def test_other_formats_refuse_them(tmp_path: Path, suffix: str, bits: int) -> None:
    if (suffix, bits) == (".onnx", 8):
        return
    path = tmp_path / f"m{suffix}"
    able = r"\.npz, \.safetensors, \.onnx" if bits == 8 else r"\.npz, \.safetensors"
    with pytest.raises(
        ValueError, match=rf"^layer: its {bits} bits .* saved as .*\{suffix}.*, but as {able};"
    ):
        fastlstm.save(in_bits(LSTM(3, 5, seed=1), bits), path)
    assert not path.exists()


def test_units_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    plain = LSTM(3, 5, seed=1)
    vector = plain.parameters.copy()
    vector[70] = np.nan
    plain.load_parameters(vector)
    with pytest.raises(ValueError, match=r"weight_hh_l0\.units: got nan, expected positive"):
        fastlstm.save(in_bits(plain, 8), tmp_path / "m.npz")


def test_of_data_with_factors(tmp_path: Path) -> None:
    """As `fastlstm.quantize` makes them, factors of x and all."""
    features = np.geomspace(0.01, 100, 30).astype(np.float32)
    x = np.random.default_rng(0).normal(size=(50, 2, 30)).astype(np.float32) * features
    layer = fastlstm.quantize(LSTM(30, 8, 2, seed=1), 8, x)
    assert layer._quantized is not None
    assert layer._quantized.directions[0].x_multipliers is not None
    fastlstm.save(layer, tmp_path / "m.npz")
    loaded = fastlstm.load(tmp_path / "m.npz")
    assert_same_digits(loaded, layer)
    assert_same_bits(loaded(x)[0], layer(x)[0])


@pytest.mark.filterwarnings("ignore:.*")
def test_keras_leaves_lstms_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Model.quantize` is of other layers, so there is nothing of 8 bits to be read."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = require("keras")
    layers = [keras.layers.LSTM(4, return_sequences=True), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((None, 3)), *layers])
    model.quantize("int8")
    assert [weight.dtype for weight in layers[0].weights] == ["float32"] * 3
    assert "int8" in [weight.dtype for weight in layers[1].weights]
    model.save(tmp_path / "m.keras")
    found = weights.read(tmp_path / "m.keras").choose()
    assert found.bits is None
    np.testing.assert_array_equal(found.arrays["weight_hh_l0"], layers[0].get_weights()[1].T)


# Hostile files


def parts_of(tmp_path: Path, layer: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    fastlstm.save(layer, tmp_path / "sound.npz", overwrite=True)
    arrays = npz.read_npz(tmp_path / "sound.npz")
    return arrays, json.loads(str(arrays.pop(native.KEY)))


def reason(tmp_path: Path, arrays: dict[str, np.ndarray], text: dict[str, Any]) -> str:
    """Why the file has no LSTM that can be run; the same of both formats."""
    path = tmp_path / "m.npz"
    npz.write_npz(path, {native.KEY: np.array(json.dumps(text)), **arrays})
    contents = weights.read(path)
    assert not contents.layers
    (refused,) = contents.refused
    with pytest.raises(ValueError, match="can be run"):
        fastlstm.load(path)
    return refused.reason


def one(array: np.ndarray, value: Any) -> np.ndarray:
    changed = array.copy()
    changed.flat[1] = value
    return changed


DAMAGES: dict[str, tuple[str, Any, str]] = {
    "missing digits": ("weight_hh_l0.digits", None, "weight_hh_l0.digits missing for an LSTM of"),
    "missing units": ("weight_ih_l0.units", None, "weight_ih_l0.units missing for an LSTM of"),
    "missing bias": ("bias_hh_l0", None, "bias_hh_l0 missing for an LSTM of 1 layer, bias in 16"),
    "no planes": ("weight_hh_l0.digits", lambda a: a[0], "weight_hh_l0.digits must be int8 of"),
    "one plane": ("weight_hh_l0.digits", lambda a: a[:1], "of shape (2, 20, 5), got int8 (1, 20"),
    "a row less": ("weight_hh_l0.digits", lambda a: a[:, 1:], "weight_hh_l0.digits must be int8"),
    "turned": ("weight_ih_l0.digits", lambda a: a.swapaxes(1, 2), "weight_ih_l0.digits must be"),
    "unsigned": ("weight_hh_l0.digits", lambda a: a.view(np.uint8), "of shape (2, 20, 5), got uin"),
    "floats": ("weight_hh_l0.digits", lambda a: a.astype(np.float32), "got float32 (2, 20, 5)"),
    "a unit for all": ("weight_hh_l0.units", lambda a: a[0], "must be float32 of shape (20,), got"),
    "wide units": ("weight_hh_l0.units", lambda a: a.astype(float), "got float64 (20,)"),
    "NaN": (
        "weight_hh_l0.units",
        lambda a: one(a, np.nan),
        "weight_hh_l0.units: got nan, expected",
    ),
    "infinite": ("weight_hh_l0.units", lambda a: one(a, np.inf), "weight_hh_l0.units: got inf"),
    "negative": ("weight_ih_l0.units", lambda a: one(a, -1), "weight_ih_l0.units: got -1.0"),
    "denormal": ("weight_ih_l0.units", lambda a: one(a, 1e-40), "expected positive, finite and"),
    "half": ("bias_ih_l0", lambda a: a.astype(np.float16), "bias_ih_l0 must be float32 of shape"),
    "bias of another": ("bias_ih_l0", lambda a: a[1:], "got float32 (19,)"),
    "zero factor": ("x_multipliers_l0", lambda a: one(a, 0), "x_multipliers_l0: got 0.0"),
    "huge factor": ("x_multipliers_l0", lambda a: one(a, 3e38), "expected positive, finite and"),
    "few factors": ("x_multipliers_l0", lambda a: a[1:], "x_multipliers_l0 must be float32 of"),
}


@pytest.mark.parametrize(("name", "damage", "expected"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_parameters(tmp_path: Path, name: str, damage: Any, expected: str) -> None:
    arrays, text = parts_of(tmp_path, in_bits(LSTM(3, 5, seed=1), 16, factors=True))
    if damage is None:
        del arrays[name]
    else:
        arrays[name] = damage(arrays[name])
    assert expected in reason(tmp_path, arrays, text)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("weight_hh_l0", "weight_hh_l0 not expected of an LSTM of 1 layer, bias in 8 bits"),
        ("weight_ih_l0", "weight_ih_l0.digits, weight_ih_l0.units not expected"),
        ("weight_ih_l1.digits", "weight_ih_l1.digits not expected"),
        ("bias_ih_l0.units", "bias_ih_l0.units not expected"),
        ("x_multipliers_l3", "x_multipliers_l3 not expected"),
    ],
)
def test_more_than_there_should_be(tmp_path: Path, more: str, expected: str) -> None:
    plain = LSTM(3, 5, seed=1)
    arrays, text = parts_of(tmp_path, in_bits(plain, 8))
    arrays[more] = plain.state_dict().get(more, np.ones(3, np.float32))
    assert expected in reason(tmp_path, arrays, text)


@pytest.mark.parametrize("bits", [0, 4, 32, 8.0, "8", None, True, [8], 10**400])
def test_bits_that_there_are_not(tmp_path: Path, bits: Any) -> None:
    arrays, text = parts_of(tmp_path, in_bits(LSTM(3, 5, seed=1), 8))
    assert reason(tmp_path, arrays, text | {"bits": bits}).startswith("damaged options: bits is")


@pytest.mark.parametrize("bits", [16, 24])
def test_bits_of_another_number_of_planes(tmp_path: Path, bits: int) -> None:
    arrays, text = parts_of(tmp_path, in_bits(LSTM(3, 5, seed=1), 8))
    assert f"of shape ({bits // 8}, 20, 3), got int8" in reason(
        tmp_path, arrays, text | {"bits": bits}
    )


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"hidden_size": 6}, {"num_layers": 2}])
def test_options_of_another_layer(tmp_path: Path, options: dict[str, Any]) -> None:
    arrays, text = parts_of(tmp_path, in_bits(LSTM(3, 5, seed=1), 8))
    text["options"] |= options
    assert reason(tmp_path, arrays, text)


@pytest.mark.parametrize("bits", BITS)
def test_more_columns_than_sums_have_room_for(tmp_path: Path, bits: int) -> None:
    size, n = MOST_TERMS[bits] + 1, bits // 8
    arrays, text = parts_of(tmp_path, in_bits(LSTM(3, 1, seed=1), bits))
    arrays["weight_ih_l0.digits"] = np.ones((n, 4, size), np.int8)
    text["options"]["input_size"] = size
    assert f"has {size} columns, at most {size - 1}" in reason(tmp_path, arrays, text)


@pytest.mark.parametrize("version", [1, 3, 5])
def test_versions(tmp_path: Path, version: int) -> None:
    arrays, text = parts_of(tmp_path, in_bits(LSTM(3, 5, seed=1), 8))
    path = tmp_path / "m.npz"
    npz.write_npz(path, {native.KEY: np.array(json.dumps(text | {"version": version})), **arrays})
    later = r"later fastlstm \(version 5 .* up to 4"
    expected = later if version == 5 else rf"bits in version {version}"
    with pytest.raises(ValueError, match=expected):
        weights.read(path)
    del text["bits"]
    npz.write_npz(path, {native.KEY: np.array(json.dumps(text)), **arrays})
    with pytest.raises(ValueError, match="damaged: bits in version 2"):
        weights.read(path)


def test_digits_without_the_text_are_no_lstm(tmp_path: Path) -> None:
    arrays, _ = parts_of(tmp_path, in_bits(LSTM(3, 5, seed=1), 8))
    npz.write_npz(tmp_path / "m.npz", {n: a for n, a in arrays.items() if "bias" not in n})
    with pytest.raises(ValueError, match=r"holds no LSTM, but weight_ih_l0\.digits"):
        fastlstm.load(tmp_path / "m.npz")


def test_safetensors_are_checked_as_well(tmp_path: Path) -> None:
    path, numpy_api = file_of(tmp_path, ".safetensors"), require("safetensors.numpy")
    fastlstm.save(in_bits(LSTM(3, 5, seed=1), 8), path)
    arrays, texts = safetensors.read_safetensors(path)
    arrays["weight_hh_l0.units"][3] = np.inf
    path.write_bytes(numpy_api.save(arrays, texts))
    (refused,) = weights.read(path).refused
    assert refused.reason.startswith("weight_hh_l0.units: got inf")

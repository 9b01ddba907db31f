"""Audio models in JSON: RTNeural's, NAM's and GuitarML's, against the equations of their files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import cli, weights
from fastlstm.weights import Found
from fastlstm.weights.verify import compare

Json = dict[str, Any]


def numbers(rng: np.random.Generator, *shape: int) -> Any:
    return rng.normal(scale=0.7, size=shape).astype(np.float32).tolist()


def written(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def read(path: Path, document: Any) -> weights.Contents:
    return weights.read(written(path, document))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def played(found: Found, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Run what was read sample by sample, as a plugin does: (T, I) to (T, N)."""
    stream = found.build().stream()
    if found.state is not None:
        stream.state = found.state
    hidden = np.stack([stream.step(x_t).copy() for x_t in x])
    if found.head is None:
        return hidden
    return hidden @ found.head.weight.T + found.head.bias


# NAM


def nam(I: int, H: int, L: int, N: int = 1, seed: int = 0, **options: Any) -> Json:
    count = sum(4 * H * ((H if layer else I) + H) + 6 * H for layer in range(L)) + N * (H + 1)
    config = {"input_size": I, "hidden_size": H, "num_layers": L}
    if N != 1:
        config |= {"in_channels": I, "out_channels": N}
    return {
        "version": "0.5.4",
        "architecture": "LSTM",
        "config": config,
        "weights": numbers(np.random.default_rng(seed), count),
        **options,
    }


def nam_by_its_equations(model: Json, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Take the numbers one after the other, and compute each sample in double precision."""
    rest: Iterator[float] = iter(model["weights"])

    def take(*shape: int) -> np.ndarray[Any, Any]:
        return np.array([next(rest) for _ in range(math.prod(shape))]).reshape(shape)

    config = model["config"]
    I, H, L = config["input_size"], config["hidden_size"], config["num_layers"]
    layers = []
    for layer in range(L):
        width = (H if layer else I) + H
        layers.append([take(4 * H, width), take(4 * H), take(H), take(H)])
    N = config.get("out_channels", 1)
    weight, bias = take(N, H), take(N)
    assert next(rest, None) is None
    y = []
    for sample in x:
        below = sample
        for layer in layers:
            W, b, h, c = layer
            i, f, g, o = np.split(W @ np.concatenate([below, h]) + b, 4)
            layer[3] = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            layer[2] = below = sigmoid(o) * np.tanh(layer[3])
        y.append(weight @ below + bias)
    return np.array(y)


@pytest.mark.parametrize(("I", "H", "L", "N"), [(1, 3, 1, 1), (1, 16, 2, 1), (2, 5, 3, 4)])
def test_nam(I: int, H: int, L: int, N: int, tmp_path: Path) -> None:
    model = nam(I, H, L, N)
    contents = read(tmp_path / "amp.nam", model)
    assert contents.format == "NAM"
    found = contents.choose()
    x = np.random.default_rng(1).normal(size=(200, I)).astype(np.float32)
    expected = nam_by_its_equations(model, x)
    np.testing.assert_allclose(played(found, x), expected, atol=5e-6)
    whole, _ = found.build()(x, found.state)
    assert found.head is not None
    np.testing.assert_allclose(whole @ found.head.weight.T + found.head.bias, expected, atol=5e-6)
    comparison = compare(contents, found)
    assert comparison.agrees
    assert "reference" not in comparison.against


def test_nam_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nam(1, 4, 2, sample_rate=48000, metadata={"name": "a\nb", "gain": 0.5, "date": {}})
    path = written(tmp_path / "amp.nam", model)
    x = np.random.default_rng(1).normal(size=(50, 1)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert cli.main(["run", str(path), str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npy")]) == 0
    expected = nam_by_its_equations(model, x)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=5e-6)
    assert cli.main(["convert", str(path), str(tmp_path / "amp.npz")]) == 0
    converted = weights.read(tmp_path / "amp.npz").choose()
    np.testing.assert_allclose(played(converted, x), expected, atol=5e-6)
    capsys.readouterr()
    assert cli.main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "note: sample_rate 48000\n" in printed
    assert "note: metadata: name a\\nb, gain 0.5\n" in printed
    assert cli.main(["verify", str(path)]) == 0


def test_nam_containers(tmp_path: Path) -> None:
    small, large = nam(1, 2, 1, seed=1), nam(1, 6, 1, seed=2)
    submodels = [
        {"max_value": 0.3, "model": small},
        {"max_value": 0.6, "model": {**nam(1, 2, 1), "architecture": "WaveNet"}},
        {"max_value": 1.0, "model": large},
    ]
    container = {
        "version": "0.7.0",
        "architecture": "SlimmableContainer",
        "config": {"submodels": submodels},
        "weights": [],
    }
    contents = read(tmp_path / "amp.nam", container)
    assert [each.name for each in contents.layers] == ["submodels.0", "submodels.2"]
    assert [each.name for each in contents.others] == ["submodels.1"]
    x = np.random.default_rng(1).normal(size=(50, 1)).astype(np.float32)
    for name, model in (("submodels.0", small), ("submodels.2", large)):
        found = contents.choose(name)
        np.testing.assert_allclose(played(found, x), nam_by_its_equations(model, x), atol=5e-6)
        assert compare(contents, found).agrees
    with pytest.raises(ValueError, match="2 LSTMs, choose one"):
        contents.choose()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architecture": "WaveNet"}, r"holds no LSTM, but WaveNet"),
        ({"version": "0.8.0"}, r"version 0\.8\.0 of the format is not known"),
        ({"version": "0.4.9"}, r"version 0\.4\.9"),
        ({"version": "1.5.0"}, r"version 1\.5\.0"),
        ({"version": "next"}, r"version: got 'next'"),
        ({"version": 0.5}, r"version: got a number, expected a text"),
        ({"weights": [0.0] * 69}, r"weights has 69 numbers, but 1 layers of 3 .* take 70"),
        ({"weights": [0.0] * 71}, r"weights has 71 numbers"),
        ({"weights": [0.0] * 69 + [1e39]}, r"weights: got a number that float32 has not"),
        ({"weights": [0.0] * 69 + [10**400]}, r"weights: got a number that float32 has not"),
        ({"weights": [0.0] * 69 + [True]}, r"weights: got a flag in it"),
        ({"weights": [0.0] * 69 + ["0"]}, r"weights: got a text in it"),
        ({"weights": {}}, r"weights: got an object, expected a list"),
        ({"config": []}, r"config: got a list, expected an object"),
        ({"config": {"hidden_size": 3}}, r"input_size: got nothing"),
        ({"config": {"input_size": 1, "hidden_size": 3, "num_layers": 0}}, r"num_layers: got 0"),
        ({"config": {"input_size": 1.0, "hidden_size": 3, "num_layers": 1}}, r"input_size: got 1"),
        ({"config": {"input_size": 10**99, "hidden_size": 3, "num_layers": 1}}, r"input_size: got"),
        (
            {"config": {"input_size": 2, "hidden_size": 3, "num_layers": 1, "in_channels": 1}},
            r"in_channels is 1, but input_size 2",
        ),
    ],
)
def test_nam_that_is_wrong(change: Json, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path / "amp.nam", {**nam(1, 3, 1), **change})
    with pytest.raises(ValueError, match=rf"^{path}: .*{reason}"):
        fastlstm.load(path)


# RTNeural


def rtneural(*layers: Json, I: int = 1, **options: Any) -> Json:
    return {"in_shape": [None, None, I], "layers": list(layers), **options}


def lstm_layer(I: int, H: int, seed: int, *, bias: bool = True, activation: str = "tanh") -> Json:
    rng = np.random.default_rng(seed)
    arrays = [numbers(rng, I, 4 * H), numbers(rng, H, 4 * H), numbers(rng, 4 * H)]
    return {
        "type": "lstm",
        "activation": activation,
        "shape": [None, None, H],
        "weights": arrays[: 2 + bias],
    }


def dense_layer(H: int, N: int, kind: str = "dense", activation: str = "") -> Json:
    rng = np.random.default_rng(9)
    return {
        "type": kind,
        "activation": activation,
        "shape": [None, None, N],
        "weights": [numbers(rng, H, N), numbers(rng, N)],
    }


UNKNOWN = {"type": "unknown", "activation": "", "shape": [None, None, 5], "weights": []}


def rtneural_by_its_equations(layers: list[Json], x: np.ndarray[Any, Any]) -> Any:
    """Run "lstm" and "dense" one after the other in double precision."""
    y: Any = x
    for layer in layers:
        kernel, *others = [np.array(each) for each in layer["weights"]]
        if layer["type"] != "lstm":
            y = y @ kernel + others[0]
            continue
        H = len(others[0])
        h, c, steps = np.zeros(H), np.zeros(H), []
        for x_t in y:
            z = x_t @ kernel + h @ others[0] + (others[1] if len(others) > 1 else 0)
            i, f, g, o = z[:H], z[H : 2 * H], z[2 * H : 3 * H], z[3 * H :]
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            steps.append(h)
        y = np.array(steps)
    return y


@pytest.mark.parametrize(
    "layers",
    [
        [lstm_layer(1, 8, 1), dense_layer(8, 1)],
        [lstm_layer(1, 5, 1), lstm_layer(5, 5, 2), lstm_layer(5, 5, 3), dense_layer(5, 2)],
        [lstm_layer(1, 5, 1, bias=False), dense_layer(5, 1, "time-distributed-dense")],
        [lstm_layer(1, 5, 1, activation="")],
        [lstm_layer(1, 5, 1), UNKNOWN, lstm_layer(5, 5, 2), UNKNOWN, dense_layer(5, 1)],
    ],
)
def test_rtneural(layers: list[Json], tmp_path: Path) -> None:
    contents = read(tmp_path / "amp.json", rtneural(*layers))
    assert contents.format == "RTNeural"
    assert contents.others == contents.refused == ()
    found = contents.choose()
    x = np.random.default_rng(1).normal(size=(200, 1)).astype(np.float32)
    known = [layer for layer in layers if layer["type"] != "unknown"]
    np.testing.assert_allclose(played(found, x), rtneural_by_its_equations(known, x), atol=5e-6)
    assert compare(contents, found).agrees
    passed = sum("passed over" in each for each in found.assumptions)
    assert passed == len(layers) - len(known)
    for number, part in enumerate(found.parts):
        assert contents.choose(part.name) is part
        alone = rtneural_by_its_equations([known[number]], np.tile(x, part.options["input_size"]))
        np.testing.assert_allclose(
            played(part, np.tile(x, part.options["input_size"])), alone, atol=5e-6
        )


def test_rtneural_layers_of_different_sizes_are_no_stack(tmp_path: Path) -> None:
    """One LSTM has one hidden size."""
    layers = [lstm_layer(1, 8, 1), lstm_layer(8, 4, 2), dense_layer(4, 1)]
    contents = read(tmp_path / "amp.json", rtneural(*layers))
    assert [each.name for each in contents.layers] == ["layers.0", "layers.1"]
    x = np.random.default_rng(1).normal(size=(50, 1)).astype(np.float32)
    below, above = contents.layers
    y = played(above, played(below, x))
    np.testing.assert_allclose(y, rtneural_by_its_equations(layers, x), atol=5e-6)
    assert below.head is None


def test_rtneural_with_more_around(tmp_path: Path) -> None:
    layers = [
        dense_layer(1, 3, activation="tanh"),
        lstm_layer(3, 5, 1),
        dense_layer(5, 4, activation="tanh"),
        {"type": "gru", "activation": "", "shape": [None, None, 4], "weights": [1]},
    ]
    contents = read(tmp_path / "amp.aidax", rtneural(*layers))
    found = contents.choose()
    assert (found.name, found.head) == ("layers.1", None)
    assert [each.name for each in contents.others] == [
        "layers.0 (dense)",
        "layers.2 (dense)",
        "layers.3 (gru)",
    ]
    x = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    np.testing.assert_allclose(
        played(found, x), rtneural_by_its_equations(layers[1:2], x), atol=5e-6
    )
    path = written(tmp_path / "none.json", rtneural(layers[0], layers[3]))
    with pytest.raises(ValueError, match=r"no LSTM, but layers\.0 \(dense\), layers\.1 \(gru\)"):
        fastlstm.load(path)


def test_rtneural_that_adds_its_input(tmp_path: Path) -> None:
    """What the linear layer gives is then not what the model gives: it is not taken for it."""
    layers = [lstm_layer(1, 5, 1), dense_layer(5, 1)]
    plain = read(tmp_path / "a.json", rtneural(*layers, in_skip=0)).choose()
    assert plain.head is not None
    contents = read(tmp_path / "b.json", rtneural(*layers, in_skip=1, in_gain=-3.5))
    found = contents.choose()
    assert found.head is None
    assert [each.name for each in contents.others] == ["layers.1 (dense)"]
    assert any("in_skip" in note for note in found.notes)
    with pytest.warns(weights.AssumptionWarning, match=r"adds its input .*\(in_skip\)"):
        fastlstm.load(tmp_path / "b.json")
    assert any("in_gain -3.5 dB" in note for note in found.notes)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([lstm_layer(1, 5, 1, activation="relu")], r"layers\.0: activation 'relu'"),
        ([{**lstm_layer(1, 5, 1), "shape": [None, None, 4]}], r"no LSTM of 4 units"),
        ([lstm_layer(2, 5, 1)], r"reads 2 numbers, but what is before it gives 1"),
        ([lstm_layer(1, 5, 1), lstm_layer(4, 5, 1)], r"reads 4 numbers.*gives 5"),
        ([lstm_layer(1, 5, 1), dense_layer(4, 1)], r"layers\.1: its arrays are \(4, 1\)"),
        ([{**lstm_layer(1, 5, 1), "weights": []}], r"weights: got 0 arrays"),
        ([{**lstm_layer(1, 5, 1), "weights": [[[1, 2], [3]], [], []]}], r"rows of 1 to 2 numbers"),
        ([{**lstm_layer(1, 5, 1), "weights": [[[1]], [[2]], [None]]}], r"got null in it"),
        ([{"type": 3}], r"layers\.0\.type: got a number, expected a text"),
        ([3], r"layers\.0: expected an object"),
        ([], r"holds no LSTM: it is empty"),
    ],
)
def test_rtneural_that_is_wrong(layers: list[Any], reason: str, tmp_path: Path) -> None:
    path = written(tmp_path / "amp.json", rtneural(*layers))
    with pytest.raises(ValueError, match=rf"^{path}: .*{reason}"):
        weights.read(path).choose("layers.1" if len(layers) > 1 else None)


# State dicts as texts


def state_dict(prefix: str, I: int, H: int, L: int = 1) -> Json:
    rng = np.random.default_rng(3)
    made = {}
    for layer in range(L):
        made[f"{prefix}.weight_ih_l{layer}"] = numbers(rng, 4 * H, H if layer else I)
        made[f"{prefix}.weight_hh_l{layer}"] = numbers(rng, 4 * H, H)
        made[f"{prefix}.bias_ih_l{layer}"] = numbers(rng, 4 * H)
        made[f"{prefix}.bias_hh_l{layer}"] = numbers(rng, 4 * H)
    return made


def as_rtneural(arrays: Json, prefix: str, L: int = 1) -> list[Json]:
    """The same layers as RTNeural lists them: it transposes and adds the biases up."""
    layers = []
    for layer in range(L):
        ih, hh, b, c = (
            np.array(arrays[f"{prefix}.{name}_l{layer}"])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        layers.append({"type": "lstm", "weights": [ih.T, hh.T, b + c]})
    return layers


def test_state_dicts(tmp_path: Path) -> None:
    arrays = state_dict("lstm2", 8, 8, 3) | {
        "dense.weight": numbers(np.random.default_rng(0), 1, 8)
    }
    contents = read(tmp_path / "model.json", arrays)
    assert contents.format == "JSON"
    found = contents.choose()
    x = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    expected = rtneural_by_its_equations(as_rtneural(arrays, "lstm2", 3), x)
    np.testing.assert_allclose(played(found, x), expected, atol=5e-6)
    assert compare(contents, found).agrees
    assert [each.name for each in contents.others] == ["dense.weight"]


@pytest.mark.parametrize("skip", [0, 1])
def test_guitarml(skip: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    head = {"lin.weight": numbers(rng, 1, 5), "lin.bias": numbers(rng, 1)}
    arrays = state_dict("rec", 2, 5) | head
    options = {"model": "SimpleRNN", "unit_type": "LSTM", "input_size": 2, "skip": skip}
    contents = read(tmp_path / "amp.json", {"model_data": options, "state_dict": arrays})
    found = contents.choose()
    x = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    expected = rtneural_by_its_equations(as_rtneural(arrays, "rec"), x)
    if skip:
        assert any("skip" in each for each in found.assumptions)
        assert [each.name for each in contents.others] == ["lin.weight", "lin.bias"]
    else:
        expected = expected @ np.array(head["lin.weight"]).T + head["lin.bias"]
        assert contents.others == ()
    np.testing.assert_allclose(played(found, x), expected, atol=5e-6)
    assert compare(contents, found).agrees


def test_a_gru_is_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"gru.weight_ih_l0": numbers(rng, 15, 1), "gru.weight_hh_l0": numbers(rng, 15, 5)}
    path = written(tmp_path / "gru.json", arrays)
    with pytest.raises(ValueError, match="no LSTM, but gru"):
        fastlstm.load(path)


# Files that nobody vouches for


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "JSON of a list, expected an object"),
        ("{}", 'JSON without "layers"'),
        ('{"weights": NaN, "architecture": "LSTM"}', "NaN is no number"),
        ('{"weights": [-Infinity], "architecture": "LSTM"}', "-Infinity is no number"),
        ('{"layers": [], "layers": []}', "'layers' is there twice"),
        ('{"layers": ' + "[" * 100_000, "nested too deeply|damaged"),
        ('{"layers": ' + '{"a":' * 100_000, "nested too deeply|damaged"),
        ('{"layers": [], "in_shape": [' + "9" * 10_000 + "]}", "in_shape: expected a list"),
        ('{"layers": {}}', "layers: got an object, expected a list"),
        ('{"layers": [], "in_skip": "no"}', "in_skip: expected a number"),
        ('{"state_dict": 3}', "state_dict: got a number"),
        ('{"a": [[1, 2], [3]]}', "a: got rows of 1 to 2 numbers"),
        ('{"a": "\xff"', "damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".nam", ".aidax"])
def test_damaged_json(text: str, reason: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"amp{suffix}"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"^{path}: .*({reason})"):
        weights.read(path)


def test_json_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastlstm.weights.audio import document

    path = written(tmp_path / "amp.nam", nam(1, 3, 1))
    monkeypatch.setattr(document, "LARGEST", path.stat().st_size)
    weights.read(path)
    monkeypatch.setattr(document, "LARGEST", path.stat().st_size - 1)
    with pytest.raises(ValueError, match=rf"^{path}: \d+ bytes of JSON, expected at most"):
        weights.read(path)


@pytest.mark.parametrize("name", ["amp.json", "amp.nam", "amp", "amp.txt"])
@pytest.mark.parametrize("start", ["", "\n  ", "\ufeff"])
def test_the_file_tells_what_it_is(name: str, start: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(start + json.dumps(nam(1, 3, 1)), encoding="utf-8")
    assert weights.read(path).format == "NAM"
    path.write_text(start + json.dumps(rtneural(lstm_layer(1, 5, 1))), encoding="utf-8")
    assert weights.read(path).format == "RTNeural"


@pytest.mark.parametrize("suffix", [".json", ".nam", ".aidax"])
def test_json_is_not_written(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: JSON of audio models is only read$"):
        fastlstm.save(fastlstm.LSTM(1, 3), tmp_path / f"amp{suffix}")

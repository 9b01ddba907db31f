"""inspect, convert, verify, and run over files that hold more than a plain layer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, cli, weights
from support.arrays import assert_same_bits
from support.optional import require


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two.npz (LSTMs "a" and "b.rnn", and an embedding) and x.npy (20, 7, 3)."""
    monkeypatch.chdir(tmp_path)
    arrays = {f"a.{name}": array for name, array in LSTM(3, 5, seed=1).state_dict().items()}
    second = BiLSTM(3, 4, 2, seed=2).state_dict()
    arrays |= {f"b.rnn.{name}": array for name, array in second.items()}
    np.savez("two.npz", **arrays, embedding=np.zeros((7, 3)))  # type: ignore[arg-type]
    np.save("x.npy", np.random.default_rng(0).normal(size=(20, 7, 3)).astype(np.float32))
    return tmp_path


def run(*arguments: str) -> np.ndarray:
    assert cli.main(["run", *arguments, "-o", "y.npy", "--quiet", "--force"]) == 0
    y: np.ndarray = np.load("y.npy")
    return y


# inspect


def test_inspect(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "two.npz"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("two.npz: npz, ")
    for part in ("a: LSTM 3 -> 5", "b.rnn: BiLSTM 3 -> 4, 2 layers", "gates i f g o",
                 "200 parameters", "embedding: float64 (7, 3)"):  # fmt: skip
        assert part in text
    assert cli.main(["inspect", "two.npz", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [found["name"] for found in told["lstms"]] == ["a", "b.rnn"]
    assert told["lstms"][1]["layer"] == "BiLSTM"
    assert told["lstms"][1]["arrays"]["weight_ih_l1_reverse"] == [16, 8]
    assert told["others"] == [{"name": "embedding", "what": "float64 (7, 3)"}]
    layer = LSTM(2, 4, seed=0)
    head = weights.Head(np.ones((3, 4)), np.zeros(3))
    fastlstm.save(layer, "head.npz", head=head, state=(np.ones((1, 4)), np.ones((1, 4))))
    assert cli.main(["inspect", "head.npz"]) == 0
    text = capsys.readouterr().out
    assert "a linear head of 3 outputs" in text
    assert "an initial state" in text


def test_inspect_tells_what_can_not_be_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = dict(LSTM(3, 5, seed=1).state_dict())
    arrays["weight_hh_l0"] = arrays["weight_hh_l0"][:, :4]
    np.savez("bad.npz", **arrays)  # type: ignore[arg-type]
    assert cli.main(["inspect", "bad.npz"]) == 0
    text = capsys.readouterr().out
    assert "LSTMs that can't be run here" in text
    assert "weight_hh_l0" in text


# convert


def test_convert(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("safetensors")
    assert cli.main(["convert", "two.npz", "one.safetensors", "--name", "b.rnn"]) == 0
    assert capsys.readouterr().out == (
        "one.safetensors: BiLSTM(3, 4, num_layers=2, dtype=float32)\n"
    )
    expected = BiLSTM(3, 4, 2, seed=2)
    assert_same_bits(fastlstm.load("one.safetensors").parameters, expected.parameters)
    arguments = ["convert", "one.safetensors", "one.npz", "--dtype", "float64"]
    assert cli.main(arguments) == 0
    assert fastlstm.load("one.npz").dtype == np.float64
    assert cli.main(arguments) == 2  # it exists
    assert cli.main([*arguments, "--force"]) == 0


def test_convert_keeps_head_and_state(here: Path) -> None:
    require("safetensors")
    rng = np.random.default_rng(3)
    head = weights.Head(rng.normal(size=(3, 4)), rng.normal(size=3))
    state = (rng.normal(size=(1, 4)), rng.normal(size=(1, 4)))
    fastlstm.save(LSTM(3, 4, seed=0, peepholes=True), "m.npz", head=head, state=state)
    assert cli.main(["convert", "m.npz", "m.safetensors"]) == 0
    assert_same_bits(run("m.safetensors", "x.npy"), run("m.npz", "x.npy"))


@pytest.mark.parametrize("bits", [8, 16, 24])
def test_convert_keeps_bits_or_says_so(
    here: Path, capsys: pytest.CaptureFixture[str], bits: int
) -> None:
    require("safetensors")
    layer = fastlstm.quantize(LSTM(3, 5, batch_first=True, seed=1), bits)
    fastlstm.save(layer, "m.npz")
    assert cli.main(["convert", "m.npz", "m.safetensors"]) == 0
    out, err = capsys.readouterr()
    assert out == f"m.safetensors: LSTM(3, 5, batch_first=True, dtype=float32, bits={bits})\n"
    assert not err
    x = np.load("x.npy")
    y, _ = fastlstm.load("m.safetensors")(x)
    assert_same_bits(y, layer(x)[0])
    for more in (["--dequantize"], ["--dequantize", "--dtype", "float64"]):
        assert cli.main(["convert", "m.npz", "wide.npz", "--force", *more]) == 0
        told = f"note: what the {bits} bits stand for is written, as float{64 if more[1:] else 32}"
        assert told in capsys.readouterr().err
        wide = fastlstm.load("wide.npz")
        assert_same_bits(wide.parameters, layer.parameters.astype(wide.dtype))
    assert cli.main(["convert", "m.npz", "no.npz", "--dtype", "float64"]) == 2
    assert "dequantize" in capsys.readouterr().err


@pytest.mark.parametrize("bits", [8, 16])
def test_convert_to_formats_of_floats(
    here: Path, capsys: pytest.CaptureFixture[str], bits: int
) -> None:
    require("torch")
    require("onnx")
    layer = fastlstm.quantize(LSTM(20, 5, seed=1), bits)
    fastlstm.save(layer, "m.npz")
    assert cli.main(["convert", "m.npz", "m.pt"]) == 0
    assert f"what the {bits} bits stand for is written, as float32" in capsys.readouterr().err
    assert_same_bits(fastlstm.load("m.pt").parameters, layer.parameters)
    assert cli.main(["convert", "m.npz", "m.onnx"]) == 0
    told = capsys.readouterr().err
    assert told == "" if bits == 8 else "stand for is written" in told
    assert fastlstm.load("m.onnx").bits == (8 if bits == 8 else None)
    assert_same_bits(fastlstm.load("m.onnx").parameters, layer.parameters)


def test_convert_says_what_is_quantised_anew(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require("onnx")
    fastlstm.save(fastlstm.quantize(LSTM(3, 5, seed=1), 8), "m.npz")
    assert cli.main(["convert", "m.npz", "m.onnx"]) == 0
    assert "fastlstm: warning: weight_ih_l0: in float32" in capsys.readouterr().err


def test_inspect_and_verify_say_the_bits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = {"m": LSTM(20, 5, seed=1), "both": BiLSTM(3, 5, 2, merge_mode=None, seed=2)}
    for bits, (name, layer) in zip((8, 24), layers.items(), strict=True):
        fastlstm.save(fastlstm.quantize(layer, bits), f"{name}.npz")
        assert cli.main(["inspect", f"{name}.npz"]) == 0
        out = capsys.readouterr().out
        assert f"{bits} bits\n" in out
        assert f"{layer.parameters.size:,} parameters" in out
        assert cli.main(["inspect", f"{name}.npz", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)["lstms"]
        assert found["bits"] == bits
        assert cli.main(["verify", f"{name}.npz"]) == 0
        out = capsys.readouterr().out
        assert f", both in float32 with what the {bits} bits stand for" in out
        assert f"in {bits} bits the largest difference is " in out
        assert cli.main(["verify", f"{name}.npz", "--json"]) == 0
        (result,) = json.loads(capsys.readouterr().out)["lstms"]
        assert 0 < result["in_bits"] <= (0.03 if bits == 8 else 2e-6)


# run


def test_run_one_of_several(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "two.npz", "x.npy", "-o", "y.npy"]) == 2
    message = capsys.readouterr().err
    assert "two.npz: holds 2 LSTMs, choose one by name: a: LSTM 3 -> 5" in message
    x = np.load("x.npy")
    assert_same_bits(run("two.npz", "x.npy", "--name", "b.rnn"), BiLSTM(3, 4, 2, seed=2)(x)[0])
    assert cli.main(["run", "two.npz", "x.npy", "-o", "z.npy", "--name", "c"]) == 2
    assert "holds no LSTM named 'c'" in capsys.readouterr().err
    assert cli.main(["run", "--name", "c"]) == 2
    assert "--name: needs MODEL and INPUT" in capsys.readouterr().err


@pytest.mark.parametrize("layer", [LSTM(3, 5, 2, seed=1), BiLSTM(3, 4, seed=1)])
@pytest.mark.parametrize("options", [[], ["--batch-size", "3", "--chunk", "4"]])
def test_run_starts_from_the_state_of_the_file(
    here: Path, layer: LSTM | BiLSTM, options: list[str]
) -> None:
    rng = np.random.default_rng(1)
    state = tuple(rng.normal(size=(2, layer.hidden_size)).astype(np.float32) for _ in "hc")
    fastlstm.save(layer, "m.npz", state=state)  # type: ignore[arg-type]
    x = np.load("x.npy")
    expected, _ = layer(x, tuple(np.repeat(a[:, None], 7, axis=1) for a in state))  # type: ignore[arg-type]
    assert_same_bits(run("m.npz", "x.npy", *options), expected)


@pytest.mark.parametrize("merge", [{}, {"merge_mode": "sum"}, {"merge_mode": "concat"}])
def test_run_answers_once_for_a_sequence(here: Path, merge: dict[str, str]) -> None:
    options = {"return_sequences": False, "seed": 3, **merge}
    layer = (BiLSTM if merge else LSTM)(3, 4, **options)  # type: ignore[arg-type]
    fastlstm.save(layer, "m.npz")
    x = np.load("x.npy")
    expected, _ = layer(x)
    for given in ([], ["--batch-size", "2"], ["--chunk", "3"]):
        assert_same_bits(run("m.npz", "x.npy", *given), expected)
    np.save("b.npy", x.swapaxes(0, 1))
    command = ["run", "m.npz", "b.npy", "-o", "z.npy", "--batch-first"]
    assert cli.main(command) == 2  # the model says otherwise
    assert not Path("z.npy").exists()
    turned = type(layer)(**{**layer.options, "batch_first": True})
    turned.load_parameters(layer.parameters)
    fastlstm.save(turned, "b.npz")
    assert_same_bits(run("b.npz", "b.npy", "--batch-first"), expected)
    assert_same_bits(run("b.npz", "b.npy"), expected)
    np.save("one.npy", x[:, 0])
    assert_same_bits(run("m.npz", "one.npy"), expected[:1])
    np.save("none.npy", x[:0])
    assert_same_bits(run("m.npz", "none.npy"), np.zeros_like(expected))
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.csv"]) == 0
    np.testing.assert_array_equal(np.loadtxt("y.csv", delimiter=",", dtype=np.float32), expected)


def test_run_projects_and_merges(here: Path) -> None:
    x = np.load("x.npy")
    for layer in (
        LSTM(3, 6, proj_size=2, batch_first=True, seed=1),
        BiLSTM(3, 6, proj_size=2, merge_mode="mean", seed=1),
    ):
        fastlstm.save(layer, "m.npz", overwrite=True)
        same = type(layer)(**{**layer.options, "batch_first": False})
        same.load_parameters(layer.parameters)
        expected = same(x)[0]
        if layer.batch_first:
            np.save("b.npy", x.swapaxes(0, 1))
            assert_same_bits(run("m.npz", "b.npy"), np.ascontiguousarray(expected.swapaxes(0, 1)))
        else:
            assert_same_bits(run("m.npz", "x.npy"), expected)
    fastlstm.save(BiLSTM(3, 4, merge_mode=None), "m.npz", overwrite=True)
    assert cli.main(["run", "m.npz", "x.npy", "-o", "z.npy"]) == 2
    assert not Path("z.npy").exists()


# verify


def test_verify_against_pytorch(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = require("torch")
    assert cli.main(["verify", "two.npz"]) == 0
    text = capsys.readouterr().out
    assert text.count(f"against torch {torch.__version__}") == 2
    assert text.count(": agrees") == 2
    assert cli.main(["verify", "two.npz", "--name", "a"]) == 0
    assert capsys.readouterr().out.count("largest difference") == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_verify_without_the_framework(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """The reference stands in, also for what PyTorch does not have."""
    variants = [
        LSTM(3, 5, 2, dtype=dtype, peepholes=True, layer_norm=True, seed=0),
        BiLSTM(3, 5, dtype=dtype, merge_mode=None, return_sequences=False, seed=0),
        LSTM(3, 5, dtype=dtype, coupled_gates=True, batch_first=True, seed=0),
    ]
    for layer in variants:
        fastlstm.save(layer, "m.npz", overwrite=True)
        assert cli.main(["verify", "m.npz"]) == 0
        assert "against the NumPy reference, since" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["verify", "two.npz", "--seed", "7"]) == 0
    text = capsys.readouterr().out
    assert "against the NumPy reference, since torch is not installed" in text
    assert text.count(": agrees") == 2


def test_verify_finds_a_difference(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastlstm.weights.originals import pytorch

    def off(path: Path, found: weights.Found, x: np.ndarray, h_0: np.ndarray, c_0: np.ndarray):  # type: ignore[no-untyped-def]
        y, (h_n, c_n) = found.build()(x, (h_0, c_0))
        return y + np.float32(1e-4), h_n, c_n

    require("torch")
    monkeypatch.setattr(pytorch, "run", off)
    assert cli.main(["verify", "two.npz", "--name", "a"]) == 1
    assert "largest difference 1.0e-04" in (text := capsys.readouterr().out)
    assert ": DIFFERS" in text


def test_what_is_wrong_with_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.npz").write_bytes(b"")
    np.savez("none.npz", w=np.zeros(3))
    for arguments, message in (
        (["inspect", "nowhere.npz"], "nowhere.npz: no such file"),
        (["inspect", "empty.npz"], "empty.npz: not a .npz file"),
        (["convert", "none.npz", "m.npz"], "none.npz: holds no LSTM, but w"),
        (["convert", "two.npz", "m.txt", "--name", "a"], "m.txt: "),
        (["verify", "none.npz"], "none.npz: holds no LSTM, but w"),
        (["verify", "two.npz", "--name", "z"], "two.npz: holds no LSTM named 'z'"),
    ):
        assert cli.main(arguments) == 2, arguments
        assert message in capsys.readouterr().err
    assert not Path("m.npz").exists()


def test_names_are_made_fit_for_a_terminal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = {f"a\x1b]0;x\x07\nb.{n}": array for n, array in LSTM(2, 3).state_dict().items()}
    np.savez("m.npz", **arrays, **{"\u202egnp": np.zeros(3), "واژه": np.zeros(2)})  # type: ignore[arg-type]
    for command in (["inspect", "m.npz"], ["verify", "m.npz"], ["inspect", "m.npz", "--json"]):
        assert cli.main(command) == 0
        text = capsys.readouterr().out
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\\nb" in text
    assert cli.main(["inspect", "m.npz"]) == 0
    assert "واژه" in capsys.readouterr().out
    assert cli.main(["run", "m.npz", "x.npy", "-o", "y.npy", "--name", "\x1b"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_convert_to_a_name_without_suffix(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert", "two.npz", "plain", "--name", "a"]) == 2
    words = "fastlstm: error: plain: got a name without a suffix, known are .npz, .safetensors, "
    assert capsys.readouterr().err.startswith(words)
    assert not Path("plain").exists()


def test_convert_whole_networks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arrays = {f"rnn.{name}": each for name, each in LSTM(3, 5, seed=0).state_dict().items()}
    arrays |= {"out.weight": np.ones((2, 5), np.float32), "out.bias": np.zeros(2, np.float32)}
    source, path = tmp_path / "m.npz", tmp_path / "own.npz"
    np.savez(source, **arrays)
    command = ["convert", "--network", str(source), str(path)]
    assert cli.main([*command, "--each-step", "--classes", "a,b", "--loss", "cross_entropy"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith(f"{path}: Network(LSTM(3, 5, dtype=float32), 2, ")
    network = fastlstm.load_network(path)
    assert network.classes == ("a", "b")
    assert cli.main([*command, "--force", "--pooling", "mean"]) == 0
    assert "warning: does not say what the loss is: assumed is 'mse'" in capsys.readouterr().err
    for more, message in (
        (["--activation", "relu"], "m.npz: activation: got 1, expected 0"),
        (["--name", "rnn"], "--name chooses one LSTM"),
        ([], "exists"),
    ):
        assert cli.main([*command, *more]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["convert", str(source), str(path), "--loss", "mse"]) == 2
    assert "--loss goes with --network" in capsys.readouterr().err

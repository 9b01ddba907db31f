"""The command ``quantize``: what it writes and reports, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, cli, weights
from fastlstm.training import Network
from fastlstm.weights import Head
from support.command_line import error_line, files
from support.optional import require
from support.quantized_files import assert_same_digits

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]

T, B, I, H = 12, 4, 20, 6


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(T, B, I)).astype(np.float32)


@pytest.fixture
def layer() -> LSTM:
    return LSTM(I, H, 2, seed=0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: LSTM, x: np.ndarray) -> Path:
    """A folder of its own with m.npz and x.npy."""
    monkeypatch.chdir(tmp_path)
    fastlstm.save(layer, "m.npz")
    np.save("x.npy", x)
    return tmp_path


def run(*arguments: str) -> int:
    return cli.main(["quantize", "--quiet", "--no-speed", *arguments])


def reported(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The report as JSON."""
    assert run("--json", *arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found: dict[str, Any] = json.loads(captured.out)
    return found


def by_hand(layer: Any, bits: int, x: Any, **arguments: Any) -> dict[str, Any]:
    """The same by the API, without a file."""
    quantized = fastlstm.quantize(layer, bits, x)
    report = fastlstm.quantization_report(layer, quantized, x, timed=False, **arguments)
    return report.as_dict()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("bits", [8, 16, 24])
def test_it_writes_the_quantised_layer(
    bits: int, suffix: str, layer: LSTM, x: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    if suffix == ".safetensors":
        require("safetensors")
    output = f"q{suffix}"
    assert reported(capsys, "m.npz", "x.npy", "--bits", str(bits), "-o", output) == {
        "file": output,
        **by_hand(layer, bits, x),
    }
    made = fastlstm.quantize(layer, bits, x)
    assert_same_digits(fastlstm.load(output), made)
    assert cli.main(["run", output, "x.npy", "-o", "y.npy"]) == 0
    assert np.array_equal(np.load("y.npy"), made(x)[0])


def test_the_report_alone(
    here: Path, layer: LSTM, x: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words, 8 bits if nobody says, and no file."""
    before = files(here)
    assert run("m.npz", "x.npy") == 0
    captured = capsys.readouterr()
    quantized = fastlstm.quantize(layer, 8, x)
    report = fastlstm.quantization_report(layer, quantized, x, timed=False)
    assert captured.out == f"{report}\n"
    assert captured.err == ""
    assert files(here) == before
    assert reported(capsys, "m.npz", "x.npy")["file"] is None


def test_speed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["quantize", "m.npz", "x.npy", "-o", "q.npz"]) == 0
    captured = capsys.readouterr()
    assert f"for {T} steps of {B}" in captured.out
    assert captured.out.endswith("q.npz is written\n")
    assert captured.err == ""


def test_head_state_and_decisions(
    layer: LSTM, x: np.ndarray, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    head = Head(rng.normal(size=(3, H)).astype("f"), rng.normal(size=3).astype("f"))
    state = rng.normal(size=(2, H)).astype("f"), rng.normal(size=(2, H)).astype("f")
    fastlstm.save(layer, "h.npz", head=head, state=state)
    targets = rng.integers(0, 3, (T, B))
    np.save("y.npy", targets)
    given = ["h.npz", "x.npy", "--metric", "accuracy", "--targets", "y.npy"]
    found = reported(capsys, *given, "-o", "q.npz")
    arguments: dict[str, Any] = {"head": head, "state": state}
    assert found.pop("file") == "q.npz"
    assert found == by_hand(layer, 8, x, metric="accuracy", targets=targets, **arguments)
    assert found["decisions"]["total"] == T * B
    assert found["metric"]["name"] == "accuracy"
    written = weights.read("q.npz").choose()
    assert written.head is not None
    assert written.state is not None
    assert np.array_equal(written.head.weight, head.weight)
    assert np.array_equal(written.state[1], state[1])

    found = reported(capsys, "h.npz", "x.npy", "--threshold", "0.25")
    assert found["decisions"]["rule"] == "above 0.25"
    assert found["decisions"]["total"] == 3 * T * B
    assert run(*given) == 0
    assert "accuracy: " in capsys.readouterr().out


def test_a_trained_network(
    x: np.ndarray, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """One answer for a sequence, from the last states of both directions."""
    network = Network(BiLSTM(I, H, seed=0), 2, loss="cross_entropy", each_step=False, seed=0)
    network.save("n.npz")
    targets = rng.integers(0, 2, B)
    np.save("y.npy", targets)
    given = ["n.npz", "x.npy", "--metric", "cross_entropy", "--targets", "y.npy"]
    found = reported(capsys, *given, "-o", "q.npz")
    assert found["decisions"]["total"] == B
    assert found["metric"]["before"] == pytest.approx(network.score(x, targets).loss, rel=1e-5)
    with pytest.warns(UserWarning, match="a linear layer on top"):
        made = fastlstm.load("q.npz")
    assert made.bits == 8
    assert not made.return_sequences


def test_layouts(
    x: np.ndarray, layer: LSTM, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model for (B, T, I), one that does not say, and sequences of different lengths."""
    turned = LSTM(I, H, 2, batch_first=True)
    turned.load_parameters(layer.parameters)
    fastlstm.save(turned, "b.npz")
    np.save("xb.npy", x.swapaxes(0, 1))
    expected = reported(capsys, "m.npz", "x.npy")
    found = reported(capsys, "b.npz", "xb.npy", "-o", "q.npz")
    for name in ("y", "layers", "over_time"):
        assert found[name] == expected[name]
    assert fastlstm.load("q.npz").batch_first

    np.savez("arrays.npz", **layer.state_dict())  # of PyTorch's names alone
    targets = rng.normal(size=(B, T, H))
    np.save("y.npy", targets)
    given = ["arrays.npz", "xb.npy", "--batch-first", "--metric", "mse", "--targets", "y.npy"]
    found = reported(capsys, *given)
    assert found["y"] == expected["y"]
    z, _ = layer(x)
    mse = np.mean((z.swapaxes(0, 1) - targets) ** 2)
    assert found["metric"]["before"] == pytest.approx(mse, rel=1e-5)

    lengths = np.array([T, 3, 0, 7])
    there = np.arange(T) < lengths[:, np.newaxis]  # (B, T)
    np.save("padded.npy", np.where(there[..., np.newaxis], x.swapaxes(0, 1), np.nan))
    np.save("l.npy", lengths)
    np.save("mask.npy", there)
    sequences = [x[:n, b] for b, n in enumerate(lengths)]
    quantized = fastlstm.quantize(layer, 8, sequences)
    report = fastlstm.quantization_report(layer, quantized, x, lengths=lengths, timed=False)
    for option in (["--lengths", "l.npy"], ["--mask", "mask.npy"]):
        found = reported(capsys, "b.npz", "padded.npy", *option)
        assert found["y"] == report.as_dict()["y"]
        assert found["left_out"] == 0


def test_tables(
    x: np.ndarray, layer: LSTM, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savetxt("x.csv", x[:, 0], delimiter=",", fmt="%.9g")
    targets = rng.normal(size=(T, H))
    np.savetxt("y.csv", targets, delimiter=",", fmt="%.17g")
    found = reported(capsys, "m.npz", "x.csv", "--metric", "rmse", "--targets", "y.csv")
    assert found.pop("file") is None
    assert found == by_hand(layer, 8, x[:, 0], metric="rmse", targets=targets)
    np.save("mask.npy", np.arange(T) < 5)
    found = reported(capsys, "m.npz", "x.csv", "--mask", "mask.npy")
    expected = by_hand(layer, 8, x[:5, 0])
    assert found["y"] == expected["y"]


def test_classes_in_a_table(
    x: np.ndarray, layer: LSTM, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savetxt("x.csv", x[:, 0], delimiter=",", fmt="%.9g")
    classes = rng.integers(0, H, T)
    np.savetxt("y.csv", classes, fmt="%d")
    given = ["m.npz", "x.csv", "--metric", "accuracy", "--targets"]
    found = reported(capsys, *given, "y.csv")
    expected = np.mean(layer(x[:, 0])[0].argmax(axis=-1) == classes)
    assert found["metric"]["before"] == pytest.approx(expected)
    np.save("y.npy", np.where(np.arange(T) < 5, classes, np.nan))
    np.save("mask.npy", np.arange(T) < 5)
    found = reported(capsys, *given, "y.npy", "--mask", "mask.npy")
    expected = np.mean(layer(x[:5, 0])[0].argmax(axis=-1) == classes[:5])
    assert found["metric"]["before"] == pytest.approx(expected)
    assert run(*given, "y.npy") == 2
    assert "y.npy: got classes -1 to" in error_line(capsys)
    np.savetxt("y.csv", classes + 0.5, fmt="%.2f")
    assert run(*given, "y.csv") == 2
    assert error_line(capsys).endswith("y.csv: holds fractions, expected classes")


def test_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("matplotlib")
    assert run("m.npz", "x.npy", "--plot", "p.png") == 0
    assert capsys.readouterr().out.endswith("p.png is written\n")
    assert Path("p.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert run("m.npz", "x.npy", "--plot", "p.png") == 2
    assert "p.png: exists" in error_line(capsys)
    assert run("m.npz", "x.npy", "--plot", "p.xyz") == 2
    assert "p.xyz: unknown suffix" in error_line(capsys)
    assert files(here) == {"m.npz", "x.npy", "p.png"}


def test_what_is_refused(
    here: Path, layer: LSTM, x: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, and nothing is written."""
    fastlstm.save(fastlstm.quantize(layer, 16), "q16.npz")
    fastlstm.save(LSTM(I, H, dtype="float64"), "d.npz")
    np.save("wrong.npy", x[..., 1:])
    np.save("gap.npy", np.where(np.arange(I) == 3, np.nan, x))
    np.save("y.npy", np.zeros((T, B, H + 1)))
    np.save("l.npy", np.array([1, 2]))
    before = files(here)
    cases = {
        ("m.npz", "absent.npy"): "absent.npy: no such file",
        ("absent.npz", "x.npy"): "absent.npz: no such file",
        ("q16.npz", "x.npy"): "q16.npz: of 16 bits already, expected the float32 model",
        ("d.npz", "x.npy"): "d.npz: of float64, expected float32; fastlstm convert d.npz",
        ("m.npz", "wrong.npy"): "the input size of m.npz is 20",
        ("m.npz", "gap.npy"): "gap.npy: got nan at (0, 0, 3), expected finite numbers",
        ("m.npz", "x.npy", "--batch-first"): "--batch-first: m.npz was made for (T, B, I)",
        ("m.npz", "x.npy", "--lengths", "l.npy"): "l.npy: got shape (2,), expected (4,)",
        ("m.npz", "x.npy", "--metric", "mse"): "--metric: needs --targets, too",
        ("m.npz", "x.npy", "--targets", "y.npy"): "--targets: needs --metric, too",
        (
            "m.npz",
            "x.npy",
            "--metric",
            "mse",
            "--targets",
            "y.npy",
        ): "y.npy: got shape (12, 4, 7), expected (12, 4, 6)",
        ("m.npz", "x.npy", "-o", "q.xyz"): "q.xyz: ",
        ("m.npz", "x.npy", "-o", "q.pt"): "q.pt: layer: its 8 bits can't be saved as .pt",
        ("m.npz", "x.npy", "-o", "m.npz"): "m.npz: is m.npz itself, OUT is another file",
        ("m.npz", "x.npy", "-o", "d.npz"): "d.npz: exists, use --force to replace it",
    }
    for arguments, message in cases.items():
        assert run(*arguments, *(["-o", "q.npz"] * ("-o" not in arguments))) == 2, arguments
        assert message in error_line(capsys), arguments
    for arguments in (("m.npz",), ("m.npz", "x.npy", "--bits", "12"), ("m.npz", "x.npy", "-x")):
        with pytest.raises(SystemExit) as ended:
            run(*arguments)
        assert ended.value.code == 2
        assert error_line(capsys).endswith("(see fastlstm quantize --help)")
    assert files(here) == before


def test_it_replaces_only_when_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("q.npz").write_text("precious")
    assert run("m.npz", "x.npy", "-o", "q.npz", "--force") == 0
    assert fastlstm.load("q.npz").bits == 8
    capsys.readouterr()


def test_info_lists_the_instruction_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["quantized isas"] == list(fastlstm._core.quantized_isas())
    assert cli.main(["info"]) == 0
    assert ", ".join(facts["quantized isas"]) in capsys.readouterr().out

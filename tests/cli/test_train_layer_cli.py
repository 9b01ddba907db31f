"""``fastlstm train``: the options of the layer, of batches, and the log."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import cli
from fastlstm._spec import DEFAULTS
from fastlstm.cli._layer import _TABLES, _flag
from fastlstm.training import Network, Sequences, evaluate
from fastlstm.variants import Cell, Rates

pytestmark = [pytest.mark.default_isa, pytest.mark.usefixtures("here")]

OPTIONS: dict[str, Any] = {
    "proj_size": 3,
    "bias": False,
    "reverse": True,
    "peepholes": True,
    "coupled_gates": True,
    "gate_activation": "hard_sigmoid",
    "cell_activation": "relu",
    "output_activation": "identity",
    "clip": 3.0,
    "cell_clip": 2.0,
    "layer_norm": True,
    "zoneout_h": 0.25,
    "zoneout_c": 0.125,
    "dropout": 0.5,
    "recurrent_dropout": 0.25,
    "weight_dropout": 0.125,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = (20 + 5 * rng.normal(size=(7, 12, 3))).astype(np.float32)
    np.save("x.npy", x)
    np.save("y.npy", x[..., :2].cumsum(axis=0) / 10)
    np.save("classes.npy", (x.mean(axis=(0, 2)) > 20).astype(int))


def train(*arguments: str, y: str = "y.npy") -> int:
    sizes = ("--hidden", "5", "--epochs", "2", "--batch-size", "3", "--validation", "0.25")
    return cli.main(["train", "x.npy", y, "-o", "m.npz", "-q", *sizes, *arguments])


def as_arguments(name: str, value: Any) -> list[str]:
    return [_flag(name)] if isinstance(value, bool) else [_flag(name), str(value)]


def test_all_options_of_a_layer_are_there() -> None:
    assert set(OPTIONS) == set(_TABLES)
    assert {*Cell._fields, *Rates._fields} < set(OPTIONS)
    others = {"batch_first", "dtype", "num_layers"}  # by other names
    of_answers = {"merge_mode", "return_sequences"}  # networks take all outputs side by side
    assert set(OPTIONS) | others | of_answers == set(DEFAULTS)
    assert all(OPTIONS[name] != DEFAULTS[name] for name in OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_reaches_the_layer(name: str) -> None:
    assert train("--layers", "2", *as_arguments(name, OPTIONS[name])) == 0
    layer = Network.load("m.npz").lstm
    assert layer._spec.chosen == {"num_layers": 2, name: OPTIONS[name]}


def test_options_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in OPTIONS:
        assert _flag(name) in text
    assert "--cell-clip X Bound on the cell state itself, TensorFlow's meaning --" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--proj-size", "5"], "--proj-size: got 5"),
        (["--zoneout-h", "1.5"], "--zoneout-h: got 1.5"),
        (["--dropout", "1"], "--dropout: got 1.0"),
        (["--gate-clip", "-1"], "--gate-clip: got -1.0"),
        (["--bidirectional", "--reverse"], "--reverse: got True, but a BiLSTM runs in both"),
        (["--gate-activation", "relus"], "relus.*did you mean relu"),
        (["--log", "log.txt"], "--log: log.txt: unknown suffix, FILE can be .csv"),
        (["--log", "x.npy.csv", "--plot", "x.npy.csv"], "--log: x.npy.csv is --plot"),
    ],
)
def test_options_that_do_not_fit(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    try:
        code = train(*arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(Path().glob("m.*"))


@pytest.mark.parametrize("options", [["--layer-norm"], ["--no-bias"], ["--peepholes"]])
@pytest.mark.parametrize("y", ["y.npy", "classes.npy"])
def test_numbers_are_standardised_in_any_layer(
    options: list[str], y: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the weights where that can be, else by the network's scaling."""
    assert train("--normalise", "--validation", "0", *options, y=y) == 0
    out = capsys.readouterr().out
    network = Network.load("m.npz")
    assert (network.scaling is None) == (options == ["--peepholes"])
    x, answers = np.load("x.npy"), np.load(y)
    loss = network.evaluate(x, answers).loss
    if y == "y.npy":
        loss = float(np.square(network.predict(x) - answers).mean())
    assert f"training    loss {loss:.3g}"[:-1] in out


def test_batches_of_other_shapes_train_as_in_python() -> None:
    from fastlstm import LSTM
    from fastlstm.optim import Adam
    from fastlstm.training import Trainer

    lengths = np.array([7, 3, 5, 2, 7, 6, 1, 4, 5, 7, 2, 3])
    np.save("lengths.npy", lengths)
    options = ["--lengths", "lengths.npy", "--accumulate", "2", "--bucketing", "4"]
    assert train(*options, "--validation", "0") == 0
    x, y = np.load("x.npy"), np.load("y.npy")
    rng = np.random.default_rng(0)
    network = Network(LSTM(3, 5, seed=rng), 2, seed=rng)
    data = Sequences(x, y, lengths=lengths)
    trainer = Trainer(
        network, data, None, Adam(1e-3), epochs=2, batch_size=3, accumulate=2, bucketing=4
    )
    trainer.fit()
    assert Network.load("m.npz").parameters.tobytes() == network.parameters.tobytes()
    assert evaluate(network, data).weight == lengths.sum()


@pytest.mark.parametrize("options", [[], ["--normalise"]])
def test_the_log_is_a_table_of_the_epochs(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--log", "log.csv", "--schedule", "cosine", *options) == 0
    with Path("log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "lr", "training_loss", "validation_loss"]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    best = min(float(row["validation_loss"]) for row in rows)
    assert f"validation  loss {best:.4g}  RMSE" in capsys.readouterr().out
    assert 0 < float(rows[1]["lr"]) < float(rows[0]["lr"]) < 1e-3
    assert train("--log", "log.csv") == 2  # it exists

"""What each precision costs on trained models: the tables of ``docs/how-to/choosing-precision.md``.

``python -m fastlstm.bench.accuracy`` runs every model by fastlstm in float32, 24, 16 and 8 bits and
by its peers in their low precisions, all on the same inputs, and prints two Markdown tables: how
far y is from float64, and what the task notices of it.  Nothing is timed.  It needs the extra
``bench`` and, without what they ask for, ``pip install --no-deps silero-vad pyannote-audio``.

The models, and the packages that bring what they need:

- voice: the LSTM of Silero's detector of voices (silero-vad), on half a minute of a recorded
  dialogue (pyannote-audio) as it is, quiet, loud, and in noise;
- forecast and gaps: the bundled models of sea-surface temperatures, on the held-out years;
- digits: an LSTM that is trained here, in seconds, to read handwritten digits row by row
  (scikit-learn), on images that it has not seen;
- random-32, random-128, random-512, if they are asked for: PyTorch's initial weights, I = H, normal
  x, which is the table of ``docs/reference/low-precision.md``.

Letters: T time steps, B sequences, P = H numbers of a hidden state, D directions, K outputs.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import LSTM, BiLSTM, reference
from fastlstm.cli._options import Parser
from fastlstm.data import load_sst, model_path
from fastlstm.data.features import HEADLINE_HORIZON, HELD_OUT_START, HORIZONS, gap_masks
from fastlstm.data.models import load_model
from fastlstm.optim import Adam
from fastlstm.training import Network
from fastlstm.weights import load

from .grid import Cell
from .peers import OURS, OURS_IN_BITS, PRECISION_PEERS, Contestant, UnsupportedError
from .problem import Problem

Array = NDArray[Any]

#: The peers in low precision, by what they are known for.
PEERS = (
    "onnxruntime-int8",
    "onnxruntime-int8-channel",
    "torch-int8",
    "torch-bf16",
    "torch-autocast",
)

#: A voice begins in a frame whose probability is the first of these, and ends in one below the
#: second: silero-vad's own rule.
BEGINS, ENDS = 0.5, 0.35


@dataclass(frozen=True)
class Model:
    """A trained layer with the input that it is judged on.

    Attributes
    ----------
    name : str
    layer : LSTM or BiLSTM
    x : array of float32 (T, B, I)
    task : function of y (T, B, D*P)
        What the task makes of y: a figure, and the decisions that it takes, an array, or None.
    """

    name: str
    layer: LSTM | BiLSTM
    x: Array
    task: Callable[[Array], tuple[str, Array | None]]

    @property
    def problem(self) -> Problem:
        """What contestants are given."""
        (T, B, I), layer = self.x.shape, self.layer
        D = layer.num_directions
        cell = Cell(T, B, I, layer.hidden_size, layer.num_layers, D)
        zeros = np.zeros((layer.num_layers * D, B, layer.hidden_size), np.float32)
        parameters = {name: np.array(array) for name, array in layer.state_dict().items()}
        return Problem(cell, self.x, zeros, zeros, parameters)


# --- the models ---------------------------------------------------------------------------------


def voice() -> Model:
    """Silero's detector of voices, on a dialogue of half a minute in four ways."""
    onnx: Any = import_module("onnx")
    path = _file_of("silero_vad", "data", "silero_vad_16k_sequence.onnx")
    with wave.open(str(_file_of("pyannote", "audio", "sample", "sample.wav"))) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 2**15
    noise = np.random.default_rng(0).normal(size=len(sound)).astype(np.float32)
    loudness = float(np.sqrt(np.square(sound).mean()))
    sounds = [sound, 0.1 * sound, 4 * sound, sound + 0.5 * loudness * noise]
    x = np.concatenate([_input_of_lstm(onnx.load(path), one) for one in sounds], axis=1)
    arrays = {a.name: onnx.numpy_helper.to_array(a) for a in onnx.load(path).graph.initializer}
    weight, bias = arrays["output.weight"][0, :, 0], arrays["output.bias"][0]

    def task(y: Array) -> tuple[str, Array]:
        z = np.maximum(y, 0) @ weight.astype(np.float64) + bias
        probability = 1 / (1 + np.exp(-z))
        speaks = np.zeros(probability.shape, np.bool_)
        for t, now in enumerate(probability):
            before = speaks[t - 1] if t else np.zeros_like(speaks[0])
            speaks[t] = np.where(before, now >= ENDS, now >= BEGINS)
        return f"{speaks.mean():.1%} voice", speaks

    layer = load(path)
    assert isinstance(layer, LSTM)
    return Model("voice", layer, x, task)


def _file_of(package: str, *parts: str) -> Path:
    """Path of a file that a package brings, whether or not it could be imported."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(folder, *parts)).is_file():
            return path
    raise ImportError(f"{package} is missing, or has no {'/'.join(parts)}", name=package)


def _input_of_lstm(model: Any, sound: Array) -> Array:
    """What the detector's LSTM reads, (T, 1, 128), by ONNX Runtime; frames of 512 samples."""
    onnx: Any = import_module("onnx")
    runtime: Any = import_module("onnxruntime")
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, (64, 0)), 576)[::512]
    (node,) = [node for node in model.graph.node if node.op_type == "LSTM"]
    name = node.input[0]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    )
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    zeros = np.zeros((1, 1, 128), np.float32)
    inputs = {"input": np.ascontiguousarray(frames), "h": zeros, "c": zeros}
    x: Array = session.run([name], inputs)[0]
    return x


def forecast() -> Model:
    """The bundled forecast of sea-surface temperatures, one layer."""
    model, sst = load_model(model_path("sst_forecast"), len(HORIZONS)), load_sst()
    targets = np.arange(sst.index(HELD_OUT_START), len(sst))
    column, known = HORIZONS.index(HEADLINE_HORIZON), targets - HEADLINE_HORIZON

    def task(y: Array) -> tuple[str, None]:
        anomaly = y[known, 0] @ model.head.weight[column].astype(np.float64)
        temperature = model.scaling.temperature(
            anomaly + model.head.bias[column], sst.month[targets]
        )
        return _root_mean_square(temperature - sst.temperature[targets]), None

    return Model("forecast", model.layer, model.forecast_input(sst), task)


def gaps() -> Model:
    """The bundled model that fills gaps of sea-surface temperatures, in both directions."""
    model, sst = load_model(model_path("sst_gapfill"), 1), load_sst()
    missing = gap_masks(len(sst), sst.index(HELD_OUT_START), len(sst) - 12)
    months, sequences = np.nonzero(missing)

    def task(y: Array) -> tuple[str, None]:
        anomaly = y[months, sequences] @ model.head.weight[0].astype(np.float64)
        temperature = model.scaling.temperature(anomaly + model.head.bias[0], sst.month[months])
        return _root_mean_square(temperature - sst.temperature[months]), None

    return Model("gaps", model.layer, model.gapfill_input(sst, missing), task)


def _root_mean_square(off: Array) -> str:
    return f"{np.sqrt(np.square(off).mean()):.4f} degC"


def digits(epochs: int = 30, hidden: int = 128) -> Model:
    """Handwritten digits read row by row; the last third of the images was not trained on."""
    found = import_module("sklearn.datasets").load_digits()
    x = (found.images.transpose(1, 0, 2) / 16).astype(np.float32)  # (8 rows, images, 8)
    labels, seen = found.target, 2 * x.shape[1] // 3
    rng, optimizer = np.random.default_rng(0), Adam(3e-3)
    network = Network(
        LSTM(8, hidden, seed=rng), 10, loss="cross_entropy", each_step=False, seed=rng
    )
    for _ in range(epochs):
        for batch in np.split(rng.permutation(seen), range(32, seen, 32)):
            network.train_step(optimizer, x[:, batch], labels[batch], clip=1.0)
    arrays = network.state_dict()
    weight, bias = arrays["head.weight"].astype(np.float64), arrays["head.bias"]
    truth = labels[seen:]

    def task(y: Array) -> tuple[str, Array]:
        answers = (y[-1] @ weight.T + bias).argmax(axis=-1)
        return f"{np.mean(answers == truth):.2%} right", answers

    assert isinstance(network.lstm, LSTM)
    return Model("digits", network.lstm, x[:, seen:], task)


def random(hidden: int) -> Model:
    """Initial weights and normal input, which have no task."""
    x = np.random.default_rng(1).normal(size=(100, 4, hidden)).astype(np.float32)
    return Model(f"random-{hidden}", LSTM(hidden, hidden, seed=0), x, lambda y: ("", None))


TRAINED: Mapping[str, Callable[[], Model]] = {
    "voice": voice,
    "forecast": forecast,
    "gaps": gaps,
    "digits": digits,
}
MODELS: Mapping[str, Callable[[], Model]] = {
    **TRAINED,
    **{f"random-{hidden}": partial(random, hidden) for hidden in (32, 128, 512)},
}


# --- what they are run by -----------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """One model by one contestant.

    Attributes
    ----------
    largest, rms : float
        Largest difference of y from float64, and the root mean square of all.
    figure : str
        What the task makes of y.
    changed, decisions : int
        How many decisions are not those of float64, of how many.
    """

    largest: float
    rms: float
    figure: str
    changed: int
    decisions: int


def judge(model: Model, contestants: Sequence[Contestant]) -> dict[str, Found]:
    """Run a model by each contestant that can do it; float64 is the first."""
    problem = model.problem
    L, D = problem.cell.L, problem.cell.D
    exact, _ = reference.forward(
        problem.x, None, problem.parameters, num_layers=L, num_directions=D
    )
    _, expected = model.task(exact)

    def found_of(y: Array) -> Found:
        off, (figure, decisions) = y - exact, model.task(y)
        return Found(
            largest=float(np.abs(off).max()),
            rms=float(np.sqrt(np.square(off).mean())),
            figure=figure,
            changed=int(np.sum(decisions != expected)),
            decisions=0 if decisions is None else decisions.size,
        )

    found = {"float64": found_of(exact)}
    for contestant in contestants:
        try:
            runner = contestant.build(problem, 1)
        except UnsupportedError:
            continue
        found[contestant.name] = found_of(runner.arrays()[0].astype(np.float64))
    return found


# --- tables -------------------------------------------------------------------------------------


def tables(found: Mapping[str, Mapping[str, Found]]) -> str:
    """Return both tables, of what `judge` found by model; the first alone where none has a task."""
    contestants = list(dict.fromkeys(name for one in found.values() for name in one))
    errors = [["", *found], ["---", *["--:"] * len(found)]]
    tasks = [["", *found], ["---", *["--:"] * len(found)]]
    for name in contestants:
        row = [one.get(name) for one in found.values()]
        if name != "float64":
            errors.append([name, *("-" if one is None else _error(one) for one in row)])
        tasks.append([name, *("-" if one is None else _task(one) for one in row)])
    has_tasks = any(one.figure for of_model in found.values() for one in of_model.values())
    written = [errors, tasks] if has_tasks else [errors]
    return "\n\n".join("\n".join(map(_line, table)) for table in written)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _error(one: Found) -> str:
    return f"{_short(one.largest)} / {_short(one.rms)}"


def _short(value: float) -> str:
    """Two digits and a power of ten without zeros."""
    digits, power = f"{value:.1e}".split("e")
    return f"{digits}e{int(power)}"


def _task(one: Found) -> str:
    if not one.decisions:
        return one.figure
    return f"{one.figure}, {one.changed} of {one.decisions:,} changed"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the models asked for and print both tables."""
    parser = Parser(prog="python -m fastlstm.bench.accuracy", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--models", default=",".join(TRAINED), help=f"comma-separated, of {', '.join(MODELS)}"
    )
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; empty for none")
    args = parser.parse_args(argv)
    chosen = [name for name in args.models.split(",") if name]
    peers = [name for name in args.peers.split(",") if name]
    for option, names, known in (("models", chosen, MODELS), ("peers", peers, PRECISION_PEERS)):
        for name in names:
            if name not in known:
                parser.error(f"--{option}: got {name!r}, expected some of {', '.join(known)}")
    contestants = (OURS, *OURS_IN_BITS.values(), *(PRECISION_PEERS[name] for name in peers))
    print(tables({name: judge(MODELS[name](), contestants) for name in chosen}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

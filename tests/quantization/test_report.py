"""The report on a quantised layer: its numbers, computed anew in NumPy from the reference."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, quantization_report, quantize
from fastlstm.quantization import layerwise, plot_report
from fastlstm.quantization.digits import in_digits
from fastlstm.reference import digits
from support.optional import require
from support.quantization_reports import B, H, I, L, Problem, T, errors, solved

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]

# errors


@pytest.mark.parametrize("chunk", [None, 64])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("bits", [8, 16, 24])
def test_errors(
    bits: int, directions: int, ragged: bool, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each layer by itself and in the stack, of y and over time, however blocks are cut."""
    if chunk is not None:
        monkeypatch.setattr(layerwise, "_CHUNK", chunk)
        monkeypatch.setattr(layerwise, "_WHOLE", chunk)
    problem, expected = solved(directions, bits, ragged)
    lengths = problem.lengths if ragged else None
    there = problem.present if ragged else np.ones((T, B), np.bool_)
    report = problem.report(state=problem.state, lengths=lengths)
    for index, layer in enumerate(report.layers):
        exact = expected[f"exact {index}"][there]
        assert layer.own == pytest.approx(errors(exact, expected[f"own {index}"][there]))
        assert layer.accumulated == pytest.approx(errors(exact, expected[f"stack {index}"][there]))
    exact, other = expected["exact 1"], expected["stack 1"]
    assert report.y == pytest.approx(errors(exact[there], other[there]))
    assert report.left_out == 0
    assert report.least_accurate == int(report.layers[1].own[2] > report.layers[0].own[2])

    spread = float(np.std(exact[there].astype(np.float64)))
    assert [part.start for part in report.over_time] == [0, 3, 5, 7, 10, 12, 14, 17, 19, 21]
    assert [part.stop for part in report.over_time] == [3, 5, 7, 10, 12, 14, 17, 19, 21, T]
    for part in report.over_time:
        steps = slice(part.start, part.stop)
        mask = there[steps]
        assert part.errors == pytest.approx(errors(exact[steps][mask], other[steps][mask], spread))


def test_few_steps() -> None:
    problem = Problem(1)
    report = quantization_report(problem.layer, problem.quantized, problem.x[:3], timed=False)
    assert [(part.start, part.stop) for part in report.over_time] == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("mode", ["sum", "mean", "product", None])
def test_y_is_merged_as_the_layer_merges(mode: str | None) -> None:
    problem = Problem(2, merge_mode=mode)
    y, _ = problem.layer(problem.x)
    low, _ = problem.quantized(problem.x)
    if mode is None:
        y, low = np.concatenate(y, axis=-1), np.concatenate(low, axis=-1)
    assert problem.report().y == pytest.approx(errors(y, low))


def test_layouts() -> None:
    """batch_first, one sequence, several arrays and a mask are the same sequences."""
    problem = Problem(1)
    expected = problem.report()
    turned = LSTM(I, H, L, batch_first=True)
    turned.load_parameters(problem.layer.parameters)
    report = quantization_report(turned, quantize(turned, 8), problem.x.swapaxes(0, 1), timed=False)
    assert report.y == expected.y
    assert report.layers == expected.layers

    sequences = [problem.x[:, b] for b in range(B)]
    for given in (sequences, iter(sequences)):
        report = quantization_report(problem.layer, problem.quantized, given, timed=False)
        assert report.y == pytest.approx(expected.y)
    report = quantization_report(problem.layer, problem.quantized, sequences[0], timed=False)
    single = quantization_report(problem.layer, problem.quantized, problem.x[:, :1], timed=False)
    assert report == single

    behind = problem.present[::-1]  # padding in front
    padded = np.where(problem.present[..., np.newaxis], problem.x, np.nan)
    report = quantization_report(
        problem.layer, problem.quantized, padded[::-1], mask=behind, timed=False
    )
    turned_x = np.stack(
        [np.roll(padded[::-1, b], n, axis=0) for b, n in enumerate(problem.lengths)], 1
    )
    again = quantization_report(
        problem.layer, problem.quantized, turned_x, lengths=problem.lengths, timed=False
    )
    assert report == again


@pytest.mark.parametrize("directions", [1, 2])
def test_arrays_without_steps(directions: int) -> None:
    problem = Problem(directions)
    data = [problem.x[:0], problem.x, problem.x[:, :0]]
    report = quantization_report(problem.layer, problem.quantized, data, timed=False)
    assert report == problem.report()


def test_a_state_of_all_sequences() -> None:
    problem = Problem(1)
    h_0, c_0 = (array[:, 0] for array in problem.state)
    of_each = tuple(np.repeat(array[:, np.newaxis], B, axis=1) for array in (h_0, c_0))
    assert problem.report(state=(h_0, c_0)) == problem.report(state=of_each)


def test_what_is_not_finite_is_left_out() -> None:
    problem = Problem(1)
    x = problem.x.copy()
    x[20, 1, 0] = np.nan
    report = quantization_report(problem.layer, problem.quantized, x, timed=False)
    y, _ = problem.layer(problem.x)
    low, _ = problem.quantized(problem.x)
    finite = np.ones((T, B), np.bool_)
    finite[20:, 1] = False
    assert report.left_out == 3 * H
    assert report.y == pytest.approx(errors(y[finite], low[finite]))
    assert "left out: 27 numbers" in str(report)


def test_no_spread() -> None:
    layer = LSTM(I, H)
    layer.load_parameters(np.zeros(layer.parameters.size))
    report = quantization_report(layer, quantize(layer, 8), np.ones((4, I)), timed=False)
    assert report.y[:2] == (0, 0)
    assert math.isnan(report.y.relative)
    assert report.as_dict()["y"]["relative"] is None
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False)) == report.as_dict()


# the use of integers, sizes


@pytest.mark.parametrize("proj_size", [0, 4])
@pytest.mark.parametrize("bits", [8, 16, 24])
def test_ranges(bits: int, proj_size: int) -> None:
    problem = Problem(1, bits, proj_size=proj_size)
    report = problem.report(state=problem.state)
    _, low = problem.run(0, problem.x)
    inputs = digits.quantize(problem.x.reshape(-1, I), bits).integers
    hidden = low.reshape(T * B, -1)
    states = digits.quantize(hidden, bits).integers
    for use, q, numbers in (
        (report.layers[0].x, inputs, problem.x),
        (report.layers[0].h, states, hidden),
    ):
        largest = digits.LARGEST[bits]
        lost = np.count_nonzero((q.ravel() == 0) & (numbers.ravel() != 0))
        assert use is not None
        assert use.used == pytest.approx(math.sqrt(np.mean((q / largest) ** 2)), rel=1e-6)
        assert use.saturated == np.mean(np.abs(q) == largest)
        assert use.lost == pytest.approx(lost / np.count_nonzero(numbers))
    if bits < 24:  # there float32 rounds some to one below
        assert report.layers[0].x.saturated >= 1 / I  # type: ignore[union-attr]
    assert report.layers[1].x is None, "few inputs stay in float32"


def test_ranges_with_factors() -> None:
    rng = np.random.default_rng(0)
    layer = LSTM(I, H, seed=0)
    x = (rng.normal(size=(T, B, I)) * np.where(np.arange(I) < 2, 1000, 1)).astype(np.float32)
    factors = np.where(np.arange(I) < 2, 1024, 1).astype(np.float32)
    in_eight_bits = in_digits(layer._spec, layer.parameters, 8, [factors])
    quantized = layer._as_quantized(in_eight_bits)
    plain = quantization_report(layer, quantize(layer, 8), x, timed=False).layers[0].x
    use = quantization_report(layer, quantized, x, timed=False).layers[0].x
    q = digits.quantize((x / factors).reshape(-1, I), 8).integers
    assert use is not None
    assert plain is not None
    assert use.lost == np.count_nonzero(q == 0) / q.size
    assert use.lost < plain.lost / 2


@pytest.mark.parametrize(("bits", "count"), [(8, 1), (16, 2), (24, 3)])
def test_sizes(bits: int, count: int) -> None:
    report = Problem(1, bits).report()
    first = 4 * H * I * count + 4 * H * H * count + 2 * 4 * H * 4 + 2 * 4 * H * 4
    second = 4 * 4 * H * H + 4 * H * H * count + 4 * H * 4 + 2 * 4 * H * 4  # W in float32
    assert [layer.bytes_after for layer in report.layers] == [first, second]
    assert report.bytes_after == first + second
    assert [layer.bytes_before for layer in report.layers] == [
        4 * 4 * H * (I + H + 2),
        4 * 4 * H * (H + H + 2),
    ]
    assert report.bytes_before == sum(layer.bytes_before for layer in report.layers)


# speed


def test_speed() -> None:
    problem = Problem(1)
    empty = problem.x[:, :0]  # there is nothing to time
    report = quantization_report(problem.layer, problem.quantized, [empty, problem.x])
    assert report.speed is not None
    assert (report.speed.steps, report.speed.batch) == (T, B)
    assert report.speed.isas == (problem.layer.isa, problem.quantized.isa)
    assert report.speed.threads == fastlstm.get_num_threads()
    assert report.speed.machine in str(report)
    turns = [layer.turns for layer in report.layers]
    for each in (report.speed.turns, *turns):
        assert each is not None
        assert min(each) > 0
    times = [each.after for each in turns if each is not None]
    assert report.slowest == times.index(max(times))
    assert Problem(1).report().slowest is None


# what is printed, and drawn


def test_text_and_dictionary() -> None:
    report = Problem(2, 16).report()
    found = report.as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["bits"] == 16
    assert found["y"] == report.y._asdict()
    assert found["layers"][1]["own"] == report.layers[1].own._asdict()
    assert found["over_time"][3]["start"] == report.over_time[3].start
    assert found["least_accurate"] == report.least_accurate
    lines = str(report).splitlines()
    assert lines[0] == repr(Problem(2, 16).quantized)
    assert f"most error: layer {report.least_accurate}" in str(report)
    assert max(map(len, lines)) <= 80
    assert f"{report.y.largest:.1e}" in str(report)


@pytest.mark.parametrize("directions", [1, 2])
def test_picture(directions: int, tmp_path: Any) -> None:
    require("matplotlib")
    plot_report(Problem(directions).report(), tmp_path / "p.svg")
    assert "<svg" in (tmp_path / "p.svg").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="xyz"):
        plot_report(Problem(directions).report(), tmp_path / "p.xyz")


def test_progress() -> None:
    for lengths in (None, [4, 3, 2, 1, 0]):
        done: list[int] = []
        Problem(1).report(advance=done.append, lengths=lengths)
        assert sum(done) == T * B


# what is refused


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metric": "mse"}, ValueError, "targets: got None, but metric needs it"),
        ({"targets": 1}, ValueError, "metric: got None, but targets needs it"),
        ({"metric": "r2", "targets": 1}, ValueError, "metric: got 'r2', expected one of mse"),
        ({"metric": 3, "targets": 1}, TypeError, "metric: got int, expected a name or a func"),
        ({"metric": "mse", "targets": "no"}, TypeError, "targets: got values of dtype <U2"),
        ({"metric": "mse", "targets": [1.0]}, ValueError, r"targets: got shape \(1,\), expected"),
        (
            {"metric": "mse", "targets": np.full((T, B, H), np.nan)},
            ValueError,
            "targets: holds NaN or infinity",
        ),
        (
            {"metric": "accuracy", "targets": np.zeros((T, B))},
            TypeError,
            "targets: got values of dtype float64, expected integer classes",
        ),
        (
            {"metric": "accuracy", "targets": np.full((T, B), H)},
            ValueError,
            f"targets: got classes {H} to {H}, expected 0 to {H - 1}",
        ),
        (
            {"metric": lambda z, y: "good", "targets": 1},
            TypeError,
            "metric: returned 'good', expected a number",
        ),
        ({"head": 3}, TypeError, "head: got int, expected a Head, a Network, a pair"),
        ({"head": (np.ones((2, 4)), np.ones(2))}, ValueError, r"head.weight: got shape \(2, 4\)"),
        ({"head": (np.ones((2, H)), np.ones(3))}, ValueError, r"head.bias: got shape \(3,\)"),
        ({"threshold": "much"}, TypeError, "threshold: got 'much'"),
        ({"threshold": math.nan}, ValueError, "threshold: got nan"),
        ({"lengths": [1]}, ValueError, r"lengths: got shape \(1,\)"),
        ({"lengths": 3, "mask": 3}, ValueError, "lengths, mask: got both"),
        ({"state": 3}, TypeError, r"state: got 3, expected a pair \(h_0, c_0\)"),
        ({"state": (np.ones((L, 4)), np.ones((L, H)))}, ValueError, "h_0: "),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Problem(1).report(**arguments)


def test_wrong_layers_and_data() -> None:
    problem = Problem(1)
    layer, quantized, x = problem.layer, problem.quantized, problem.x
    cases: list[tuple[Any, Any, Any, str]] = [
        (3, quantized, x, "layer: got int, expected an LSTM or BiLSTM"),
        (layer, 3, x, "quantized: got int"),
        (quantized, quantized, x, "layer: got .*, expected one in float32"),
        (LSTM(I, H, dtype="float64"), quantized, x, "layer: got .*, expected one in float32"),
        (layer, layer, x, "quantized: got .*, expected one that fastlstm.quantize made"),
        (LSTM(I, H), quantized, x, "quantized: got .*, expected one like LSTM"),
        (layer, quantized, x[..., 1:], "data: got shape"),
        (layer, quantized, x[:0], "data: got no steps"),
        (layer, quantized, [x, x[0, 0]], r"data\[1\]: got shape"),
        (layer, quantized, x.astype(complex), "data: got values of dtype complex128"),
    ]
    for before, after, data, message in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            quantization_report(before, after, data, timed=False)
    with pytest.raises(ValueError, match="lengths, mask: got one with several arrays"):
        quantization_report(layer, quantized, [x], lengths=[3], timed=False)
    with pytest.raises(ValueError, match="targets: expected a list of 2"):
        quantization_report(layer, quantized, [x, x], metric="mse", targets=x, timed=False)
    two = BiLSTM(I, H, merge_mode=None)
    with pytest.raises(ValueError, match="head: the layer has merge_mode=None"):
        quantization_report(two, quantize(two), x, head=(np.ones((1, H)), np.ones(1)), timed=False)
    with pytest.raises(ValueError, match="metric: the layer has merge_mode=None"):
        quantization_report(two, quantize(two), x, metric="mse", targets=x, timed=False)

"""Integrated gradients add up, follow captum's, and are refined; occlusion leaves parts out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, explain
from fastlstm.training import Network
from support.arrays import assert_same_bits
from support.optional import require

RNG = np.random.default_rng(1)
START = RNG.bit_generator.state


def steep(layer: Any, factor: float = 4) -> Any:
    """The same with weights so large that paths are far from straight."""
    layer.load_parameters(factor * layer.parameters)
    return layer


@pytest.fixture(autouse=True)
def same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = START


@pytest.mark.parametrize("kind", [LSTM, BiLSTM])
@pytest.mark.parametrize("factor", [1, 4])
def test_shares_add_up_to_what_was_asked(kind: Any, factor: float) -> None:
    layer = steep(kind(3, 8, 2, dtype=np.float64, seed=0), factor)
    x, lengths = RNG.normal(size=(25, 4, 3)), [25, 1, 9, 17]
    for tolerance in (1e-3, 1e-8):
        found = explain.integrated_gradients(layer, x, 5, lengths=lengths, tolerance=tolerance)
        assert found.converged
        total = found.values.sum(axis=(0, 2))
        np.testing.assert_allclose(total + found.residual, found.output - found.baseline_output)
        assert (np.abs(found.residual) <= tolerance).all()
        y, _ = layer(x, lengths=lengths)
        zero, _ = layer(0 * x, lengths=lengths)
        for b, n in enumerate(lengths):
            np.testing.assert_allclose(found.output[b], y[n - 1, b, 5])
            np.testing.assert_allclose(found.baseline_output[b], zero[n - 1, b, 5])
            assert not found.values[n:, b].any()


@pytest.mark.parametrize("which", ["lengths", "mask"])
def test_what_padding_holds_is_of_no_account(which: str) -> None:
    layer, x = BiLSTM(3, 8, dtype=np.float64, batch_first=True, seed=0), RNG.normal(size=(2, 9, 3))
    exists = np.arange(9) < np.array([[9], [5]])
    if which == "mask":
        exists = RNG.random((2, 9)) < 0.6
    given = {"mask": exists} if which == "mask" else {"lengths": [9, 5]}
    holes = np.where(exists[..., np.newaxis], x, np.nan)
    for with_holes, without in ((None, None), (holes / 2, x / 2), ("mean", "mean")):
        found = explain.integrated_gradients(layer, holes, 5, baseline=with_holes, **given)
        expected = explain.integrated_gradients(layer, x, 5, baseline=without, **given)
        assert found.converged
        assert_same_bits(found.values, expected.values)
        assert_same_bits(found.residual, expected.residual)


def test_what_is_no_number_is_not_refined() -> None:
    layer, x = steep(LSTM(3, 8, dtype=np.float64, seed=0)), RNG.normal(size=(25, 2, 3))
    good = explain.integrated_gradients(layer, x[:, 1:], 5)
    x[3, 0, 1] = np.nan
    with pytest.warns(UserWarning, match="the residual of 1 of 2 sequences is up to nan"):
        found = explain.integrated_gradients(layer, x, 5)
    assert not found.converged
    assert found.points == good.points
    assert_same_bits(found.values[:, 1], good.values[:, 0])


def test_points_are_doubled_where_they_have_to_be() -> None:
    layer = steep(LSTM(3, 8, dtype=np.float64, seed=0))
    x = RNG.normal(size=(25, 3, 3))
    x[:, 0] *= 1e-3
    rough = explain.integrated_gradients(layer, x, 5, points=2, tolerance=10)
    fine = explain.integrated_gradients(layer, x, 5, points=2, tolerance=1e-6)
    assert rough.points == 2
    assert fine.points > 8
    assert_same_bits(fine.values[:, 0], rough.values[:, 0])  # it was good enough
    exact = explain.integrated_gradients(layer, x, 5, points=400)
    assert np.abs(fine.values - exact.values).max() < 1e-6
    with pytest.warns(UserWarning, match="with 4 points the residual of 2 of 3 sequences"):
        short = explain.integrated_gradients(layer, x, 5, points=2, tolerance=1e-6, max_points=4)
    assert not short.converged
    assert "not converged" in repr(short)
    assert repr(exact).startswith("Attribution(integrated gradients, values (25, 3, 3), residual")


@pytest.mark.slow  # captum and PyTorch take seconds to import
@pytest.mark.parametrize("points", [50, None])
@pytest.mark.parametrize("directions", [1, 2])
def test_captum_finds_the_same(directions: int, points: int | None) -> None:
    torch, attr = require("torch"), require("captum.attr")
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(5, 16, 2, bidirectional=directions == 2)
    head = torch.nn.Linear(16 * directions, 3)
    ours = Network((LSTM, BiLSTM)[directions - 1](5, 16, 2), 3)
    arrays = dict(theirs.state_dict())
    arrays |= {"head.weight": head.weight, "head.bias": head.bias}
    ours.load_state_dict({name: one.detach().numpy() for name, one in arrays.items()})
    x = RNG.normal(size=(30, 4, 5)).astype(np.float32)
    baseline = RNG.normal(size=(30, 4, 5)).astype(np.float32)

    def forward(x: Any) -> Any:
        return head(theirs(x.swapaxes(0, 1))[0])[12, :, 2]

    def as_theirs(array: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array.swapaxes(0, 1)))

    expected = attr.IntegratedGradients(forward).attribute(
        as_theirs(x), as_theirs(baseline), n_steps=50
    )
    options = {"points": points} if points else {"tolerance": 1e-5}
    found = explain.integrated_gradients(ours, x, (12, 2), baseline=baseline, **options)
    difference = np.abs(found.values - expected.numpy().swapaxes(0, 1))
    assert difference.max() < 1e-5
    lost = attr.Occlusion(forward).attribute(
        as_theirs(x), (4, 5), (2, 5), baselines=as_theirs(baseline)
    )
    without = explain.occlusion(
        ours, x, (12, 2), steps=4, features=None, stride=2, baseline=baseline
    )
    # Theirs has no window that begins later than the last that fits.
    difference = np.abs(without.values - lost.numpy().swapaxes(0, 1))[:28]
    assert difference.max() < 1e-5


def test_baselines_are_given_or_made_of_data() -> None:
    layer = LSTM(3, 4, dtype=np.float64, batch_first=True, seed=0)
    x, data = RNG.normal(size=(2, 6, 3)), [RNG.normal(size=(9, 3)), RNG.normal(size=(3, 3))]
    lengths = [6, 4]

    def run(**options: Any) -> Any:
        return explain.integrated_gradients(layer, x, 1, lengths=lengths, tolerance=1e-9, **options)

    start = RNG.normal(size=3)
    of_each = run(baseline=start).values
    for shape in ((6, 3), (2, 6, 3)):
        np.testing.assert_array_equal(run(baseline=np.broadcast_to(start, shape)).values, of_each)
    np.testing.assert_array_equal(run(baseline="zeros").values, run().values)
    present = np.concatenate([x[0], x[1, :4]])
    np.testing.assert_allclose(
        run(baseline="mean").values, run(baseline=present.mean(axis=0)).values, atol=1e-12
    )
    mean = np.concatenate(data).mean(axis=0)
    np.testing.assert_allclose(
        run(baseline="mean", data=data).values, run(baseline=mean).values, atol=1e-12
    )
    drawn = run(baseline="data", data=data, draws=5, rng=0)
    np.testing.assert_array_equal(
        run(baseline="data", data=data, draws=5, rng=0).values, drawn.values
    )
    assert (run(baseline="data", data=data, draws=5, rng=1).values != drawn.values).any()
    np.testing.assert_allclose(
        drawn.values.sum(axis=(1, 2)), drawn.output - drawn.baseline_output, atol=1e-9
    )
    # One stretch alone is drawn every time.
    only = run(baseline="data", data=data[0][:6], draws=3, rng=0).values
    np.testing.assert_allclose(only, run(baseline=data[0][:6]).values, atol=1e-12)


def test_shares_are_summed_by_step_feature_and_lag() -> None:
    layer, x = BiLSTM(3, 4, seed=0), RNG.normal(size=(6, 3, 3))
    lengths = [6, 2, 0]
    found = explain.integrated_gradients(layer, x, 1, lengths=lengths)
    steps = found.values.sum(axis=-1)
    np.testing.assert_array_equal(found.by_step(), steps)
    np.testing.assert_array_equal(found.by_feature(), found.values.sum(axis=0))
    lags = found.by_lag()
    np.testing.assert_array_equal(lags[:, 0], steps[::-1, 0])
    np.testing.assert_array_equal(lags[:, 1], [steps[1, 1], steps[0, 1], 0, 0, 0, 0])
    assert not lags[:, 2].any()
    turned = BiLSTM(3, 4, batch_first=True)
    turned.load_parameters(layer.parameters)
    other = explain.integrated_gradients(turned, x.swapaxes(0, 1), 1, lengths=lengths)
    np.testing.assert_array_equal(other.by_lag().T, lags)
    np.testing.assert_array_equal(other.by_feature(), found.by_feature())
    alone = explain.integrated_gradients(layer, x[:, 0], 1)
    np.testing.assert_array_equal(alone.by_lag(), alone.by_step()[::-1])
    assert alone.by_feature().shape == (3,)


@pytest.mark.parametrize("bits", [None, 8])
def test_occlusion_leaves_windows_out(bits: int | None) -> None:
    layer: Any = LSTM(4, 6, seed=0)
    layer = layer if bits is None else fastlstm.quantize(layer, bits)
    x, lengths = RNG.normal(size=(7, 2, 4)).astype(np.float32), [7, 5]
    groups = [[3, 0], [2]]
    found = explain.occlusion(
        layer, x, lambda y: y[-1, :, 0] + y[4, :, 0], steps=3, stride=2, features=groups,
        baseline=np.ones(4), lengths=lengths,
    )  # fmt: skip

    def answers(x: np.ndarray) -> np.ndarray:
        y = layer(x, lengths=lengths)[0]
        return y[-1, :, 0] + y[4, :, 0]

    expected, counts = np.zeros(x.shape), np.zeros(x.shape)
    for first in (0, 2, 4, 6):
        for group in groups:
            changed = x.copy()
            changed[first : first + 3, :, group] = 1
            lost = (answers(x) - answers(changed))[:, np.newaxis]
            expected[first : first + 3, :, group] += lost
            counts[first : first + 3, :, group] += 1
    expected[5:, 1] = 0
    np.testing.assert_allclose(found.values, expected / np.maximum(counts, 1), atol=1e-12)
    assert found.points == 8
    np.testing.assert_array_equal(found.output, answers(x))
    each = explain.occlusion(layer, x, 1, steps=None)
    assert (each.values == each.values[:1]).all()  # a feature at all steps


LAYER, X = LSTM(3, 5, seed=0), np.zeros((4, 2, 3))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tolerance": -1}, ValueError, "tolerance: got -1.0, expected 0 or more"),
        ({"points": 0}, ValueError, "points: got 0"),
        ({"points": 9, "max_points": 8}, ValueError, "points: got 9, expected at most max_points"),
        ({"baseline": "none"}, ValueError, "baseline: got 'none', expected an array, 'zeros'"),
        ({"baseline": np.zeros(2)}, ValueError, r"baseline: got shape \(2,\), expected \(3,\) or"),
        ({"baseline": "data"}, ValueError, "data: missing, expected what baselines are drawn from"),
        ({"data": X}, ValueError, "data: got some with baseline=None, expected 'mean' or 'data'"),
        ({"baseline": "data", "data": X[:3]}, ValueError, "data: has no sequence of 4 steps"),
        ({"baseline": "mean", "data": X[..., :2]}, ValueError, "data: got shape"),
        ({"baseline": "mean", "data": []}, ValueError, "data: got no sequence"),
        ({"baseline": "mean", "lengths": [0, 0]}, ValueError, "lengths: no step exists"),
    ],
)
def test_wrong_arguments_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        explain.integrated_gradients(LAYER, X, 0, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps: got 0"),
        ({"features": []}, ValueError, r"features: got \[\], expected groups of different ones"),
        ({"features": [[0, 1], [1]]}, ValueError, "features: got .*, expected groups of different"),
        ({"features": [[3]]}, ValueError, r"features: got group \[3\], expected numbers from 0"),
        ({"features": [0]}, TypeError, "features: got group 0, expected some numbers"),
        ({"baseline": "data", "data": X}, ValueError, "baseline: got 'data', expected an array"),
    ],
)
def test_wrong_windows_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        explain.occlusion(LAYER, X, 0, **options)

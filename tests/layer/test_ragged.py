"""Sequences of different lengths: each as if it were alone, to the bit; and against PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, Gradients, reference
from fastlstm._arguments import RealArray
from support.arrays import assert_same_bits
from support.layers import results
from support.optional import require

pytestmark = pytest.mark.default_isa

# (B, I, H, T): around the tiles, more sequences than threads, chunks of several blocks of sums.
SIZES = [(1, 2, 3, 4), (5, 3, 7, 6), (13, 5, 17, 9), (40, 2, 33, 5), (3, 4, 66, 100)]


class Case:
    """A layer, a padded batch whose padding is NaN, and gradients of the results."""

    def __init__(self, layer: LSTM | BiLSTM, lengths: list[int], T: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        B, dtype = len(lengths), layer.dtype
        state = (layer.num_layers * layer.num_directions, B, layer.hidden_size)
        out = layer.num_directions * layer.hidden_size
        self.layer, self.lengths = layer, lengths
        self.x = rng.standard_normal((T, B, layer.input_size)).astype(dtype)
        self.dy = rng.standard_normal((T, B, out)).astype(dtype)
        h_0, c_0, dh_n, dc_n = (rng.standard_normal(state).astype(dtype) for _ in range(4))
        self.state, self.dstate = (h_0, c_0), (dh_n, dc_n)
        for b, n in enumerate(lengths):
            self.x[n:, b] = np.nan

    def laid_out(self, array: RealArray) -> RealArray:
        """Between (T, B, n) and the layer's layout."""
        return array.swapaxes(0, 1) if self.layer.batch_first else array

    def run(self, resets: Any = None) -> tuple[RealArray, Any, Gradients]:
        """y, states and gradients, of the whole batch."""
        x = self.laid_out(self.x)
        y, states, tape = self.layer.record(x, self.state, lengths=self.lengths, resets=resets)
        grads = tape.backward(self.laid_out(self.dy), self.dstate)
        return self.laid_out(y), states, grads

    def run_alone(self, b: int) -> tuple[RealArray, Any, Gradients]:
        """The same of one sequence, without padding."""
        n, one = self.lengths[b], np.s_[:, b : b + 1]
        x, dy = self.laid_out(self.x[:n, b : b + 1]), self.laid_out(self.dy[:n, b : b + 1])
        h_0, c_0 = (s[one] for s in self.state)
        dh_n, dc_n = (s[one] for s in self.dstate)
        y, states, tape = self.layer.record(x, (h_0, c_0))
        return self.laid_out(y), states, tape.backward(dy, (dh_n, dc_n))


def lengths_of(B: int, T: int, seed: int = 1) -> list[int]:
    lengths = np.random.default_rng(seed).integers(0, T + 1, B)
    lengths[seed % B] = T
    return [int(n) for n in lengths]


@pytest.mark.slow(isa="scalar")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "num_layers"), list(itertools.product([LSTM, BiLSTM], [1, 3])))
def test_each_sequence_is_as_if_alone(
    isa: str, threads: int, dtype: str, kind: type[LSTM | BiLSTM], num_layers: int
) -> None:
    for number, (B, I, H, T) in enumerate(SIZES):
        layer = kind(I, H, num_layers, dtype=dtype, isa=isa, seed=3, batch_first=bool(number % 2))
        case = Case(layer, lengths_of(B, T, number + 1), T)
        with fastlstm.num_threads(threads):
            y, (h_n, c_n), grads = case.run()
        assert grads.x is not None
        assert grads.h_0 is not None
        assert grads.c_0 is not None
        assert grads.params is not None
        dx = case.laid_out(grads.x)
        total = np.zeros(grads.params.shape)
        for b, n in enumerate(case.lengths):
            y_b, (h_b, c_b), grads_b = case.run_alone(b)
            assert grads_b.x is not None
            assert grads_b.params is not None
            assert y[:n, b].tobytes() == y_b[:, 0].tobytes()
            assert not y[n:, b].any()
            assert dx[:n, b].tobytes() == case.laid_out(grads_b.x)[:, 0].tobytes()
            assert not dx[n:, b].any()
            for got, expected in (
                (h_n, h_b),
                (c_n, c_b),
                (grads.h_0, grads_b.h_0),
                (grads.c_0, grads_b.c_0),
            ):
                assert expected is not None
                assert got[:, b].tobytes() == expected[:, 0].tobytes()
            total += grads_b.params
        scale = np.abs(total).max()
        tolerance = 1e-5 if dtype == "float32" else 1e-13
        np.testing.assert_allclose(grads.params / scale, total / scale, atol=tolerance)


# (B, I, H, T): a few steps; wide inputs, copied in several parts of a chunk; units and sequences
# shared out over threads.
CALLS = [(1, 2, 3, 4), (6, 600, 8, 60), (3, 70, 66, 100), (24, 40, 33, 40)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "dtype": "float64"},
        {"num_layers": 2, "proj_size": 2},
        {"layer_norm": True},
        {"return_sequences": False, "reverse": True},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_calls_are_recorded_ones(isa: str, threads: int, options: dict[str, Any]) -> None:
    """Sequences where they lie, and packed ones: the same bits."""
    for number, (B, I, H, T) in enumerate(CALLS):
        kind = LSTM if number % 2 or "reverse" in options else BiLSTM
        layer = kind(I, H, isa=isa, seed=3, batch_first=number % 3 == 0, **options)
        case = Case(layer, lengths_of(B, T, number + 1), T)
        state = tuple(
            s[:, :, : layer.output_size] if n == 0 else s for n, s in enumerate(case.state)
        )
        x, cut = case.laid_out(case.x), np.random.default_rng(number).random((T, B)) < 0.1
        joined = np.concatenate([case.x[:n, b] for b, n in enumerate(case.lengths)])
        resets = cut.T if layer.batch_first else cut
        given: list[tuple[RealArray, dict[str, Any]]] = [
            (x, {"lengths": case.lengths}),
            (x.swapaxes(0, 1).copy().swapaxes(0, 1), {"lengths": np.array(case.lengths)}),
            (x, {"lengths": np.array(case.lengths, np.int32)}),
            (x, {"lengths": case.lengths, "resets": resets}),
            (joined, {"offsets": np.cumsum([0, *case.lengths])}),
        ]
        with fastlstm.num_threads(threads):
            for rows, lengths in given:
                expected = layer.record(rows, state, **lengths)
                for got, want in zip(
                    results(layer(rows, state, **lengths)), results(expected[:2]), strict=True
                ):
                    assert_same_bits(got, want)


@pytest.mark.parametrize("rate", [0, 0.4], ids=["whole", "resets"])
@pytest.mark.parametrize("kind", [LSTM, BiLSTM])
def test_reference(isa: str, kind: type[LSTM | BiLSTM], rate: float) -> None:
    layer = kind(3, 11, 2, dtype="float64", isa=isa, seed=5)
    case = Case(layer, [4, 0, 7, 7, 1, 6], 7)
    resets = np.random.default_rng(3).random((7, 6)) < rate
    assert resets[0].any() == (rate > 0)
    y, (h_n, c_n), grads = case.run(resets)
    sizes: dict[str, Any] = {"num_layers": 2, "num_directions": layer.num_directions}
    sizes |= {"lengths": case.lengths, "resets": resets}
    parameters = layer.state_dict()
    expected, (h, c) = reference.forward(case.x, case.state, parameters, **sizes)
    for got, want in ((y, expected), (h_n, h), (c_n, c)):
        np.testing.assert_allclose(got, want, atol=1e-14)
    dx, (dh, dc), dparameters = reference.backward(
        case.x, case.state, parameters, case.dy, case.dstate, **sizes
    )
    flat = np.concatenate([array.ravel() for array in dparameters.values()])
    for got, want in zip(grads, (dx, dh, dc, flat), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-13 * np.abs(want).max())


@pytest.mark.parametrize("bidirectional", [False, True])
def test_pytorch_packed_sequences(bidirectional: bool) -> None:
    torch = require("torch")
    rnn = torch.nn.utils.rnn
    layer = (BiLSTM if bidirectional else LSTM)(3, 8, 2, dtype="float64", seed=2)
    theirs = torch.nn.LSTM(3, 8, 2, bidirectional=bidirectional, dtype=torch.float64)
    arrays = {name: torch.from_numpy(a.copy()) for name, a in layer.state_dict().items()}
    theirs.load_state_dict(arrays)
    case = Case(layer, [5, 2, 9, 1], 9)
    packed = rnn.pack_padded_sequence(
        torch.from_numpy(np.nan_to_num(case.x)), case.lengths, enforce_sorted=False
    )
    out, (h_n, c_n) = theirs(packed, tuple(map(torch.from_numpy, case.state)))
    expected = rnn.pad_packed_sequence(out)[0]
    y, states, _ = case.run()
    for got, want in ((y, expected), (states[0], h_n), (states[1], c_n)):
        np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-14)


def test_offsets_are_the_same_without_padding(isa: str) -> None:
    layer = BiLSTM(3, 9, 2, isa=isa, seed=1)
    case = Case(layer, [4, 0, 7, 2], 7)
    ends = np.cumsum([0, *case.lengths])
    joined = np.concatenate([case.x[:n, b] for b, n in enumerate(case.lengths)])
    dy = np.concatenate([case.dy[:n, b] for b, n in enumerate(case.lengths)])
    y, (h_n, c_n), grads = case.run()
    out = np.empty((ends[-1], 18), np.float32)
    result, states = layer(joined, case.state, offsets=ends, out=out)
    assert result is out
    _, _, tape = layer.record(joined, case.state, offsets=ends)
    packed = tape.backward(dy, case.dstate)
    assert packed.params is not None
    assert packed.x is not None
    for b, n in enumerate(case.lengths):
        assert out[ends[b] : ends[b + 1]].tobytes() == y[:n, b].tobytes()
        assert grads.x is not None
        assert packed.x[ends[b] : ends[b + 1]].tobytes() == grads.x[:n, b].tobytes()
    assert states[0].tobytes() == h_n.tobytes()
    assert states[1].tobytes() == c_n.tobytes()
    assert packed.params.tobytes() == grads.params.tobytes()  # type: ignore[union-attr]


def test_equal_lengths_are_a_plain_batch() -> None:
    layer = LSTM(4, 6, 2, seed=0)
    x = np.random.default_rng(0).standard_normal((5, 3, 4))
    y, (h_n, c_n) = layer(x)
    y_ragged, (h_ragged, c_ragged) = layer(x, lengths=[5, 5, 5])
    assert y.tobytes() == y_ragged.tobytes()
    assert h_n.tobytes() == h_ragged.tobytes()
    assert c_n.tobytes() == c_ragged.tobytes()


def test_out_is_zero_beyond_a_length() -> None:
    out = np.full((4, 2, 3), 9, np.float32)
    LSTM(1, 3, seed=0)(np.ones((4, 2, 1)), lengths=[1, 3], out=out)
    assert not out[1:, 0].any()
    assert not out[3:, 1].any()
    assert out[0].all()


def test_gradients_are_added(isa: str) -> None:
    case = Case(BiLSTM(2, 5, dtype="float64", isa=isa, seed=0), [3, 0, 6], 6)
    _, _, fresh = case.run()
    _, _, tape = case.layer.record(case.x, case.state, lengths=case.lengths)
    into = Gradients(*(np.ones_like(array) for array in fresh if array is not None))
    got = tape.backward(case.dy, case.dstate, into=into)
    for array, target, expected in zip(got, into, fresh, strict=True):
        assert array is target
        assert expected is not None
        np.testing.assert_allclose(array, 1 + expected, atol=1e-12)


@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_nothing_to_do(lengths: list[int]) -> None:
    layer = LSTM(2, 3, seed=0)
    h_0 = np.ones((1, len(lengths), 3), np.float32)
    y, (h_n, _) = layer(np.ones((4, len(lengths), 2)), (h_0, h_0), lengths=lengths)
    assert y.shape == (4, len(lengths), 3)
    assert not y.any()
    assert (h_n == 1).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lengths": [1, 2, 3]}, ValueError, r"lengths: got shape \(3,\), expected \(2,\)"),
        ({"lengths": [1, 5]}, ValueError, "lengths: got 1 to 5, expected numbers from 0 to T = 4"),
        ({"lengths": [-1, 2]}, ValueError, "lengths: got -1 to 2"),
        ({"lengths": [1.0, 2.0]}, TypeError, "lengths: got values of dtype float64"),
        ({"lengths": "ab"}, TypeError, "lengths: got values of dtype"),
        (
            {"lengths": np.array([2**63, 1], np.uint64)},
            ValueError,
            "lengths: got 9223372036854775808",
        ),
        ({"lengths": [1, 2], "offsets": [0, 4]}, ValueError, "lengths, offsets: got both"),
        (
            {"offsets": [0, 4]},
            ValueError,
            r"offsets: got x of shape \(4, 2, 3\), expected \(N, 3\)",
        ),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LSTM(3, 5, seed=0)(np.ones((4, 2, 3)), **arguments)


@pytest.mark.parametrize("offsets", [[], [0, 5], [1, 4], [0, 3, 2, 4], [[0, 4]], 4])
def test_bad_offsets(offsets: Any) -> None:
    with pytest.raises(ValueError, match=r"offsets: got .*expected numbers that rise from 0 to 4"):
        LSTM(3, 5, seed=0)(np.ones((4, 3)), offsets=offsets)


def test_lengths_need_a_batch() -> None:
    with pytest.raises(ValueError, match=r"lengths: got x of shape \(4, 3\), expected a batch"):
        LSTM(3, 5, seed=0)(np.ones((4, 3)), lengths=[4])


def test_masked_lengths_are_refused() -> None:
    layer = LSTM(3, 5, seed=0)
    x = np.ones((4, 2, 3))
    with pytest.raises(TypeError, match=r"^lengths: got a masked array"):
        layer(x, lengths=np.ma.array([1, 2], mask=[0, 1]))
    with pytest.raises(TypeError, match=r"^offsets: got a masked array"):
        layer(x[:, 0], offsets=np.ma.array([0, 4], mask=[0, 1]))


def test_no_resets_in_no_time() -> None:
    layer = LSTM(3, 5, seed=0)
    assert layer(np.ones((0, 3)), resets=[])[0].shape == (0, 5)
    with pytest.raises(ValueError, match=r"^resets: got shape \(0,\), expected \(4,\)"):
        layer(np.ones((4, 3)), resets=[])
    with pytest.raises(TypeError, match=r"^resets: got values of dtype float64"):
        layer(np.ones((0, 3)), resets=np.zeros(0))


def test_offsets_name_where_they_fall() -> None:
    with pytest.raises(ValueError, match=r"^offsets: got 3, then 2 at 2, expected"):
        LSTM(3, 5, seed=0)(np.ones((4, 3)), offsets=[0, 3, 2, 4])

"""Sequences of different lengths: what padding, gaps and missing answers do to training: nothing.

PyTorch's packed sequences are the truth; everything else is compared to the bit.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, optim
from fastlstm.training import Network, Scaling, Sequences, Trainer, evaluate
from support.arrays import assert_same_bits
from support.layers import layer_class
from support.optional import require

pytestmark = pytest.mark.default_isa

MSE, CE = "mse", "cross_entropy"
LENGTHS = [8, 5, 3, 6, 1, 8, 7]
T, B, I, K, H = 8, len(LENGTHS), 3, 4, 5
PRESENT = np.arange(T)[:, np.newaxis] < LENGTHS

Arrays = dict[str, Any]


def make(loss: str, each_step: bool, *, junk: float = 0.0, steps: int = T) -> Arrays:
    """B sequences, padded to so many steps with junk; the same whatever that is."""
    rng = np.random.default_rng(7)
    answers = (T, B) if each_step else (B,)
    x = rng.normal(size=(T, B, I))
    y = rng.normal(size=(*answers, K)) if loss == MSE else rng.integers(0, K, answers)
    weights = rng.integers(1, 3, answers) / 2
    arrays = {"x": x, "y": y, "weights": weights}
    for name, array in arrays.items():
        if array.shape[:2] != (T, B):
            continue
        filling = junk if array.dtype.kind == "f" else 0
        filling = abs(junk) if name == "weights" and math.isfinite(junk) else filling
        filling = 1.0 if name == "weights" and not math.isfinite(junk) else filling
        grown = np.full((steps, *array.shape[1:]), filling, array.dtype)
        grown[:T][PRESENT] = array[PRESENT]
        arrays[name] = grown
    return {**arrays, "lengths": LENGTHS}


def make_network(
    loss: str,
    each_step: bool,
    layers: int,
    directions: int,
    dtype: Any = np.float64,
    **options: Any,
) -> Network:
    layer = layer_class(directions)(I, H, layers, dtype=dtype, seed=3, **options)
    return Network(layer, K, loss=loss, each_step=each_step, seed=4)  # type: ignore[arg-type]


def torch_loss(torch: Any, network: Network, arrays: Arrays) -> tuple[float, np.ndarray]:
    """Loss and gradient (N,) by packed sequences."""
    rnn, L, D = torch.nn.utils.rnn, network.lstm.num_layers, network.lstm.num_directions
    lstm = torch.nn.LSTM(I, H, L, bidirectional=D == 2)
    head = torch.nn.Linear(D * H, K)
    model = torch.nn.ModuleDict({"lstm": lstm, "head": head}).double()
    names = network.state_dict().items()
    model.load_state_dict(
        {k if k.startswith("head") else f"lstm.{k}": torch.tensor(v) for k, v in names}
    )
    x, y, w = (torch.from_numpy(arrays[name]) for name in ("x", "y", "weights"))
    lengths = torch.tensor(arrays["lengths"])
    packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    out, (h_n, _) = lstm(packed)
    if network.each_step:
        z = head(rnn.pad_packed_sequence(out, total_length=len(x))[0])
        there = torch.arange(len(x))[:, None] < lengths
        z, y, w = z[there], y[there], w[there]
    else:
        z = head(torch.cat(list(h_n[-D:]), -1))
    if network.loss == MSE:
        each = torch.nn.functional.mse_loss(z, y, reduction="none").mean(-1)
    else:
        each = torch.nn.functional.cross_entropy(z, y, reduction="none")
    loss = (each * w).sum() / w.sum()
    loss.backward()
    return loss.item(), np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])


@pytest.mark.parametrize("loss", [MSE, CE])
@pytest.mark.parametrize("each_step", [False, True])
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (1, 2), (3, 1), (2, 2)])
def test_losses_and_gradients_are_those_of_packed_sequences(
    loss: str, each_step: bool, layers: int, directions: int
) -> None:
    torch = require("torch")
    network, arrays = make_network(loss, each_step, layers, directions), make(loss, each_step)
    expected, expected_gradient = torch_loss(torch, network, arrays)
    score, gradient = network.gradient(**arrays)
    assert score.loss == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-9, atol=1e-12)
    assert network.score(**arrays) == score
    assert evaluate(network, Sequences(**arrays)).loss == pytest.approx(expected, rel=1e-12)


def forms(loss: str, each_step: bool) -> list[Arrays]:
    """The same sequences in all forms: junk, more of it, masks with gaps, lists, no padding."""
    plain = make(loss, each_step)
    lists = {
        name: [array[:n, b] for b, n in enumerate(LENGTHS)]
        for name, array in plain.items()
        if name == "x" or (each_step and name in ("y", "weights"))
    }
    found = [
        make(loss, each_step, junk=1e9),
        make(loss, each_step, junk=np.nan, steps=T + 20),
        {**{k: v for k, v in plain.items() if k != "lengths"}, **lists},
        {**{k: v for k, v in plain.items() if k != "lengths"}, "mask": PRESENT},
    ]
    for steps, seed in ((T, None), (T + 9, 0)):  # padding in front, then gaps anywhere
        rng = np.random.default_rng(seed)
        mask = np.zeros((steps, B), np.bool_)
        for b, n in enumerate(LENGTHS):
            mask[steps - n :, b] = True
            if seed is not None:
                mask[:, b] = rng.permutation(mask[:, b])
        arrays: Arrays = {"mask": mask}
        for name, array in plain.items():
            if name == "lengths":
                continue
            arrays[name] = array
            if array.shape[:2] == (T, B):
                grown = np.full((steps, *array.shape[1:]), 99, array.dtype)
                for b, n in enumerate(LENGTHS):
                    grown[mask[:, b], b] = array[:n, b]
                arrays[name] = grown
        found.append(arrays)
    return found


@pytest.mark.parametrize("loss", [MSE, CE])
@pytest.mark.parametrize("each_step", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
def test_padding_changes_no_bit(loss: str, each_step: bool, directions: int, dtype: Any) -> None:
    def results(arrays: Arrays, batch_first: bool) -> list[np.ndarray]:
        network = make_network(loss, each_step, 2, directions, dtype, batch_first=batch_first)
        score, gradient = network.gradient(**arrays)
        data = Sequences(**arrays, batch_first=batch_first)
        training, validation = data.split(0.3, seed=1)
        trainer = Trainer(network, training, validation, optim.Adam(1e-2), epochs=3, batch_size=2)
        trainer.fit()
        history = [(e.training.loss, e.validation.loss) for e in trainer.history if e.validation]
        scaling = Scaling.fit(training)
        moments = [scaling.x_mean, scaling.x_scale, scaling.y_mean, np.array(scaling.y_scale)]
        losses = np.array([score.loss, *sum(history, ())])
        return [losses, gradient, network.parameters.copy(), *moments]

    expected = results(make(loss, each_step), False)
    for arrays in forms(loss, each_step):
        for got, right in zip(results(arrays, False), expected, strict=True):
            assert_same_bits(got, right)
        turned = {
            name: np.ascontiguousarray(value.swapaxes(0, 1))
            if isinstance(value, np.ndarray) and value.ndim > 1 and value.shape[1] == B
            else value
            for name, value in arrays.items()
        }
        for got, right in zip(results(turned, True), expected, strict=True):
            assert_same_bits(got, right)


@pytest.mark.parametrize("directions", [1, 2])
def test_without_padding_lengths_change_no_bit(directions: int) -> None:
    x = np.random.default_rng(0).normal(size=(T, B, I))
    y = np.random.default_rng(1).normal(size=(T, B, K))
    network = make_network(MSE, True, 2, directions, np.float32)
    score, gradient = network.gradient(x, y)
    given: list[Arrays] = [
        {"x": x, "y": y, "lengths": T},
        {"x": x, "y": y, "lengths": [T] * B},
        {"x": x, "y": y, "mask": np.ones((T, B))},
        {"x": list(x.swapaxes(0, 1)), "y": list(y.swapaxes(0, 1))},
        {"x": np.pad(x, [(0, 9), (0, 0), (0, 0)]), "y": np.pad(y, [(0, 9), (0, 0), (0, 0)])}
        | {"lengths": T},
    ]
    for arrays in given:
        other, its = network.gradient(**arrays)
        assert other == score
        assert_same_bits(its, gradient)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("each_step", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_answers(directions: int, each_step: bool, batch_first: bool) -> None:
    network = make_network(MSE, each_step, 2, directions, np.float32, batch_first=batch_first)
    x = make(MSE, each_step, junk=np.nan)["x"]
    alone = []
    for b, n in enumerate(LENGTHS):
        one = x[:n, b : b + 1]
        z = network(one.swapaxes(0, 1) if batch_first else one)
        alone.append(z.reshape(-1, K))
    padded = network(x.swapaxes(0, 1) if batch_first else x, lengths=LENGTHS)
    listed = network([x[:n, b] for b, n in enumerate(LENGTHS)])
    assert isinstance(padded, np.ndarray)
    for b, expected in enumerate(alone):
        if each_step:
            column = padded[b] if batch_first else padded[:, b]
            assert_same_bits(column[: len(expected)].copy(), expected)
            assert not column[len(expected) :].any()
        else:
            assert_same_bits(padded[b : b + 1], expected)
        assert_same_bits(np.ascontiguousarray(listed[b]).reshape(-1, K), expected)
    mask = np.random.default_rng(3).permuted(PRESENT, axis=0)
    spread = np.full((T, B, I), np.nan)
    for b, n in enumerate(LENGTHS):
        spread[mask[:, b], b] = x[:n, b]
    turned = (1, 0) if batch_first else (0, 1)
    z = network(spread.transpose(*turned, 2), mask=mask.transpose(turned))
    assert isinstance(z, np.ndarray)
    for b, expected in enumerate(alone):
        if each_step:
            column = z[b] if batch_first else z[:, b]
            assert_same_bits(column[mask[:, b]], expected)
            assert not column[~mask[:, b]].any()
        else:
            assert_same_bits(z[b : b + 1], expected)


def test_the_work_is_that_of_the_steps_there_are() -> None:
    seen: list[tuple[int, ...]] = []

    class Counting(BiLSTM):
        def record(self, x: Any, state: Any = None, **options: Any) -> Any:
            seen.append(np.shape(x))
            return super().record(x, state, **options)

    data = Sequences(np.zeros((100, 4, I)), np.zeros((4, K)), lengths=[3, 2, 3, 1])
    network = Network(Counting(I, H, seed=0), K, each_step=False, seed=0)
    Trainer(network, data, None, optim.Adam(), epochs=1, batch_size=4).fit()
    assert seen == [(3, 4, I)]


def test_what_is_dropped_does_not_depend_on_padding() -> None:
    options = {"dropout": 0.3, "recurrent_dropout": 0.2, "zoneout_h": 0.1}
    network = make_network(MSE, True, 2, 2, **options)
    gradients = [
        network.gradient(**arrays, rng=np.random.default_rng(5))[1]
        for arrays in (make(MSE, True), *forms(MSE, True))
    ]
    for gradient in gradients[1:]:
        assert_same_bits(gradient, gradients[0])


def test_resuming_with_padding(tmp_path: Path) -> None:
    def start(arrays: Arrays) -> Trainer:
        network = make_network(CE, True, 1, 2)
        return Trainer(network, Sequences(**arrays), None, optim.Adam(), epochs=3, batch_size=2)

    arrays = make(CE, True)
    whole = start(arrays)
    whole.fit()
    first, second = start(arrays), start(arrays)
    for _ in range(5):
        first.step()
    first.save(tmp_path / "c.npz")
    second.load(tmp_path / "c.npz")
    second.fit()
    assert_same_bits(second.network.parameters.copy(), whole.network.parameters.copy())
    other = start({**arrays, "lengths": [*LENGTHS[:-1], 2]})
    with pytest.raises(ValueError, match="training data was"):
        other.load(tmp_path / "c.npz")


# weights of 0 at the end


def zero_tails(junk: float = 0.0, steps: int = T) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = make(MSE, True, junk=junk, steps=steps)
    weights = np.zeros((steps, B))
    weights[:T][PRESENT] = 1
    return arrays["x"], arrays["y"], weights


@pytest.mark.parametrize("layer", [BiLSTM(I, H, seed=3), LSTM(I, H, reverse=True, seed=3)])
@pytest.mark.parametrize("junk", [0.0, np.nan])
def test_blank_tails_of_weight_zero_are_padding(layer: Any, junk: float) -> None:
    network = Network(layer, K, seed=4)
    x, y, weights = zero_tails(junk)
    expected = evaluate(network, Sequences(*zero_tails(), lengths=LENGTHS))
    with pytest.warns(UserWarning, match="5 sequences of 7 end in steps .* taken for padding"):
        assert evaluate(network, Sequences(x, y, weights)) == expected
    with pytest.warns(UserWarning, match="taken for padding"):
        assert evaluate(network, Sequences(*zero_tails(junk, T + 20))) == expected
    with pytest.warns(UserWarning, match="x: 5 sequences of 7 .* taken for padding"):
        score, gradient = network.gradient(x, y, weights)
    right, its_gradient = network.gradient(x, y, weights, lengths=LENGTHS)
    assert score == right
    assert_same_bits(gradient, its_gradient)
    states = []
    for data in (Sequences(x, y, weights), Sequences(x, y, weights, lengths=LENGTHS)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = Trainer(network, data, None, optim.Adam(), epochs=2, batch_size=2)
        start = network.parameters.copy()
        trainer.fit()
        states.append(network.parameters.copy())
        network.load_parameters(start)
    assert_same_bits(states[0], states[1])


def test_tails_with_inputs_are_read() -> None:
    network = make_network(MSE, True, 1, 2)
    rng = np.random.default_rng(0)
    x, y, weights = rng.normal(size=(T, B, I)), rng.normal(size=(T, B, K)), PRESENT * 1.0
    expected = evaluate(network, Sequences(x, y, weights, lengths=T))
    with pytest.warns(UserWarning, match="their inputs are read by the layer"):
        assert evaluate(network, Sequences(x, y, weights)) == expected
    assert expected == network.score(x, y, weights)


@pytest.mark.parametrize("padding", [-1.0, "one", "answers"])
def test_tails_that_may_be_either_are_asked_about(padding: Any) -> None:
    network = make_network(MSE, True, 1, 2)
    x, y, weights = zero_tails()
    if padding == "one":
        x[~PRESENT] = np.random.default_rng(1).normal(size=(int((~PRESENT).sum()), I))
        x[-1, 1] = 0
    elif padding == "answers":
        y[~PRESENT] = 3
    else:
        x[~PRESENT] = padding
    data = Sequences(x, y, weights)
    message = r"not clear whether to read them: lengths= or mask= say .*, lengths=8 that none is"
    with pytest.raises(ValueError, match=message):
        evaluate(network, data)
    with pytest.raises(ValueError, match=f"training: .*{message}"):
        Trainer(network, data, None, optim.Adam())
    with pytest.raises(ValueError, match=f"x: .*{message}"):
        network.score(x, y, weights)
    for choice in (LENGTHS, T):
        evaluate(network, Sequences(x, y, weights, lengths=choice))
    forward = make_network(MSE, True, 1, 1)  # reads them last, and so may
    assert evaluate(forward, data).loss == pytest.approx(
        evaluate(forward, Sequences(x, y, weights, lengths=LENGTHS)).loss, rel=1e-12
    )


@pytest.mark.parametrize("each_step", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
def test_zeros_at_the_end_are_told_where_nothing_says_what_they_are(
    each_step: bool, directions: int
) -> None:
    network = make_network(MSE, each_step, 1, directions)
    arrays = make(MSE, each_step)
    x, y = arrays["x"], arrays["y"]
    with pytest.warns(UserWarning, match="sequences: 5 sequences of 7 end in inputs of zeros"):
        read = evaluate(network, Sequences(x, y))
    assert read == evaluate(network, Sequences(x, y, lengths=T))
    assert read != evaluate(network, Sequences(x, y, lengths=LENGTHS))
    x[-1] = 0  # of all
    evaluate(network, Sequences(x, y))


# answers that nobody knows


@pytest.mark.parametrize("each_step", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("padded", [False, True])
def test_missing_answers_of_weight_zero(each_step: bool, directions: int, padded: bool) -> None:
    for loss, missing in ((MSE, np.nan), (MSE, np.inf), (CE, -100), (CE, 255)):
        arrays = make(loss, each_step)
        if not padded:
            del arrays["lengths"]
            arrays["x"], arrays["weights"] = np.ones((T, B, I)), np.ones(arrays["weights"].shape)
        network = make_network(loss, each_step, 1, directions)
        gaps = (np.array([2, 0]), np.array([5, 0])) if each_step else (np.array([5, 0]),)
        arrays["weights"][gaps] = 0
        results = []
        for value in (1, missing):
            arrays["y"][gaps] = value
            score, gradient = network.gradient(**arrays)
            assert math.isfinite(score.loss)
            data = Sequences(**arrays)
            assert data.outputs <= K
            trainer = Trainer(network, data, None, optim.Adam(), epochs=2, batch_size=2)
            start = network.parameters.copy()
            trainer.fit()
            last = trainer.history[-1].training.loss
            results.append((np.array([score.loss, last]), gradient, network.parameters.copy()))
            network.load_parameters(start)
        for got, expected in zip(results[1], results[0], strict=True):
            assert_same_bits(got, expected)


def test_missing_answers_that_count() -> None:
    arrays = make(MSE, True)
    arrays["y"][3, 1, 2] = np.nan
    arrays["y"][4, 0] = np.inf
    message = r"y: holds NaN or infinity in 2 places, the first at \(3, 1\), expected .* weights="
    with pytest.raises(ValueError, match=message):
        Sequences(**arrays)
    with pytest.raises(ValueError, match=message):
        make_network(MSE, True, 1, 1).gradient(**arrays)
    known = np.isfinite(arrays["y"]).all(axis=-1)
    assert Sequences(**{**arrays, "weights": known}).counted.sum() == sum(LENGTHS) - 2  # type: ignore[union-attr]
    classes = make(CE, True)
    classes["y"][3, 1] = -100
    with pytest.raises(
        ValueError, match=r"y: got class -100, .* in 1 place, the first at \(3, 1\)"
    ):
        Sequences(**classes)
    with pytest.raises(
        ValueError, match=r"y: got classes -100 to -100, expected 0 to 3 .*\(3, 1\)"
    ):
        make_network(CE, True, 1, 1).score(**classes)


# layouts


def test_a_network_knows_its_layout() -> None:
    arrays = make(MSE, True)
    lengths, arrays["weights"] = arrays.pop("lengths"), np.ones((T, B))
    network = make_network(MSE, True, 2, 2, batch_first=True)
    same = make_network(MSE, True, 2, 2)
    turned = {name: np.ascontiguousarray(a.swapaxes(0, 1)) for name, a in arrays.items()}
    for more in ({}, {"lengths": lengths}):
        expected, gradient = same.gradient(**arrays, **more)
        score, its = network.gradient(**turned, **more)
        assert score == expected
        assert_same_bits(its, gradient)
        z = network(turned["x"], **more)
        assert isinstance(z, np.ndarray)
        assert_same_bits(z, np.ascontiguousarray(same(arrays["x"], **more).swapaxes(0, 1)))  # type: ignore[union-attr]
    arrays["lengths"] = turned["lengths"] = lengths
    data = Sequences(**turned, batch_first=True)
    assert evaluate(network, data) == evaluate(same, Sequences(**arrays))
    for wrong, its_network in ((data, same), (Sequences(**arrays), network)):
        with pytest.raises(ValueError, match=r"sequences: batch_first=(True|False); that does not"):
            evaluate(its_network, wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros((T, K))}, "with T = 8 and B = 7; the shapes fit with batch_first=True"),
        (
            {"y": np.zeros((T, K)), "x": np.zeros((B, T, I)), "batch_first": True},
            "fit without batch_first",
        ),
        ({"y": np.zeros((T, B))}, r"one number at each step is y\[\.\.\., np\.newaxis\]"),
        ({"y": np.zeros((B, T, K))}, "x and y lie in different layouts"),
        ({"lengths": [1] * T}, r"lengths: got shape \(8,\), .* fit with batch_first=True"),
        ({"lengths": LENGTHS, "mask": PRESENT}, "lengths, mask: got both"),
        ({"lengths": [T + 1] * B}, "lengths: got 9 to 9, expected numbers from 0 to T = 8"),
        ({"lengths": [1.0] * B}, "lengths: got values of dtype float64"),
        ({"lengths": [0, *LENGTHS[1:]], "y": np.zeros((B, K))}, "y: .* sequence 0, which has no"),
        ({"mask": PRESENT.T}, r"mask: got shape \(7, 8\), expected \(8, 7\)"),
        ({"mask": PRESENT * 0.5}, "mask: got other numbers than 0 and 1"),
        ({"mask": PRESENT.astype("U1")}, "mask: got values of dtype <U1"),
        ({"weights": PRESENT, "y": np.zeros((B, K))}, "weights: .* lengths= or mask= say which"),
        ({"x": [np.zeros((3, I))] * B, "lengths": [3] * B}, "x: got a list, whose arrays tell"),
        ({"x": [np.zeros((3, I)), np.zeros((2, 1))]}, r"x\[1\]: got shape \(2, 1\), expected"),
        ({"x": [np.zeros((3, I))] * 2, "y": [np.zeros((3, K))] * 3}, "y: got 3 arrays, expected 2"),
        ({"x": [[[1.0]] * 3, [[1.0]] * 2]}, r"x: got a list of unequal items, .* \(T_b, I\)"),
        ({"x": [np.zeros(3), np.zeros(2)]}, r"x: got a list of unequal items, .* \(T_b, I\)"),
        ({"x": [np.zeros((3, I))] * 2, "y": [np.zeros(3)] * 2}, r"y: got arrays \(T_b,\) of float"),
        ({"x": [np.zeros((3, I))] * 2, "y": [np.zeros((2, K))] * 2}, r"y\[0\]: got shape \(2, 4\)"),
    ],
)
def test_arguments_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    given = {"x": np.zeros((T, B, I)), "y": np.zeros((T, B, K)), **change}
    with pytest.raises((TypeError, ValueError), match=message):
        Sequences(**given)


def test_sequences_without_steps() -> None:
    arrays = make(MSE, True)
    data = Sequences(**{**arrays, "lengths": [0, *LENGTHS[1:]]})
    network = make_network(MSE, True, 1, 2)
    expected = evaluate(
        network, Sequences(*(arrays[n][:, 1:] for n in ("x", "y", "weights")), lengths=LENGTHS[1:])
    )
    assert evaluate(network, data).loss == pytest.approx(expected.loss, rel=1e-12)
    score, gradient = network.gradient(
        **{**{k: v[:, :1] for k, v in arrays.items() if k != "lengths"}, "lengths": [0]}
    )
    assert score.weight == 0
    assert not gradient.any()


def test_a_list_of_arrays_is_one_of_sequences() -> None:
    # Even if all happen to be of one length: what a program means does not depend on that.
    x = np.random.default_rng(0).normal(size=(B, T, I))
    data = Sequences(list(x), [np.zeros((T, K))] * B)
    assert len(data) == B
    np.testing.assert_array_equal(data.x, x.swapaxes(0, 1))
    assert len(Sequences(x.tolist(), np.zeros((T, K)))) == T  # an array, as it always was
    assert isinstance(fastlstm.training.Sequences(list(x), list(np.zeros((B, K)))).y, np.ndarray)

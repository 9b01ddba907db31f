"""Embeddings, pooling and heads: values and gradients beside PyTorch's, whatever the padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM
from fastlstm.training import Embedding, HeadSpec, Network
from support.arrays import assert_same_bits
from support.optional import require

pytestmark = pytest.mark.default_isa

T, B, V, E, H = 7, 4, 9, 3, 5
LENGTHS = np.array([7, 1, 4, 6])


def numbers(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def a_network(directions: int = 2, **options: Any) -> Network:
    kind = BiLSTM if directions == 2 else LSTM
    layer_options = {"batch_first": options.pop("batch_first", False), "dtype": np.float64}
    return Network(kind(E, H, 2, **layer_options, seed=0), seed=1, **options)


def torch_features(torch: Any, network: Network, x: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    """What the heads read of each sequence by itself, and PyTorch's parameters by our names."""
    ours = {name: torch.tensor(array) for name, array in network.state_dict().items()}
    for tensor in ours.values():
        tensor.requires_grad_()
    lstm = network.lstm
    D = lstm.num_directions
    module = torch.nn.LSTM(E, H, 2, bidirectional=D == 2, dtype=torch.float64)
    layer = {name: ours[name] for name in lstm.state_dict()}
    features = []
    for sequence in x:
        inputs = sequence
        if network.embedding is not None:
            inputs = torch.nn.functional.embedding(
                sequence, ours["embedding.weight"], network.embedding.padding_idx
            )
        y, (h_n, _) = torch.func.functional_call(module, layer, (inputs,))
        made = {
            "mean": lambda y=y, h_n=h_n: y.mean(0),
            "max": lambda y=y, h_n=h_n: y.amax(0),
            "last": lambda y=y, h_n=h_n: torch.cat(tuple(h_n[-D:]), -1),
        }
        features.append(y if network.each_step else made[network.pooling]())
    return features, ours


def assert_gradients(network: Network, gradient: np.ndarray, theirs: dict[str, Any]) -> None:
    for name, ours in network.named_views(gradient).items():
        np.testing.assert_allclose(ours, theirs[name].grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
def test_pooling_and_embedding_are_torch_s(
    directions: int, embedded: bool, pooling: str, batch_first: bool
) -> None:
    torch = require("torch")
    table = Embedding(V, E, padding_idx=2) if embedded else None
    network = a_network(directions, outputs=3, each_step=False, pooling=pooling,
                        embedding=table, batch_first=batch_first)  # fmt: skip
    x = np.random.default_rng(5).integers(0, V, (T, B)) if embedded else numbers(T, B, E)
    x[LENGTHS[1] :, 1] = 10**6 if embedded else np.nan  # padding may be anything
    y = numbers(B, 3, seed=6)
    given = x.swapaxes(0, 1) if batch_first else x
    score, gradient = network.gradient(given, y, lengths=LENGTHS)

    sequences = [torch.tensor(x[:n, b]) for b, n in enumerate(LENGTHS)]
    features, theirs = torch_features(torch, network, sequences)
    z = torch.stack(features) @ theirs["head.weight"].T + theirs["head.bias"]
    loss = torch.nn.functional.mse_loss(z, torch.tensor(y))
    loss.backward()
    np.testing.assert_allclose(network(given, lengths=LENGTHS), z.detach(), rtol=1e-10, atol=1e-12)
    assert score.loss == pytest.approx(float(loss.detach()), rel=1e-12)
    assert_gradients(network, gradient, theirs)

    listed = [x[:n, b] for b, n in enumerate(LENGTHS)]
    assert_same_bits(network.gradient(listed, y)[1], gradient)
    assert_same_bits(network(listed), network(given, lengths=LENGTHS))
    for b, n in enumerate(LENGTHS):  # nor do the others matter, or T
        alone = x[:n, b : b + 1]
        alone = alone.swapaxes(0, 1) if batch_first else alone
        assert_same_bits(network(alone), network(given, lengths=LENGTHS)[b : b + 1])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
def test_words_are_tagged_as_torch_does(directions: int, batch_first: bool) -> None:
    torch = require("torch")
    network = a_network(directions, outputs=3, loss="cross_entropy", batch_first=batch_first,
                        embedding=Embedding(V, E, padding_idx=0))  # fmt: skip
    mask = np.random.default_rng(0).random((T, B)) < 0.7
    mask[2] = True
    x = np.where(mask, np.random.default_rng(5).integers(0, V, (T, B)), V + 3)
    y = np.where(mask, np.random.default_rng(6).integers(0, 3, (T, B)), -100)
    given = [array.swapaxes(0, 1) if batch_first else array for array in (x, y, mask)]
    score, gradient = network.gradient(given[0], given[1], mask=given[2])
    listed = [torch.tensor(x[mask[:, b], b]) for b in range(B)]
    features, theirs = torch_features(torch, network, listed)
    z = torch.cat(features) @ theirs["head.weight"].T + theirs["head.bias"]
    tags = torch.tensor(np.concatenate([y[mask[:, b], b] for b in range(B)]))
    loss = torch.nn.functional.cross_entropy(z, tags)
    loss.backward()
    assert score.loss == pytest.approx(float(loss.detach()), rel=1e-12)
    assert_gradients(network, gradient, theirs)
    predicted = network.predict(given[0], mask=given[2])
    predicted = predicted.swapaxes(0, 1) if batch_first else predicted
    np.testing.assert_array_equal(
        np.concatenate([predicted[mask[:, b], b] for b in range(B)]), z.argmax(-1).numpy()
    )
    assert (predicted[~mask] == -1).all()


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_a_mask_is_as_if_the_steps_were_not_there(pooling: str) -> None:
    network = a_network(outputs=2, each_step=False, pooling=pooling, embedding=Embedding(V, E))
    mask = np.random.default_rng(0).random((T, B)) < 0.5
    mask[3] = True
    x = np.where(mask, np.random.default_rng(5).integers(0, V, (T, B)), -5)
    listed = [x[mask[:, b], b] for b in range(B)]
    y = numbers(B, 2, seed=6)
    assert_same_bits(network.gradient(x, y, mask=mask)[1], network.gradient(listed, y)[1])
    assert_same_bits(network(x, mask=mask), network(listed))


def test_one_feature_is_summed_in_order() -> None:
    network = Network(LSTM(1, 1, seed=0), 1, each_step=False, pooling="mean", seed=0)
    x = numbers(300, 1, 1).astype(np.float32)
    padded = np.concatenate([x, numbers(100, 1, 1)]).astype(np.float32)
    beside = np.concatenate([padded, padded[::-1]], axis=1)
    assert_same_bits(network(padded, lengths=[300]), network(x))
    assert_same_bits(network(beside, lengths=[300, 400])[:1], network(x))


def test_heads_are_torch_s() -> None:
    torch = require("torch")
    heads = {
        "amount": HeadSpec(2, weight=0.5),
        "kind": HeadSpec(loss="cross_entropy", classes=["a", "b", "c"], class_weights=[1, 2, 0.5]),
        "tags": HeadSpec(4, loss="binary_cross_entropy", weight=2),
    }
    network = a_network(heads=heads)
    x = numbers(T, B, E)
    y = {
        "amount": numbers(T, B, 2, seed=6),
        "kind": np.random.default_rng(7).integers(0, 3, (T, B)),
        "tags": numbers(T, B, 4, seed=8) > 0,
    }
    weights = np.random.default_rng(9).random((T, B))
    score, gradient = network.gradient(x, y, weights, lengths=LENGTHS)

    features, theirs = torch_features(
        torch, network, [torch.tensor(x[:n, b]) for b, n in enumerate(LENGTHS)]
    )
    rows = torch.cat(features)
    present = np.arange(T)[:, None] < LENGTHS

    def listed(array: np.ndarray) -> Any:
        return torch.tensor(np.concatenate([array[present[:, b], b] for b in range(B)]))

    w, functional, total = listed(weights), torch.nn.functional, 0
    for name, spec in heads.items():
        z = rows @ theirs[f"heads.{name}.weight"].T + theirs[f"heads.{name}.bias"]
        target = listed(y[name])
        if name == "amount":
            mean = (w * (z - target).square().mean(-1)).sum() / w.sum()
        elif name == "kind":
            of_class = w * torch.tensor(spec.class_weights, dtype=w.dtype)[target]
            each = functional.cross_entropy(z, target, reduction="none")
            mean = (of_class * each).sum() / of_class.sum()
        else:
            each = functional.binary_cross_entropy_with_logits(
                z, target.double(), reduction="none"
            ).mean(-1)
            mean = (w * each).sum() / w.sum()
        total = total + spec.weight * mean
    total.backward()
    assert score.loss == pytest.approx(float(total.detach()), rel=1e-12)
    assert_gradients(network, gradient, theirs)
    answers = network(x, lengths=LENGTHS)
    assert {name: z.shape for name, z in answers.items()} == {
        "amount": (T, B, 2),
        "kind": (T, B, 3),
        "tags": (T, B, 4),
    }
    assert (network.outputs, network.loss["kind"]) == (
        {"amount": 2, "kind": 3, "tags": 4},
        "cross_entropy",
    )


def test_embeddings_are_drawn_beside_the_rest() -> None:
    plain = Network(LSTM(E, H, seed=0), 2, seed=1)
    network = Network(LSTM(E, H, seed=0), 2, seed=1, embedding=Embedding(V, E, padding_idx=4))
    for name, array in plain.state_dict().items():
        assert_same_bits(network.state_dict()[name], array)
    table = network.state_dict()["embedding.weight"]
    assert table.shape == (V, E)
    assert not table[4].any()
    assert 0.5 < np.delete(table, 4, axis=0).std() < 1.5
    assert len(np.unique(table)) == V * E - E + 1


@pytest.mark.parametrize("steps", [1, T])
@pytest.mark.parametrize("batch", [1, B])
def test_one_step_and_one_sequence(steps: int, batch: int) -> None:
    for pooling in ("last", "mean", "max"):
        network = a_network(outputs=2, each_step=False, pooling=pooling, embedding=Embedding(V, E))
        x = np.random.default_rng(1).integers(0, V, (steps, batch))
        score, gradient = network.gradient(x, np.zeros((batch, 2)))
        assert score.weight == batch
        assert np.isfinite(gradient).all()
        assert network.predict(x).shape == (batch, 2)

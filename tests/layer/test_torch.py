"""Results against PyTorch over a random grid of options."""

from __future__ import annotations

import numpy as np
import pytest

from support.arrays import relative_difference
from support.layers import TOLERANCE, layer_class, random_state, results
from support.optional import require

# Around the tiles of every instruction set: 2, 4, 8, 16 lanes; 2, 3, 6 rows.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 37, 63, 64, 65]
BATCHES = [1, 2, 3, 4, 5, 6, 7, 8, 11, 13]


@pytest.mark.parametrize("trial", range(40))
def test_equals_torch(trial: int, isa: str, dtype: type) -> None:
    torch = require("torch")
    rng = np.random.default_rng(trial)
    I, H = (int(n) for n in rng.choice(SIZES, 2))
    L, D, T = (int(rng.integers(low, high)) for low, high in ((1, 4), (1, 3), (1, 40)))
    B = int(rng.choice(BATCHES))
    bias, batch_first, batched, with_state = (bool(n) for n in rng.integers(0, 2, 4))

    # The oracle is PyTorch in float64, its weights first rounded to the precision under test.
    torch.manual_seed(trial)
    theirs = torch.nn.LSTM(I, H, L, bias=bias, batch_first=batch_first, bidirectional=D == 2)
    theirs = theirs.to(getattr(torch, np.dtype(dtype).name))
    ours = layer_class(D)(I, H, L, bias=bias, batch_first=batch_first, dtype=dtype, isa=isa)
    ours.load_state_dict(theirs.state_dict())
    theirs = theirs.double()

    shape = (T, I) if not batched else (B, T, I) if batch_first else (T, B, I)
    x = rng.normal(size=shape).astype(dtype)
    state = random_state(rng, (L * D, B, H) if batched else (L * D, H), dtype)
    with torch.inference_mode():
        arguments = [torch.from_numpy(x).double()]
        if with_state:
            arguments.append(tuple(torch.from_numpy(s).double() for s in state))
        expected = results(theirs(*arguments))
    got = results(ours(x, state if with_state else None))
    for ours_, theirs_ in zip(got, expected, strict=True):
        assert ours_.dtype == dtype
        assert relative_difference(ours_, theirs_.numpy()) <= TOLERANCE[dtype]


def test_long_sequence_stays_close(isa: str) -> None:
    torch = require("torch")
    rng = np.random.default_rng(7)
    theirs = torch.nn.LSTM(5, 24).double()
    from fastlstm import LSTM

    ours = LSTM(5, 24, dtype=np.float64, isa=isa)
    ours.load_state_dict(theirs.state_dict())
    x = rng.normal(size=(3000, 1, 5))
    with torch.inference_mode():
        expected, _ = theirs(torch.from_numpy(x))
    assert relative_difference(ours(x)[0], expected.numpy()) <= TOLERANCE[np.float64]


def test_tensors_are_taken_and_results_given_back(dtype: type) -> None:
    torch = require("torch")
    from fastlstm import BiLSTM

    layer = BiLSTM(3, 4, dtype=dtype, seed=1)
    x = torch.randn(6, 2, 3).to(getattr(torch, np.dtype(dtype).name))
    y, (h_n, _) = layer(x)
    y_array, (h_n_array, _) = layer(x.numpy())
    assert np.array_equal(y, y_array)
    assert np.array_equal(h_n, h_n_array)
    assert np.array_equal(layer(x.requires_grad_())[0], y_array)
    theirs = torch.nn.LSTM(3, 4, bidirectional=True)
    theirs.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in layer.state_dict().items()})

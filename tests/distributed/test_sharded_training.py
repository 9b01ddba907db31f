"""Runs whose sums are those of shards, by one process and by threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, optim
from fastlstm.distributed import Reduction, WorkerError
from fastlstm.training import Embedding, HeadSpec, Network, Sequences, Trainer
from support.arrays import assert_same_bits
from support.shared_runs import EPOCHS, MODELS, OPTIONS, STEPS, trainer
from support.workers import in_threads

pytestmark = pytest.mark.default_isa


def state_of(run: Trainer) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in run.state_dict().items()}


def assert_same_states(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name in got:
        assert_same_bits(got[name], expected[name])


def fitted(model: str, reduce: Reduction | None, **options: Any) -> dict[str, np.ndarray]:
    run = trainer(model, reduce, **options)
    run.fit()
    return state_of(run)


@pytest.mark.parametrize("model", MODELS)
def test_any_number_of_workers_has_the_bits_of_one(model: str) -> None:
    one = fitted(model, Reduction())
    for workers in (2, 3, 8):
        for theirs in in_threads(workers, lambda reduce: fitted(model, reduce)):
            assert_same_states(theirs, one)


def test_shards_are_the_batch_within_rounding() -> None:
    # In float64, and without what a layer drops, which depends on the shards.
    whole, one = fitted("numbers", None), fitted("numbers", Reduction())
    np.testing.assert_allclose(one["parameters"], whole["parameters"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one["history"], whole["history"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one["metrics"], whole["metrics"], rtol=1e-9)


def heads(reduce: Reduction) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    network = Network(
        LSTM(4, 6, dtype=np.float64, seed=0),
        embedding=Embedding(9, 4),
        heads={"tag": HeadSpec(2, loss="cross_entropy"), "level": HeadSpec(1, weight=0.5)},
        seed=1,
    )
    y = {"tag": rng.integers(0, 2, (5, 12)), "level": rng.normal(size=(5, 12, 1))}
    weights = {"level": rng.integers(0, 2, (5, 12))}
    data = Sequences(rng.integers(0, 9, (5, 12)), y, weights, lengths=rng.integers(1, 6, 12))
    run = Trainer(network, data, data, optim.Adam(), epochs=2, batch_size=12, reduce=reduce)
    run.fit()
    return state_of(run)


def test_several_heads() -> None:
    one = heads(Reduction())
    for theirs in in_threads(3, heads):
        assert_same_states(theirs, one)
    whole = heads(None)
    np.testing.assert_allclose(one["parameters"], whole["parameters"], rtol=1e-9, atol=1e-12)


def test_a_callback_of_one_stops_all() -> None:
    def work(reduce: Reduction) -> int:
        def stop(run: Trainer) -> None:
            if reduce.rank == 1:
                run.stop()

        run = trainer("numbers", reduce, callbacks=[stop])
        run.fit()
        return run.steps

    assert in_threads(2, work) == [STEPS, STEPS]


def test_only_the_first_writes(tmp_path: Any) -> None:
    def work(reduce: Reduction) -> None:
        trainer("numbers", reduce).fit(tmp_path / f"{reduce.rank}.npz")

    in_threads(3, work)
    assert [path.name for path in tmp_path.iterdir()] == ["0.npz"]


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path: Any) -> None:
    def work(reduce: Reduction) -> None:
        trainer("numbers", reduce).fit(tmp_path / "none" / "c.npz" if reduce.rank == 0 else None)

    errors = in_threads(2, work)
    assert isinstance(errors[0], FileNotFoundError)
    assert isinstance(errors[1], WorkerError)
    assert str(errors[1]) == f"worker 0 of 2 failed: {errors[0]}"


@pytest.mark.parametrize(
    ("name", "options"),
    [("seed", {"seed": 5}), ("epochs", {"epochs": 9}), ("clip", {"clip": 2.0})],
)
def test_workers_with_other_options_are_refused(name: str, options: dict[str, Any]) -> None:
    def work(reduce: Reduction) -> None:
        trainer("numbers", reduce, **(options if reduce.rank else {})).fit()

    for error in in_threads(2, work):
        assert isinstance(error, WorkerError)
        assert str(error).startswith(f"{name}: got ")


def test_workers_with_other_data_or_weights_are_refused() -> None:
    def work(reduce: Reduction, what: str) -> None:
        run = trainer("numbers", reduce)
        if reduce.rank == 1 and what == "parameters":
            run.network.load_parameters(run.network.parameters + 1)
        elif reduce.rank == 1:
            options = {**OPTIONS["numbers"], "epochs": EPOCHS, "reduce": reduce}
            run = Trainer(run.network, run.validation, run.validation, run.optimizer, **options)
        run.fit()

    for what in ("parameters", "training data"):
        for error in in_threads(2, lambda reduce, what=what: work(reduce, what)):
            assert isinstance(error, WorkerError)
            assert str(error).startswith(f"{what}: got ")


def test_a_checkpoint_of_other_sums_is_refused() -> None:
    state = trainer("numbers", Reduction()).state_dict()
    for reduce in (None, Reduction(4), Reduction(reproducible=False)):
        with pytest.raises(ValueError, match=r"order of sums was 8 shards, expected "):
            trainer("numbers", reduce).load_state_dict(state)
    trainer("numbers", Reduction()).load_state_dict(state)


@pytest.mark.parametrize("value", ["mpi", Reduction, 4])
def test_no_reduction(value: Any) -> None:
    with pytest.raises(TypeError, match=r"reduce: got .*, expected a fastlstm.distributed"):
        trainer("numbers", value)

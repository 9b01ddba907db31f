"""Search for a size and a rate with Ray Tune, on one machine or many.

pip install "fastlstm[ray]" "ray[tune]"
python examples/search_ray.py --trials 8 --processors 1
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

import fastlstm
from fastlstm import LSTM, optim
from fastlstm.training import Network, Sequences, Trainer

EPOCHS = 10


def running_sums(count: int, steps: int, seed: int) -> Sequences:
    """Sequences of numbers, and the sum so far at each step."""
    x = np.random.default_rng(seed).normal(size=(steps, count, 1))
    return Sequences(x, x.cumsum(axis=0))


def train(config: dict[str, Any], training: Sequences, validation: Sequences) -> None:
    """Train a network in a process of Ray's, which ends it where others do better."""
    # Ray reserves so many processors for this process; the kernels would use all.
    fastlstm.set_num_threads(config["processors"])
    network = Network(LSTM(1, config["hidden"], seed=0), 1, seed=0)

    def report(run: Trainer) -> None:
        loss = run.history[-1].validation.loss
        tune.report({"loss": loss, "threads": fastlstm.get_num_threads()})

    Trainer(
        network, training, validation, optim.Adam(config["lr"]), epochs=EPOCHS, callbacks=[report]
    ).fit()


def main() -> None:
    """Search, and print the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--processors", type=int, default=1, help="of a trial (1)")
    parser.add_argument("--address", help="of a cluster; by default one of this machine is made")
    args = parser.parse_args()
    if args.address is None:
        allowed = len(os.sched_getaffinity(0))
        ray.init(
            num_cpus=allowed, include_dashboard=False, logging_level="error", log_to_driver=False
        )
    else:
        ray.init(args.address, logging_level="error")
    # Data travel once, and are shared by the trials of a machine.
    trainable = tune.with_parameters(
        train, training=running_sums(400, 20, 0), validation=running_sums(100, 20, 1)
    )
    with TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_resources(trainable, {"cpu": args.processors}),
            param_space={
                "hidden": tune.choice([4, 8, 16, 32]),
                "lr": tune.loguniform(1e-4, 1e-1),
                "processors": args.processors,
            },
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                num_samples=args.trials,
                search_alg=BasicVariantGenerator(random_state=0),
                scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=2, reduction_factor=2),
                reuse_actors=True,  # a process of a trial that ended is the next one's
            ),
            run_config=tune.RunConfig(storage_path=str(Path(folder)), verbose=0),
        ).fit()
    epochs = [result.metrics["training_iteration"] for result in results]
    threads = {result.metrics["threads"] for result in results}
    best = results.get_best_result()
    print(f"best loss {best.metrics['loss']:.4g}: hidden {best.config['hidden']}, ", end="")
    print(f"lr {best.config['lr']:.3g}; threads of a trial: {', '.join(map(str, threads))}")
    stopped = sum(epoch < EPOCHS for epoch in epochs)
    print(f"{len(epochs)} trials, {stopped} stopped early: ", end="")
    print(f"{sum(epochs)} of {EPOCHS * len(epochs)} epochs")
    ray.shutdown()


if __name__ == "__main__":
    main()

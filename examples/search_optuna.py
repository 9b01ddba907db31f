"""Search for sizes and rates with Optuna: unpromising runs stop early, and threads are shared out.

pip install "fastlstm[sklearn]" optuna
python examples/search_optuna.py --trials 20 --jobs 2
"""

from __future__ import annotations

import argparse
import os

import numpy as np
import optuna
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastlstm
from fastlstm import LSTM, optim
from fastlstm.sklearn import LSTMClassifier
from fastlstm.training import Network, Sequences, Trainer

EPOCHS = 10


def adding_problem(count: int, steps: int, seed: int) -> Sequences:
    """Sequences of numbers of which two are marked, and have to be added.

    Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, experiment 4.
    """
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(steps, count, 2))
    x[..., 1] = 0
    first, second = rng.integers(0, steps // 2, count), rng.integers(steps // 2, steps, count)
    each = np.arange(count)
    x[first, each, 1] = x[second, each, 1] = 1
    return Sequences(x, (x[..., 0] * x[..., 1]).sum(axis=0)[:, np.newaxis])


def of_a_trainer(trial: optuna.Trial, training: Sequences, validation: Sequences) -> float:
    """Train a network, and return its error; a run that looks bad is stopped after an epoch."""
    hidden = trial.suggest_int("hidden", 4, 32, log=True)
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)

    def report(run: Trainer) -> None:
        trial.report(run.history[-1].validation.loss, len(run.history))
        if trial.should_prune():
            run.stop()

    network = Network(LSTM(2, hidden, seed=0), 1, each_step=False, seed=0)
    run = Trainer(
        network, training, validation, optim.Adam(lr), epochs=EPOCHS, callbacks=[report], seed=0
    )
    run.fit()
    if not run.finished:
        raise optuna.TrialPruned
    return run.history[run.best_epoch - 1].validation.loss


def of_an_estimator(trial: optuna.Trial) -> float:
    """Train an estimator epoch by epoch, and return its accuracy, or stop as above."""
    x, y = load_digits(return_X_y=True)
    x, x_validation, y, y_validation = train_test_split(x.reshape(-1, 8, 8), y, random_state=0)
    model = LSTMClassifier(
        trial.suggest_int("hidden_size", 4, 32, log=True),
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
        random_state=0,
    )
    score = 0.0
    for epoch in range(1, EPOCHS + 1):
        model.partial_fit(x, y, classes=np.arange(10))
        score = model.score(x_validation, y_validation)
        trial.report(score, epoch)
        if epoch < EPOCHS and trial.should_prune():
            raise optuna.TrialPruned
    return score


def tell(what: str, study: optuna.Study) -> None:
    """Print what was best, and what the trials that were stopped saved."""
    pruned = study.get_trials(states=[optuna.trial.TrialState.PRUNED])
    epochs = sum(len(trial.intermediate_values) for trial in study.trials)
    of = EPOCHS * len(study.trials)
    best = ", ".join(f"{name} {value:.3g}" for name, value in study.best_params.items())
    print(f"{what}: best {study.best_value:.4g} with {best}")
    print(f"    {len(study.trials)} trials, {len(pruned)} stopped early: {epochs} of {of} epochs")


def main() -> None:
    """Search twice: over runs of a trainer, and over an estimator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20, help="of each search (20)")
    parser.add_argument("--jobs", type=int, default=1, help="trials at once (1)")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    training, validation = adding_problem(400, 20, 0), adding_problem(100, 20, 1)
    # Jobs are threads of this process, of which each computes with its share of the processors.
    threads = max(1, len(os.sched_getaffinity(0)) // args.jobs)
    print(f"jobs: {args.jobs}, threads of each: {threads}")
    with fastlstm.num_threads(threads):
        searches = [
            ("trainer, mean squared error", "minimize", None),
            ("estimator, accuracy", "maximize", of_an_estimator),
        ]
        for what, direction, objective in searches:
            study = optuna.create_study(
                direction=direction,
                sampler=optuna.samplers.TPESampler(seed=0),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2),
            )
            study.optimize(
                objective or (lambda trial: of_a_trainer(trial, training, validation)),
                n_trials=args.trials,
                n_jobs=args.jobs,
            )
            tell(what, study)


if __name__ == "__main__":
    main()

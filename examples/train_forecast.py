"""Train the bundled LSTM that forecasts the sea-surface temperature off Peru.

    python examples/train_forecast.py          # writes sst_forecast.npz, within ten seconds or so

The network reads the months one by one and answers, after each, with the anomalies 1 to 6 months
ahead. Its targets lie between the truth and a simple guess, the damped anomaly. Training sees
1950-1988, validation is 1989-1995. The held-out years 1996-2010 are touched by the last lines
alone, which score the finished file.
With --train-until YEAR-01 the training ends sooner and the seven years that follow validate.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastlstm import LSTM
from fastlstm.data import load_sst
from fastlstm.data.features import (
    HORIZONS,
    TRAINING_END,
    VALIDATION_MONTHS,
    Float32,
    Float64,
    Scaling,
    forecast_features,
    forecast_guess,
)
from fastlstm.data.training import Mixtures, save_model
from fastlstm.demo import run_forecast
from fastlstm.optim import AdamW
from fastlstm.training import Network, cosine

HIDDEN = 16
BATCHES_PER_EPOCH = 100
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.01
#: Weight of the simple guess in a target, where the truth has weight 1: 39 years are too few to
#: trust every difference between the two.
CAUTION = 2.0
#: The weights that are kept are a running average with this decay per batch.
AVERAGE = 0.98
#: Months at the start of a window that only warm the state up.
WARM_UP = 12
MIXTURES = Mixtures(length=72, batch=48, parts=8, gain=0.5, offset=0.2, mirror=True)


def training_batch(
    rng: np.random.Generator, record: Float64, scaling: Scaling
) -> tuple[Float32, Float32, NDArray[np.bool_]]:
    """One batch: x (T - 6, B, 4), the target (T - 6, B, 6), and which months count (T - 6, B)."""
    series, month = MIXTURES.draw(rng, record)
    steps = MIXTURES.length - max(HORIZONS)
    x, y = [], []
    for anomaly, m in zip(series, month, strict=True):
        ahead = np.stack([anomaly[h : h + steps] for h in HORIZONS], axis=1)
        x.append(forecast_features(anomaly, m)[:steps])
        guess = forecast_guess(anomaly, scaling)[:steps]
        y.append((ahead + CAUTION * guess) / (1.0 + CAUTION))
    counted = np.broadcast_to(np.arange(steps)[:, None] >= WARM_UP, (steps, MIXTURES.batch))
    return np.stack(x, 1), np.stack(y, 1).astype(np.float32), counted


def validation_rmse(
    network: Network, anomaly: Float64, month: NDArray[np.int64], scaling: Scaling, start: int
) -> tuple[Float64, Float64]:
    """(6,) RMSE in degrees Celsius of the months from `start` on: the network's, the guess's."""
    out = network(forecast_features(anomaly, month)[:, None, :])[:, 0, :].astype(np.float64)
    guess = forecast_guess(anomaly, scaling)
    targets = np.arange(start, len(anomaly))

    def rmse(forecast: Float64) -> Float64:
        errors = [forecast[targets - h, k] - anomaly[targets] for k, h in enumerate(HORIZONS)]
        return np.asarray(scaling.scale * np.sqrt(np.mean(np.square(errors), axis=1)))

    return rmse(out), rmse(guess)


def main() -> None:
    """Train, validate, write the file, score it."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--output", type=Path, default=Path("sst_forecast.npz"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train-until", default=TRAINING_END, metavar="YEAR-01")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)

    sst = load_sst()
    scaling = Scaling.fit(sst, options.train_until)
    end = sst.index(options.train_until)
    known = slice(0, end + VALIDATION_MONTHS)
    anomaly, month = scaling.anomaly(sst)[known], sst.month[known]

    network = Network(LSTM(4, HIDDEN, seed=rng), len(HORIZONS), seed=rng)
    averaged = copy.deepcopy(network)
    optimizer = AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = options.epochs * BATCHES_PER_EPOCH
    for step in range(steps):
        optimizer.lr = cosine(LEARNING_RATE, step, steps)
        batch = training_batch(rng, anomaly[:end], scaling)
        score = network.train_step(optimizer, *batch, clip=1.0)
        before = averaged.parameters
        averaged.load_parameters(before + (1 - AVERAGE) * (network.parameters - before))
        if (step + 1) % BATCHES_PER_EPOCH:
            continue
        ours, guess = validation_rmse(averaged, anomaly, month, scaling, end)
        change = float(np.exp(np.mean(np.log(ours / guess)))) - 1.0
        epoch = (step + 1) // BATCHES_PER_EPOCH
        print(
            f"epoch {epoch:2d}/{options.epochs}  loss {score.loss:.3f}  validation RMSE, 1 to 6 "
            f"months: {' '.join(f'{v:.3f}' for v in ours)} degC, {change:+.1%} against the guess",
            flush=True,
        )
    save_model(options.output, averaged.state_dict(), scaling)
    print(f"wrote {options.output}")
    if options.train_until == TRAINING_END:  # while settings are being chosen, don't look
        result = run_forecast(options.output, rounds=1)
        print(f"held-out RMSE, {result.horizon} months ahead: {result.score.rmse:.3f} degC")
        for name, score in result.baseline_scores.items():
            print(f"  {name}: {score.rmse:.3f} degC")


if __name__ == "__main__":
    main()

"""Train the bundled BiLSTM that fills gaps in the sea-surface temperature off Peru.

    python examples/train_gapfill.py           # writes sst_gapfill.npz, within ten seconds or so

The network reads the series in both directions, with a mark where months are missing, and answers
with the anomalies. Its targets lie between the truth and a simple guess, linear interpolation of
the anomalies, which it also reads. Training sees 1950-1988, validation is 1989-1995. The held-out
years 1996-2010 are touched by the last lines alone, which score the finished file.
With --train-until YEAR-01 the training ends sooner and the seven years that follow validate.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastlstm import BiLSTM
from fastlstm.data import load_sst
from fastlstm.data.features import (
    TRAINING_END,
    VALIDATION_MONTHS,
    Float32,
    Float64,
    Scaling,
    gap_masks,
    gapfill_features,
    gapfill_guess,
)
from fastlstm.data.training import Mixtures, random_gaps, save_model
from fastlstm.demo import run_gapfill
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
#: Known months after the validation's last gap, so that each gap has two sides.
MARGIN = 12
MIXTURES = Mixtures(length=60, batch=48, parts=8, gain=0.8, offset=0.3, mirror=True)


def training_batch(
    rng: np.random.Generator, record: Float64
) -> tuple[Float32, Float32, NDArray[np.bool_]]:
    """One batch: x (T, B, 4), the target (T, B, 1), and which months count (T, B)."""
    series, month = MIXTURES.draw(rng, record)
    missing = random_gaps(rng, MIXTURES.length, MIXTURES.batch)
    x, y = [], []
    for b in range(MIXTURES.batch):
        gap = missing[:, b : b + 1]
        guess = gapfill_guess(series[b], gap)
        x.append(gapfill_features(guess, month[b], gap)[:, 0, :])
        y.append((series[b][:, None] + CAUTION * guess) / (1.0 + CAUTION))
    return np.stack(x, 1), np.stack(y, 1).astype(np.float32), missing


def validation_rmse(
    network: Network, anomaly: Float64, month: NDArray[np.int64], scaling: Scaling, start: int
) -> tuple[float, float]:
    """RMSE in degrees Celsius over all months from `start` to the margin: network's, guess's."""
    missing = gap_masks(len(anomaly), start, len(anomaly) - MARGIN)
    guess = gapfill_guess(anomaly, missing)
    out = network(gapfill_features(guess, month, missing))[:, :, 0].astype(np.float64)

    def rmse(filled: Float64) -> float:
        return scaling.scale * float(np.sqrt(np.mean((filled - anomaly[:, None])[missing] ** 2)))

    return rmse(out), rmse(guess)


def main() -> None:
    """Train, validate, write the file, score it."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--output", type=Path, default=Path("sst_gapfill.npz"))
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

    network = Network(BiLSTM(4, HIDDEN, seed=rng), 1, seed=rng)
    averaged = copy.deepcopy(network)
    optimizer = AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = options.epochs * BATCHES_PER_EPOCH
    for step in range(steps):
        optimizer.lr = cosine(LEARNING_RATE, step, steps)
        score = network.train_step(optimizer, *training_batch(rng, anomaly[:end]), clip=1.0)
        before = averaged.parameters
        averaged.load_parameters(before + (1 - AVERAGE) * (network.parameters - before))
        if (step + 1) % BATCHES_PER_EPOCH:
            continue
        ours, guess = validation_rmse(averaged, anomaly, month, scaling, end)
        epoch = (step + 1) // BATCHES_PER_EPOCH
        print(
            f"epoch {epoch:2d}/{options.epochs}  loss {score.loss:.3f}  validation RMSE "
            f"{ours:.3f} degC, {ours / guess - 1.0:+.1%} against the guess",
            flush=True,
        )
    save_model(options.output, averaged.state_dict(), scaling)
    print(f"wrote {options.output}")
    if options.train_until == TRAINING_END:  # while settings are being chosen, don't look
        result = run_gapfill(options.output, rounds=1)
        print(f"held-out RMSE, gaps of {result.gap_length} months: {result.score.rmse:.3f} degC")
        for name, score in result.baseline_scores.items():
            print(f"  {name}: {score.rmse:.3f} degC")


if __name__ == "__main__":
    main()

"""Train the bundled BiLSTM that fills gaps in the sea-surface temperature off Peru.

    pip install "fastlstm[bench]"              # brings PyTorch, the trainer
    python examples/train_gapfill.py           # writes sst_gapfill.npz, within half a minute or so

The network reads the series in both directions, with a mark where months are missing, and answers
with the anomalies. Its targets lie between the truth and a simple guess, linear interpolation of
the anomalies, which it also reads. Training sees 1950-1988, validation is 1989-1995. The held-out
years 1996-2010 are touched by the last lines alone, which score the finished file with fastlstm
itself.
With --train-until YEAR-01 the training ends sooner and the seven years that follow validate.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fastlstm.data import load_sst
from fastlstm.data.features import (
    TRAINING_END,
    VALIDATION_MONTHS,
    Float64,
    Scaling,
    gap_masks,
    gapfill_features,
    gapfill_guess,
)
from fastlstm.data.training import Mixtures, random_gaps, save_model
from fastlstm.demo import run_gapfill

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


class Network(torch.nn.Module):
    """(T, B, 4) features to (T, B, 1) standardised anomalies."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(4, HIDDEN, bidirectional=True)
        self.head = torch.nn.Linear(2 * HIDDEN, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the layer and the head."""
        out: torch.Tensor = self.head(self.lstm(x)[0])
        return out


def training_batch(
    rng: np.random.Generator, record: Float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One batch: x (T, B, 4), the target (T, B), and which months count (T, B)."""
    series, month = MIXTURES.draw(rng, record)
    missing = random_gaps(rng, MIXTURES.length, MIXTURES.batch)
    x, y = [], []
    for b in range(MIXTURES.batch):
        gap = missing[:, b : b + 1]
        guess = gapfill_guess(series[b], gap)
        x.append(gapfill_features(guess, month[b], gap)[:, 0, :])
        y.append((series[b] + CAUTION * guess[:, 0]) / (1.0 + CAUTION))
    target = torch.from_numpy(np.stack(y, 1).astype(np.float32))
    return torch.from_numpy(np.stack(x, 1)), target, torch.from_numpy(missing)


def validation_rmse(
    network: torch.nn.Module, anomaly: Float64, month: np.ndarray, scaling: Scaling, start: int
) -> tuple[float, float]:
    """RMSE in degrees Celsius over all months from `start` to the margin: network's, guess's."""
    missing = gap_masks(len(anomaly), start, len(anomaly) - MARGIN)
    guess = gapfill_guess(anomaly, missing)
    with torch.no_grad():
        x = torch.from_numpy(gapfill_features(guess, month, missing))
        out = network(x)[:, :, 0].numpy().astype(np.float64)

    def rmse(filled: Float64) -> float:
        return scaling.scale * float(np.sqrt(np.mean((filled - anomaly[:, None])[missing] ** 2)))

    return rmse(out), rmse(guess)


def main() -> None:
    """Train, validate, write the file, score it."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--output", type=Path, default=Path("sst_gapfill.npz"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-until", default=TRAINING_END, metavar="YEAR-01")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.set_num_threads(1)  # the order of sums must not depend on the number of cores
    torch.use_deterministic_algorithms(True)
    rng = np.random.default_rng(options.seed)

    sst = load_sst()
    scaling = Scaling.fit(sst, options.train_until)
    end = sst.index(options.train_until)
    known = slice(0, end + VALIDATION_MONTHS)
    anomaly, month = scaling.anomaly(sst)[known], sst.month[known]

    network = Network()
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE))
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, options.epochs * BATCHES_PER_EPOCH
    )
    for epoch in range(1, options.epochs + 1):
        for _ in range(BATCHES_PER_EPOCH):
            x, y, counted = training_batch(rng, anomaly[:end])
            loss = torch.nn.functional.mse_loss(network(x)[:, :, 0][counted], y[counted])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(network)
        ours, guess = validation_rmse(averaged, anomaly, month, scaling, end)
        print(
            f"epoch {epoch:2d}/{options.epochs}  loss {loss.item():.3f}  validation RMSE "
            f"{ours:.3f} degC, {ours / guess - 1.0:+.1%} against the guess",
            flush=True,
        )
    state = averaged.module.state_dict()
    weights = {key.removeprefix("lstm."): value.numpy() for key, value in state.items()}
    save_model(options.output, weights, scaling)
    print(f"wrote {options.output}")
    if options.train_until == TRAINING_END:  # while settings are being chosen, don't look
        result = run_gapfill(options.output, rounds=1)
        print(f"held-out RMSE, gaps of {result.gap_length} months: {result.score.rmse:.3f} degC")
        for name, score in result.baseline_scores.items():
            print(f"  {name}: {score.rmse:.3f} degC")


if __name__ == "__main__":
    main()

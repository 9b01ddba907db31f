"""Train the bundled LSTM that forecasts the sea-surface temperature off Peru.

    pip install "fastlstm[bench]"              # brings PyTorch, the trainer
    python examples/train_forecast.py          # writes sst_forecast.npz, within ten seconds or so

The network reads the months one by one and answers, after each, with the anomalies 1 to 6 months
ahead. Its targets lie between the truth and a simple guess, the damped anomaly. Training sees
1950-1988, validation is 1989-1995. The held-out years 1996-2010 are touched by the last lines
alone, which score the finished file with fastlstm itself.
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
    HORIZONS,
    TRAINING_END,
    VALIDATION_MONTHS,
    Float64,
    Scaling,
    forecast_features,
    forecast_guess,
)
from fastlstm.data.training import Mixtures, save_model
from fastlstm.demo import run_forecast

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


class Network(torch.nn.Module):
    """(T, B, 4) features to (T, B, 6) standardised anomalies."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(4, HIDDEN)
        self.head = torch.nn.Linear(HIDDEN, len(HORIZONS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the layer and the head."""
        out: torch.Tensor = self.head(self.lstm(x)[0])
        return out


def training_batch(
    rng: np.random.Generator, record: Float64, scaling: Scaling
) -> tuple[torch.Tensor, torch.Tensor]:
    """One batch: x (T - 6, B, 4), and the target (T - 6, B, 6)."""
    series, month = MIXTURES.draw(rng, record)
    steps = MIXTURES.length - max(HORIZONS)
    x, y = [], []
    for anomaly, m in zip(series, month, strict=True):
        ahead = np.stack([anomaly[h : h + steps] for h in HORIZONS], axis=1)
        x.append(forecast_features(anomaly, m)[:steps])
        guess = forecast_guess(anomaly, scaling)[:steps]
        y.append((ahead + CAUTION * guess) / (1.0 + CAUTION))
    return torch.from_numpy(np.stack(x, 1)), torch.from_numpy(np.stack(y, 1).astype(np.float32))


def validation_rmse(
    network: torch.nn.Module, anomaly: Float64, month: np.ndarray, scaling: Scaling, start: int
) -> tuple[Float64, Float64]:
    """(6,) RMSE in degrees Celsius of the months from `start` on: the network's, the guess's."""
    with torch.no_grad():
        x = torch.from_numpy(forecast_features(anomaly, month)[:, None, :])
        out = network(x)[:, 0, :].numpy().astype(np.float64)
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
            x, y = training_batch(rng, anomaly[:end], scaling)
            loss = torch.nn.functional.mse_loss(network(x)[WARM_UP:], y[WARM_UP:])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(network)
        ours, guess = validation_rmse(averaged, anomaly, month, scaling, end)
        change = float(np.exp(np.mean(np.log(ours / guess)))) - 1.0
        print(
            f"epoch {epoch:2d}/{options.epochs}  loss {loss.item():.3f}  validation RMSE, 1 to 6 "
            f"months: {' '.join(f'{v:.3f}' for v in ours)} degC, {change:+.1%} against the guess",
            flush=True,
        )
    state = averaged.module.state_dict()
    weights = {key.removeprefix("lstm."): value.numpy() for key, value in state.items()}
    save_model(options.output, weights, scaling)
    print(f"wrote {options.output}")
    if options.train_until == TRAINING_END:  # while settings are being chosen, don't look
        result = run_forecast(options.output, rounds=1)
        print(f"held-out RMSE, {result.horizon} months ahead: {result.score.rmse:.3f} degC")
        for name, score in result.baseline_scores.items():
            print(f"  {name}: {score.rmse:.3f} degC")


if __name__ == "__main__":
    main()

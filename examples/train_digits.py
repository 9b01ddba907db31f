"""Train the bundled BiLSTM that tells handwritten digits, read row by row.

    python examples/train_digits.py           # writes digits.npz, within ten seconds or so

The pictures, 8 by 8 with 17 shades, come with scikit-learn (`pip install "fastlstm[sklearn]"`): a
picture is a sequence of eight steps with eight inputs. They are in the order in which they were
collected, writer by writer: the first 1047 train, as they are and moved by a pixel, the next 250
choose the epoch, and the last 500, mostly of other writers, are touched by the last lines alone,
which score the finished file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastlstm import BiLSTM
from fastlstm.demo import DIGITS_SPLIT, digits_data, plot_digits, run_digits
from fastlstm.optim import AdamW
from fastlstm.training import Network, Scaling, Sequences, Trainer

HIDDEN = 12
#: Rows and columns by which pictures are moved.
MOVES = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))


def moved(x: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """Return pictures (N, 8, 8) moved down and to the right, with nothing where they come from."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    return padded[:, 1 - rows : 9 - rows, 1 - columns : 9 - columns]


def train(seed: int, epochs: int) -> Network:
    """Return the trained network."""
    x, y = digits_data()  # (N, 8, 8), (N,)
    chosen, held_out = DIGITS_SPLIT
    known = np.concatenate([moved(x[:chosen], *move) for move in MOVES])
    parts = [
        Sequences(known, np.tile(y[:chosen], len(MOVES)), batch_first=True),
        Sequences(x[chosen:held_out], y[chosen:held_out], batch_first=True),
    ]
    # One scale for all eight columns of a picture: the outer ones are nearly always empty.
    scaling = Scaling.fit(parts[0])
    scaling.x_mean[:], scaling.x_scale[:] = x[:chosen].mean(), x[:chosen].std()
    network = Network(
        BiLSTM(8, HIDDEN, batch_first=True, seed=seed),
        loss="cross_entropy",
        classes=[str(digit) for digit in range(10)],
        each_step=False,
        pooling="mean",
        scaling=scaling,
        seed=seed,
        metadata={"data": "scikit-learn's digits, the first 1047", "script": "train_digits.py"},
    )
    trainer = Trainer(
        network,
        *(scaling.apply(part, network.lstm.dtype) for part in parts),
        AdamW(1e-2, weight_decay=0.05),
        epochs=epochs,
        batch_size=64,
        schedule="cosine",
        metrics=["f1_macro"],
        callbacks=[tell],
        seed=seed,
    )
    trainer.fit()
    network.load_parameters(trainer.best_parameters)
    return network


def tell(trainer: Trainer) -> None:
    """Print every fifth epoch."""
    if len(trainer.history) % 5 == 0:
        epoch = trainer.history[-1]
        assert epoch.validation is not None
        print(
            f"epoch {len(trainer.history):3}  loss {epoch.training.loss:.4f}  "
            f"validation {epoch.validation.loss:.4f}  accuracy {epoch.validation.accuracy:.4f}"
        )


def main() -> None:
    """Train, write, score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("digits.npz"))
    parser.add_argument("--plot", type=Path, help="write a picture of the confusion matrix")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    train(args.seed, args.epochs).save(args.output, overwrite=True)
    result = run_digits(args.output)
    print(f"held out: {result.evaluation}")
    for name, accuracy in result.baselines.items():
        print(f"{name}: accuracy {accuracy:.4f}")
    if args.plot:
        plot_digits(result, args.plot)


if __name__ == "__main__":
    main()

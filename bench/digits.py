"""Time to fit scikit-learn's digits, 8x8 pictures read row by row, beside PyTorch.

``python -m fastlstm.bench.digits``: the same network, batches and optimiser in both, one after the
other in turns; the median of the ratios. Needs scikit-learn and PyTorch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def torch_fit(
    x: Any, y: Any, hidden_size: int, epochs: int, batch_size: int, learning_rate: float
) -> Callable[[Any], Any]:
    """Train nn.LSTM and nn.Linear by Adam, and return what tells classes."""
    import torch

    torch.manual_seed(0)
    lstm = torch.nn.LSTM(x.shape[-1], hidden_size, batch_first=True)
    head = torch.nn.Linear(hidden_size, 10)
    optimizer = torch.optim.Adam([*lstm.parameters(), *head.parameters()], lr=learning_rate)
    loss_of = torch.nn.CrossEntropyLoss()
    scaled = torch.from_numpy(((x - x.mean()) / x.std()).astype(np.float32))
    classes = torch.from_numpy(y)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x)), batch_size):
            optimizer.zero_grad()
            h_n = lstm(scaled[rows])[1][0][-1]
            loss_of(head(h_n), classes[rows]).backward()
            optimizer.step()

    def predict(unseen: Any) -> Any:
        with torch.inference_mode():
            given = torch.from_numpy(((unseen - x.mean()) / x.std()).astype(np.float32))
            return head(lstm(given)[1][0][-1]).argmax(dim=-1).numpy()

    return predict


def main() -> None:
    """Print a line for each hidden size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()

    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from fastlstm.sklearn import LSTMClassifier

    torch.set_num_threads(args.threads)
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x.reshape(-1, 8, 8), y, random_state=0)
    for hidden_size in args.hidden:
        given = {
            "hidden_size": hidden_size,
            "epochs": args.epochs,
            "batch_size": args.batch_size,
            "learning_rate": 0.01,
        }
        model = LSTMClassifier(**given, clip=np.inf, random_state=0, n_jobs=args.threads)
        seconds: dict[str, list[float]] = {"fastlstm": [], "torch": []}
        for _ in range(args.repetitions):
            start = time.perf_counter()
            model.fit(x, y)
            between = time.perf_counter()
            predict = torch_fit(x, y, **given)
            seconds["fastlstm"].append(between - start)
            seconds["torch"].append(time.perf_counter() - between)
        ratio = statistics.median(
            theirs / ours
            for ours, theirs in zip(seconds["fastlstm"], seconds["torch"], strict=True)
        )
        accuracy = model.score(x_test, y_test), (predict(x_test) == y_test).mean()
        print(
            f"H={hidden_size} B={args.batch_size} threads={args.threads} epochs={args.epochs}: "
            + ", ".join(
                f"{name} {statistics.median(times):.3f} s (accuracy {right:.3f})"
                for (name, times), right in zip(seconds.items(), accuracy, strict=True)
            )
            + f", {ratio:.2f} times as fast"
        )


if __name__ == "__main__":
    main()

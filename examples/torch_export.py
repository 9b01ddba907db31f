"""Compile a classifier with an LSTM, and export it for a process that has never seen its code.

    python examples/torch_export.py            # writes torch_export.pt2, within a minute or so

`torch.nn.LSTM` breaks `torch.compile(fullgraph=True)`, and an exported one has its length for good.
With `fastlstm.torch.LSTM` the whole model is one graph, for sequences and batches of any size. Who
loads the file imports `fastlstm.torch`, whose operations the program calls, and none of this code.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from fastlstm.torch import LSTM

ELSEWHERE = """\
import sys, torch, fastlstm.torch
program = torch.export.load(sys.argv[1]).module()
for B, T in ((1, 7), (5, 200)):
    print(f"{T} steps of {B} sequences: {program(torch.ones(B, T, 3)).sum().item():.6f}")
"""


class Classifier(nn.Module):
    """Sequences (B, T, 3) to logits (B, K), from the last state of each direction."""

    def __init__(self, hidden_size: int = 32, classes: int = 4) -> None:
        super().__init__()
        self.lstm = LSTM(3, hidden_size, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (B, K)."""
        _, (h_n, _) = self.lstm(x)
        return self.head(torch.cat([h_n[-2], h_n[-1]], dim=-1))


def main() -> None:
    """Compile and train a few steps, export, and run the file in another process."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--output", type=Path, default=Path("torch_export.pt2"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = Classifier()

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=options.backend)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(options.steps):
        T = 10 + step % 7  # another length in each step, and not compiled again
        x = torch.randn(16, T, 3).cumsum(1)
        target = x[:, -1, :2].gt(0).long() @ torch.tensor(
            [1, 2]
        )  # the quadrant that a walk ends in
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(compiled(x), target)
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step:3d}  loss {loss.item():.3f}")

    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    shapes = {"x": {0: batch, 1: length}}
    program = torch.export.export(model.eval(), (torch.zeros(2, 5, 3),), dynamic_shapes=shapes)
    torch.export.save(program, options.output)
    print(f"wrote {options.output}")

    command = [sys.executable, "-c", ELSEWHERE, str(options.output)]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")
    with torch.no_grad():
        here = [model(torch.ones(B, T, 3)).sum().item() for B, T in ((1, 7), (5, 200))]
    print(f"and here: {here[0]:.6f}, {here[1]:.6f}")


if __name__ == "__main__":
    main()

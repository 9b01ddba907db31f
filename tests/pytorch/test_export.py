"""`torch.export` with a free length and batch, beside what becomes of `torch.nn.LSTM`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.optional import require

torch = require("torch")

from torch.export import Dim, export, load, save  # noqa: E402

from support.torch_calls import (  # noqa: E402
    LAYERS,
    Tagger,
    assert_close,
    case,
    gradients,
    silenced,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

FREE = {"x": {0: Dim("T", min=1, max=1000), 1: Dim("B", min=1, max=500)}}

RUN = """
import sys
import torch
import fastlstm.torch

program = torch.export.load(sys.argv[1])
x = torch.load(sys.argv[2])
torch.save(program.module()(x), sys.argv[3])
"""


def made(layer: str = "projection") -> Tagger:
    return Tagger(case(**LAYERS[layer]))


def steps(T: int, B: int) -> Any:
    return torch.randn(T, B, 3, dtype=torch.float64)


@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
def test_length_and_batch_stay_free(strict: bool) -> None:
    model = made().eval()
    program = export(model, (steps(5, 3),), dynamic_shapes=FREE, strict=strict)
    operations = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert operations.count("fastlstm.forward.default") == 1
    for run in (program.module(), program.run_decompositions().module()):
        for T, B in ((1, 1), (7, 2), (30, 9)):
            x = steps(T, B)
            assert_close(run(x), model(x), 0)


def test_another_process_runs_it(tmp_path: Path) -> None:
    model = made("bidirectional").eval()
    save(export(model, (steps(5, 3),), dynamic_shapes=FREE), tmp_path / "tagger.pt2")
    x = steps(8, 2)
    torch.save(x, tmp_path / "x.pt")
    paths = [str(tmp_path / name) for name in ("tagger.pt2", "x.pt", "y.pt")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, *paths], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_close(torch.load(tmp_path / "y.pt"), model(x), 0)


def test_what_was_exported_can_be_trained(tmp_path: Path) -> None:
    model = made()
    save(export(model, (steps(5, 3),), dynamic_shapes=FREE), tmp_path / "tagger.pt2")
    program = load(tmp_path / "tagger.pt2").module()
    x = steps(6, 2)
    found, expected = (
        dict(zip(names, gradients(lambda *_: run(x), tuple(own)), strict=True))  # noqa: B023
        for run in (program, model)
        for names, own in [zip(*run.named_parameters(), strict=True)]
    )
    assert_close(found, expected)


def test_packed_sequences() -> None:
    model = made().eval()
    total, T = Dim("N", max=10_000), Dim("T", max=1000)
    given = (torch.randn(6, 3, dtype=torch.float64), torch.tensor([3, 2, 1]))
    program = export(model, given, dynamic_shapes={"x": {0: total}, "batch_sizes": {0: T}})
    x, sizes = torch.randn(10, 3, dtype=torch.float64), torch.tensor([3, 3, 2, 2])
    assert_close(program.module()(x, sizes), model(x, sizes), 0)
    with pytest.raises(ValueError, match="batch_sizes: got a sum of 8, expected 10"):
        program.module()(x, sizes - torch.tensor([0, 0, 1, 1]))


def test_what_pytorch_does() -> None:
    """The table of docs."""
    if not torch.__version__.startswith("2.13."):
        pytest.skip("the table is of PyTorch 2.13")

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.LSTM(3, 3)

        def forward(self, x: Any) -> Any:
            return self.inner(x)[0]

    with silenced(), pytest.raises(Exception, match="specialized it to be a constant"):
        export(Own().eval(), (torch.randn(5, 3, 3),), dynamic_shapes=FREE)

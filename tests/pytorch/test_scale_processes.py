"""Several processes: the training of one on the whole batch, and inference in any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.optional import require

torch = require("torch")

from support.torch_processes import run_part  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_train_as_one(kind: str, tmp_path: Path) -> None:
    """DistributedDataParallel and fully_shard over gloo, each process with half the batch."""
    if not torch.distributed.is_available():
        pytest.skip("this PyTorch has no torch.distributed")
    if kind == "fsdp2" and not hasattr(require("torch.distributed.fsdp"), "fully_shard"):
        pytest.skip("this PyTorch has no fully_shard yet")
    torch.multiprocessing.spawn(run_part, (str(tmp_path), kind), nprocs=2)

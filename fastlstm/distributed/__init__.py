"""Models on many workers, by engines that exist: Dask, Ray, Spark, processes; MPI and PyTorch.

`Predictor` is what every engine sends to its workers and calls there. `fastlstm.xarray` applies one
to gridded data over Dask, `fastlstm.distributed.ray` and `fastlstm.distributed.spark` to their
data sets, and ``fastlstm run --engine`` to files. An answer's bits depend on the parameters and its
sequence alone: not on the engine, the number of workers, nor on how the data are cut.

Processes share a training run by ``Trainer(reduce=...)``: a `Reduction` is `MPI` where ``mpiexec``
started them, `Gloo` where ``torchrun`` did, or a Reduction itself, of one process. The weights are
the same, to the bit, for any number of them.
"""

from fastlstm.distributed._predictor import Predictor
from fastlstm.distributed.gloo import Gloo
from fastlstm.distributed.mpi import MPI
from fastlstm.distributed.reduction import Reduction, WorkerError

__all__ = ["MPI", "Gloo", "Predictor", "Reduction", "WorkerError"]

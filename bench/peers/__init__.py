"""The contestants: fastlstm, its NumPy reference, and every library it is compared with.

One adapter a file.  An adapter takes a :class:`~fastlstm.bench.problem.Problem` and the number of
threads, and gives back a runner: a call without arguments, which is timed, and ``arrays()``, which
runs it once and returns its results as NumPy arrays for the check.  What a user would do once
(converting weights, compiling, binding inputs) is done before the first call.

In a training cell the call is a forward and a backward pass: it computes y, h_n and c_n, then, from
given gradients with respect to these, the gradients of x, h_0, c_0 and all parameters.  There
fastlstm's runner also has ``repack()``, which is timed by itself.

The contestants of the grids ``precision`` and ``torch`` are called by the same adapters, most of
them in another precision or through another module.

Nothing is imported before it is asked for: a library that is not installed costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from ..problem import Arrays, Problem


class Runner(Protocol):
    """One contestant, ready to run one problem."""

    def __call__(self) -> object:
        """Do the work of one call and wait for the result."""

    def arrays(self) -> Arrays:
        """Run it and return y (T, B, D*P), h_n (L*D, B, P), c_n (L*D, B, H).

        y is padded with zeros, or of another shape where an option of the cell makes it so.
        Then, in training, the gradients: dx, dh_0, dc_0, and those of the parameters in the order
        and of the shapes of the problem's.
        """


class UnsupportedError(Exception):
    """The contestant can't do this cell; the message says why."""


@dataclass(frozen=True)
class Contestant:
    """A library that may be measured.

    Attributes
    ----------
    name : str
    module : str
        Module of this package that holds ``build(problem, threads) -> Runner``.
    needs : tuple of str
        Importable modules that the adapter uses.
    threads : str
        What holds it to a number of threads.
    switch : bool
        Whether that is a switch that always works.  Where it is not, and the system can't pin
        processes to processors either, the output says so.
    trains : bool
        Whether it takes part in training cells.
    variants : tuple of str or None
        What of ``Cell.variant`` it takes part in; None for everything.
    options : mapping of str to value
        Further arguments of ``build``, by name.
    library : str
        Environment variable that names the shared library it is called through; empty for none.
    bound : float or None
        Largest relative difference that passes for its precision in the grid ``precision``; None
        for that of the other grids.
    """

    name: str
    module: str
    needs: tuple[str, ...]
    threads: str
    switch: bool = True
    trains: bool = True
    variants: tuple[str, ...] | None = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    library: str = ""
    bound: float | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """The modules it needs that are not installed, and the variable that is not set."""
        unset = (self.library,) if self.library and not os.environ.get(self.library) else ()
        return tuple(name for name in self.needs if find_spec(name) is None) + unset

    def build(self, problem: Problem, threads: int) -> Runner:
        """Make a runner.

        Raises
        ------
        UnsupportedError
            If the library can't do this cell.
        ImportError
            If the library is not installed or does not load.
        """
        if problem.cell.training and not self.trains:
            raise UnsupportedError("does not train here")
        for variant in problem.cell.variant:
            if self.variants is not None and variant not in self.variants:
                raise UnsupportedError(f"has no {variant} here")
        module = import_module(f"{__name__}.{self.module}")
        runner: Runner = module.build(problem, threads, **self.options)
        return runner


OURS = Contestant("fastlstm", "ours", (), "FASTLSTM_NUM_THREADS", variants=None)
REFERENCE = Contestant("numpy", "numpy_reference", (), "the variables of its BLAS", variants=None)

PEERS = {
    peer.name: peer
    for peer in (
        Contestant(
            "torch",
            "pytorch",
            ("torch",),
            "torch.set_num_threads",
            variants=("proj_size", "ragged batches"),
        ),
        Contestant(
            "onnxruntime",
            "onnx_runtime",
            ("onnx", "onnxruntime"),
            "intra_op_num_threads of the session",
            trains=False,
            variants=("peepholes",),
        ),
        Contestant(
            "openvino",
            "open_vino",
            ("onnx", "openvino"),
            "INFERENCE_NUM_THREADS of the compiled model",
            trains=False,
        ),
        Contestant(
            "jax",
            "jax_scan",
            ("jax",),
            "NPROC, XLA_FLAGS and the processors it may use",
            switch=False,
        ),
    )
}


DROP_IN = replace(PEERS["torch"], name="fastlstm.torch", options={"module": "fastlstm.torch"})
"""fastlstm in place of PyTorch's module, by the same calls."""

DROP_IN_FROZEN = replace(
    DROP_IN,
    name="fastlstm.torch-frozen",
    options={"module": "fastlstm.torch", "frozen": True},
    trains=False,
)
"""The same, which does not look whether its parameters are what they were."""

DROP_IN_PEERS = {peer.name: peer for peer in (DROP_IN, DROP_IN_FROZEN, PEERS["torch"])}
"""Who takes part in the grid ``torch`` beside fastlstm."""

#: Largest relative differences of results that were computed right in a precision: they tell
#: rounding from a wrong result, not one rounding from another.
_BFLOAT16, _INT8, _INT16 = 3e-2, 1e-1, 2e-3

OURS_IN_BITS = {
    bits: replace(OURS, name=f"fastlstm-{bits}", options={"bits": bits}, bound=bound)
    for bits, bound in ((24, None), (16, _INT16), (8, _INT8))
}


def _like(peer: str, name: str, bound: float, **options: Any) -> Contestant:
    return replace(PEERS[peer], name=name, options=options, bound=bound)


def _library(name: str, variable: str, threads: str, bound: float | None) -> Contestant:
    """Make a peer without a Python package, whose shared library an environment variable names."""
    return Contestant(
        name,
        "shared_library",
        (),
        threads,
        trains=False,
        options={"variable": variable},
        library=variable,
        bound=bound,
    )


PRECISION_PEERS = {
    peer.name: peer
    for peer in (
        PEERS["torch"],
        _like("torch", "torch-bf16", _BFLOAT16, precision="bfloat16"),
        _like("torch", "torch-autocast", _BFLOAT16, precision="autocast"),
        _like("torch", "torch-int8", _INT8, precision="int8"),
        PEERS["onnxruntime"],
        _like("onnxruntime", "onnxruntime-int8", _INT8, quantized="tensor"),
        _like("onnxruntime", "onnxruntime-int8-channel", _INT8, quantized="channel"),
        PEERS["openvino"],
        _like("openvino", "openvino-default", _BFLOAT16, precision=None),
        _like("openvino", "openvino-bf16", _BFLOAT16, precision="bf16"),
        Contestant(
            "ncnn-int8",
            "ncnn_net",
            ("ncnn",),
            "opt.num_threads of the net",
            trains=False,
            bound=_INT8,
        ),
        Contestant(
            "litert-int8",
            "lite_rt",
            ("ai_edge_litert", "flatbuffers"),
            "num_threads of the interpreter",
            trains=False,
            bound=_INT8,
        ),
        _library("onednn-int8", "FASTLSTM_BENCH_ONEDNN", "OMP_NUM_THREADS", _INT8),
        _library("rtneural", "FASTLSTM_BENCH_RTNEURAL", "it has one thread", None),
    )
}
"""The peers of the grid ``precision``; in float32 they have the names that they have elsewhere."""

PEERS_OF_GRIDS = {"precision": PRECISION_PEERS, "torch": DROP_IN_PEERS}
"""Those of the grids that have their own."""


def select(
    names: str | None, among: Mapping[str, Contestant] = PEERS
) -> tuple[list[Contestant], list[Contestant]]:
    """Split the peers asked for into those installed and those not.

    Parameters
    ----------
    names : str or None
        Comma-separated names; an empty string for no peer; None for all.
    among : mapping of str to Contestant
        The peers there are, by name.

    Returns
    -------
    installed, missing : list of Contestant

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.
    """
    if names is None:
        asked = list(among)
    else:
        asked = list(dict.fromkeys(n.strip() for n in names.split(",") if n.strip()))
    for name in asked:
        if name not in among:
            raise ValueError(f"unknown peer {name!r}; there is {', '.join(among)}")
    chosen = [among[name] for name in asked]
    return [p for p in chosen if not p.missing], [p for p in chosen if p.missing]

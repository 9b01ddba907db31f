from collections.abc import Sequence
from typing import Any, Literal, NoReturn, Self

import numpy as np
import numpy.typing as npt

from fastlstm._quantized import Quantized
from fastlstm._spec import Spec
from fastlstm.variants import Masks

_Array = npt.NDArray[np.floating[Any]]

def available_isas() -> tuple[str, ...]: ...
def quantized_isas() -> tuple[str, ...]: ...
def default_isa() -> str: ...
def cpu_features() -> tuple[str, ...]: ...
def compiler() -> str: ...
def cache_sizes() -> dict[str, int]: ...
def get_num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def activation(
    name: Literal["sigmoid", "tanh"], x: _Array, y: _Array, isa: str | None = None
) -> None: ...
def limit_fma(is_double: bool, rounds: int, isa: str | None = None) -> float: ...
def limit_read(x: _Array, repeats: int, isa: str | None = None) -> float: ...
def linear(x: _Array, weight: _Array, bias: _Array, z: _Array, isa: str | None = None) -> None: ...
def softmax(
    z: _Array,
    scales: _Array,
    out: _Array,
    largest: _Array,
    totals: _Array,
    at: _Array,
    isa: str | None = None,
) -> None: ...
def linear_backward(
    dz: _Array,
    x: _Array,
    weight: _Array,
    dweight: _Array,
    dbias: _Array,
    dx: _Array,
    isa: str | None = None,
) -> None: ...
def norm(vector: _Array) -> float: ...
def adam_step(
    p: _Array,
    g: _Array,
    m: _Array,
    v: _Array,
    v_max: _Array | None,
    beta1: float,
    beta2: float,
    eps: float,
    rate: float,
    correction: float,
    keep: float,
    decay: float,
) -> None: ...
def sort_pieces(
    lengths: npt.NDArray[np.intp], first_rows: npt.NDArray[np.intp], step: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]: ...
def unpack_rows(packed: _Array, rows: npt.NDArray[np.intp], out: _Array) -> None: ...
def same_bytes(parts: Sequence[object], whole: object) -> bool: ...
def quantize_rows(
    bits: int, weights: _Array
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]: ...

class Model:
    def __init__(
        self,
        spec: Spec,
        parameters: _Array | None,
        isa: str | None,
        quantized: Quantized | None = None,
    ) -> None: ...
    @property
    def input_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_directions(self) -> int: ...
    @property
    def is_double(self) -> bool: ...
    @property
    def is_reverse(self) -> tuple[bool, ...]: ...
    @property
    def isa(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    def forward(
        self,
        x: _Array,
        h_0: _Array | None,
        c_0: _Array | None,
        y: _Array | None,
        h_n: _Array,
        c_n: _Array,
        batch_first: bool = False,
        tape: _Array | None = None,
        starts: npt.NDArray[np.intp] | None = None,
        masks: Masks | None = None,
    ) -> None: ...
    def forward_pieces(
        self,
        x: _Array,
        lengths: npt.NDArray[np.intp],
        first_rows: npt.NDArray[np.intp],
        step: int,
        h_0: _Array | None,
        c_0: _Array | None,
        y: _Array | None,
        h_n: _Array,
        c_n: _Array,
    ) -> None: ...
    def run_plain(
        self, x: object, state: object, lengths: object, out: object
    ) -> tuple[_Array, tuple[_Array, _Array]] | None: ...
    def run_unmerged(
        self, x: object, state: object, lengths: object, out: object
    ) -> tuple[_Array | None, tuple[_Array, _Array]] | None: ...
    @property
    def parameter_count(self) -> int: ...
    def tape_size(self, T: int, B: int, starts: npt.NDArray[np.intp] | None = None) -> int: ...
    def backward(
        self,
        parameters: _Array,
        x: _Array,
        h_0: _Array | None,
        c_0: _Array | None,
        tape: _Array,
        dy: _Array | None,
        dh_n: _Array | None,
        dc_n: _Array | None,
        dx: _Array | None,
        dh_0: _Array | None,
        dc_0: _Array | None,
        dparameters: _Array | None,
        accumulate: bool,
        batch_first: bool = False,
        starts: npt.NDArray[np.intp] | None = None,
        batch_size: int = 0,
        masks: Masks | None = None,
    ) -> None: ...

class StreamBase:
    def __new__(cls, model: Model, batch_size: int, batch_first: bool, y: _Array) -> Self: ...
    def __reduce__(self) -> NoReturn: ...
    @property
    def input_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def batch_first(self) -> bool: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def isa(self) -> str: ...
    @property
    def address(self) -> int: ...
    @property
    def step_address(self) -> int: ...
    def step(self, x_t: npt.ArrayLike, out: _Array | None = None) -> _Array: ...
    def _convert(self, x_t: npt.ArrayLike, out: _Array | None) -> _Array: ...
    def _native(self, out: _Array) -> _Array: ...
    def _push(self, x: _Array, y: _Array) -> None: ...
    def _reset(self, mask: bytes | None) -> None: ...
    def _get_state(self, h: _Array, c: _Array) -> None: ...
    def _set_state(self, h: _Array, c: _Array) -> None: ...

class Tensors:
    def __new__(
        cls,
        classes: tuple[type, ...],
        exchange: object,
    ) -> Self: ...
    def join(
        self,
        parameters: Sequence[object],
        shapes: Sequence[tuple[int, ...]],
        kept: _Array | None,
        count: int,
        dtype: np.dtype[Any],
        /,
    ) -> _Array | None: ...
    def share(self, vector: _Array, shapes: list[tuple[int, ...]], /) -> tuple[Any, ...]: ...
    def forward(
        self,
        model: Model,
        x: object,
        h_0: object,
        c_0: object,
        batch_first: bool,
        recorded: bool,
        /,
    ) -> tuple[Any, ...] | None: ...
    def backward(
        self,
        model: Model,
        parameters: _Array,
        x: object,
        h_0: object,
        c_0: object,
        tape: object,
        seeds: tuple[object, object, object],
        wanted: tuple[bool, ...],
        /,
    ) -> list[Any] | None: ...

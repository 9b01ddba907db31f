from typing import Any, Literal

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[np.floating[Any]]

def available_isas() -> tuple[str, ...]: ...
def default_isa() -> str: ...
def compiler() -> str: ...
def cache_sizes() -> dict[str, int]: ...
def activation(
    name: Literal["sigmoid", "tanh"], x: _Array, y: _Array, isa: str | None = None
) -> None: ...

class Model:
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        num_directions: int,
        bias: bool,
        parameters: _Array,
        isa: str | None,
    ) -> None: ...
    @property
    def input_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_directions(self) -> int: ...
    @property
    def is_double(self) -> bool: ...
    @property
    def isa(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    def forward(
        self,
        x: _Array,
        h_0: _Array | None,
        c_0: _Array | None,
        y: _Array,
        h_n: _Array,
        c_n: _Array,
        batch_first: bool = False,
    ) -> None: ...

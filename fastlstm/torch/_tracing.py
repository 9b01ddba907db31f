"""What a tracer of `torch.fx` records of a call."""

from __future__ import annotations

from typing import Any

import torch


def is_traced(x: Any) -> bool:
    """Tell whether an argument stands for a tensor in a trace."""
    return isinstance(x, torch.fx.Proxy)


def as_node(module: torch.nn.Module, x: Any, hx: Any, **options: Any) -> tuple[Any, Any]:
    """Record a call of a module as one node of the graph.

    So are modules of ``torch.nn``, which tracers know by the name of their package.
    """
    given = {name: value for name, value in options.items() if value is not None}
    path = x.tracer.path_of_module(module)
    node: tuple[Any, Any] = x.tracer.create_proxy("call_module", path, (x, hx), given)
    return node

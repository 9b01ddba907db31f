"""Optimisers with options of every kind, by name."""

from __future__ import annotations

from typing import Any

from fastlstm.optim import SGD, Adam, AdamW

# Class, learning rate and the other options, max_norm.
Case = tuple[type, float, dict[str, Any], float | None]
CASES: dict[str, Case] = {
    "sgd": (SGD, 0.1, {}, None),
    "sgd_decay": (SGD, 0.1, {"weight_decay": 0.05}, None),
    "sgd_momentum": (SGD, 0.05, {"momentum": 0.9}, None),
    "sgd_dampening": (
        SGD,
        0.05,
        {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
        None,
    ),
    "sgd_nesterov": (SGD, 0.05, {"momentum": 0.9, "nesterov": True}, None),
    "sgd_nesterov_clip": (
        SGD,
        0.05,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.02},
        1.5,
    ),
    "adam": (Adam, 1e-3, {}, None),
    "adam_decay": (Adam, 0.01, {"weight_decay": 0.1}, None),
    "adam_betas": (Adam, 0.01, {"betas": (0.3, 0.8), "eps": 1e-3}, None),
    "adam_no_means": (Adam, 0.01, {"betas": (0.0, 0.0), "eps": 1e-2}, None),
    "adam_amsgrad": (Adam, 0.01, {"betas": (0.9, 0.7), "amsgrad": True}, None),
    "adamw": (AdamW, 1e-3, {}, None),
    "adamw_clip": (AdamW, 0.01, {"weight_decay": 0.3}, 0.5),
    "adamw_amsgrad": (
        AdamW,
        0.01,
        {"weight_decay": 0.1, "amsgrad": True, "betas": (0.5, 0.6), "eps": 1e-6},
        1.0,
    ),
}


def make(name: str) -> Any:
    kind, lr, options, _ = CASES[name]
    return kind(lr, **options)

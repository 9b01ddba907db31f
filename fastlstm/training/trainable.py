"""A step of training: the gradient of a batch, and the change of the parameters by it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import RealArray
from fastlstm.optim import clip_grad_norm
from fastlstm.training.losses import Score
from fastlstm.training.optimizers import Optimizer, as_clip, check_optimizer, is_own
from fastlstm.training.recurrent import RecurrentModel
from fastlstm.training.sequences import Given


class TrainableModel(RecurrentModel):
    """A model whose parameters an optimiser changes."""

    __slots__ = ()

    def train_step(
        self,
        optimizer: Optimizer,
        x: Given,
        y: Any,
        weights: Any = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        clip: float = math.inf,
        rng: np.random.Generator | None = None,
    ) -> Score:
        """Take one step of an optimiser on a batch.

        Parameters
        ----------
        optimizer : SGD, Adam, AdamW, or an object with ``step(parameters, gradient)``
            The method changes the first array (N,) in place and leaves the second.
        x, y, weights, lengths, mask, rng
            As of `gradient`.
        clip : float
            Largest norm of the gradient; a longer one is scaled down to it.

        Returns
        -------
        Score
            Of the batch, before the step.

        Raises
        ------
        FloatingPointError
            If the loss or the gradient is not finite. The parameters are then as they were.
        TypeError, ValueError
            As from `gradient` and ``fastlstm.optim``.
        """
        check_optimizer(optimizer)
        clip = as_clip(clip)
        score, gradient = self.gradient(x, y, weights, lengths=lengths, mask=mask, rng=rng)
        self.apply(optimizer, gradient, clip=clip, score=score)
        return score

    def apply(
        self,
        optimizer: Optimizer,
        gradient: RealArray,
        *,
        clip: float = math.inf,
        score: Score | None = None,
    ) -> float:
        """Change the parameters by a gradient: the second half of `train_step`.

        Parameters
        ----------
        optimizer, clip
            As of `train_step`.
        gradient : ndarray (N,)
            What `gradient` returned, or a sum of such; it is scaled in place where it is too long.
        score : Score, optional
            What belongs to it: a loss that is not finite is then refused, too.

        Returns
        -------
        float
            The norm of the gradient as it was given.

        Raises
        ------
        FloatingPointError, TypeError, ValueError
            As from `train_step`. The parameters are then as they were.
        """
        check_optimizer(optimizer)
        self._check_trains()
        norm = clip_grad_norm(gradient, as_clip(clip))
        if not (math.isfinite(norm) and (score is None or math.isfinite(score.loss_sum))):
            loss = "" if score is None else f"loss {score.loss}, "
            raise FloatingPointError(
                f"the training diverged: {loss}gradient of norm {norm}; "
                "a smaller lr or clip may help"
            )
        if is_own(optimizer):
            optimizer.step(self._vector, gradient)
            self.lstm.load_parameters(self._vector[: self.lstm.parameters.size])
        else:
            # A copy, as it may fail half-way, or keep the array.
            changed = self._vector.copy()
            optimizer.step(changed, gradient)
            self.load_parameters(changed)
        return norm

"""An LSTM with a linear head as one vector of parameters: answers, gradients, steps."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import RealArray, as_flag, as_real_array, as_size
from fastlstm._linear import linear
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.optim import SGD, Adam, clip_grad_norm
from fastlstm.training.batches import PaddedBatch
from fastlstm.training.checks import as_array, as_weights, check_answers
from fastlstm.training.losses import LOSSES, LossName, Score, weighted
from fastlstm.training.padding import steps_of_tails
from fastlstm.training.sequences import Given, as_padded
from fastlstm.weights import Head, save


class Network:
    """A layer with a linear head on its hidden states, ``z = h @ weight.T + bias``, and a loss.

    Parameters
    ----------
    lstm : LSTM or BiLSTM
        Any number of layers. It belongs to the network from then on, which changes its parameters.
        With ``batch_first`` all arrays with an axis of time are (B, T, ...) in place of
        (T, B, ...).
    outputs : int
        K, numbers in an answer, or classes.
    loss : {"mse", "cross_entropy"}
        Mean squared error, or the cross-entropy of a softmax over K classes.
    each_step : bool
        Whether there is an answer at each step, from h_t, or one for the sequence, from the last
        layer's h_n: of a BiLSTM the final states of both directions, side by side.
    seed : int or numpy.random.Generator, optional
        For the head's first parameters, drawn from U(-1/sqrt(D*P), 1/sqrt(D*P)) as PyTorch's are.

    Attributes
    ----------
    lstm, outputs, loss, each_step
        As above.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    An answer's bits depend on the parameters and its sequence alone, and are those that
    ``fastlstm run`` gives for the file that `save` writes. The sums of the head's gradient are
    NumPy's own (``einsum``), not those of a BLAS, whose bits may depend on the number of threads;
    with a thousand classes they take longer than the layer does.
    """

    __slots__ = ("__weakref__", "_vector", "each_step", "loss", "lstm", "outputs")

    def __init__(
        self,
        lstm: LSTM | BiLSTM,
        outputs: int,
        *,
        loss: LossName = "mse",
        each_step: bool = True,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        if not isinstance(lstm, LSTM | BiLSTM):
            raise TypeError(f"lstm: got {type(lstm).__name__}, expected an LSTM or BiLSTM")
        if lstm.bits is not None:
            raise ValueError(
                f"lstm: got one of {lstm.bits} bits, which can't be trained, expected one of floats"
            )
        if lstm.merge_mode != "concat" or not lstm.return_sequences:
            raise ValueError(f"lstm: got {lstm}, expected one that gives all outputs, side by side")
        if loss not in LOSSES:
            raise ValueError(f"loss: got {loss!r}, expected one of {', '.join(LOSSES)}")
        self.lstm = lstm
        self.outputs = as_size("outputs", outputs)
        self.loss: LossName = loss
        self.each_step = as_flag("each_step", each_step)
        width = lstm.num_directions * lstm.output_size
        bound = 1 / math.sqrt(width)
        try:
            # A child, or LSTM(seed=0) and Network(seed=0) would begin with the same numbers.
            (rng,) = np.random.default_rng(seed).spawn(1)
        except (TypeError, ValueError) as error:
            raise type(error)(f"seed: got {seed!r}: {error}") from None
        head = rng.uniform(-bound, bound, self.outputs * (width + 1))
        self._vector: RealArray = np.concatenate([lstm.parameters, head.astype(lstm.dtype)])

    def __repr__(self) -> str:
        return (
            f"Network({self.lstm}, {self.outputs}, loss={self.loss!r}, each_step={self.each_step})"
        )

    @property
    def parameters(self) -> RealArray:
        """(N,) of the layer's dtype, read-only: `LSTM.parameters`, then head.weight, head.bias."""
        view = self._vector.view()
        view.flags.writeable = False
        return view

    def load_parameters(self, vector: npt.ArrayLike) -> None:
        """Replace all parameters by those of a vector laid out as `parameters`.

        Raises
        ------
        TypeError, ValueError
            If it doesn't hold real numbers, or not N of them. The network is then as it was.
        """
        given = as_real_array("vector", vector, self._vector.dtype)
        if given.shape != self._vector.shape:
            raise ValueError(f"vector: got shape {given.shape}, expected {self._vector.shape}")
        self.lstm.load_parameters(given[: self.lstm.parameters.size])
        self._vector[:] = given

    def named_views(self, vector: RealArray) -> dict[str, RealArray]:
        """Return views of a vector laid out as `parameters`, by the names that files have."""
        lstm, weight, bias = self._parts(vector)
        return {**self.lstm.named_views(lstm), "head.weight": weight, "head.bias": bias}

    def state_dict(self) -> Mapping[str, RealArray]:
        """Return the parameters by name, those of the head as ``head.weight`` and ``head.bias``."""
        return self.named_views(self.parameters)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write layer, head and options, for ``fastlstm run`` and :func:`fastlstm.load`.

        A network with one answer for a sequence writes a layer with ``return_sequences=False``.

        Raises
        ------
        ImportError, OSError, TypeError, ValueError
            As :func:`fastlstm.save`, which also tells of ``overwrite``.
        """
        lstm = self.lstm
        if not self.each_step:
            # Not its own class, which may be one of the user's with other arguments.
            kind = BiLSTM if lstm.num_directions == 2 else LSTM
            lstm = kind(**{**lstm.options, "return_sequences": False}, isa=lstm.isa)
            lstm.load_parameters(self.lstm.parameters)
        _, weight, bias = self._parts(self.parameters)
        save(lstm, path, head=Head(weight, bias), overwrite=overwrite)

    def load_state_dict(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        """Replace all parameters by those of a mapping, such as ``numpy.load(path)`` of a file.

        Raises
        ------
        TypeError, ValueError
            If its names are not those of `state_dict`, or an array has another shape or does not
            hold real numbers. The network is then as it was.
        """
        if not isinstance(arrays, Mapping):
            raise TypeError(f"arrays: got {type(arrays).__name__}, expected a mapping of names")
        vector = np.empty_like(self._vector)
        views = self.named_views(vector)
        if wrong := sorted(views.keys() ^ arrays.keys()):
            raise ValueError(f"arrays: missing or unexpected {', '.join(map(str, wrong))}")
        for name, view in views.items():
            array = as_real_array(name, arrays[name], vector.dtype)
            if array.shape != view.shape:
                raise ValueError(f"{name}: got shape {array.shape}, expected {view.shape}")
            view[:] = array
        self.load_parameters(vector)

    def __call__(
        self,
        x: Given,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> RealArray | list[RealArray]:
        """Return the answers to x.

        Parameters
        ----------
        x : array_like (T, B, I), or list of B arrays (T_b, I)
        lengths, mask : array_like, optional
            Which steps exist, as of `Sequences`.

        Returns
        -------
        ndarray or list of ndarray
            z (T, B, K), 0 at steps that don't exist, of a list x a list of B arrays (T_b, K); or
            (B, K) without ``each_step``.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.
        """
        (padded,), counts = as_padded({"x": x}, lengths, mask, self.lstm.batch_first)
        batch = PaddedBatch(padded, counts, mask, self.lstm.batch_first)
        y, (h_n, _) = self.lstm(batch.x, lengths=batch.lengths)
        z = self._answers(self._features(batch, y, h_n))
        if not self.each_step:
            return z
        z = batch.as_given(z)
        if counts is lengths:
            return z
        sequences = z if self.lstm.batch_first else z.swapaxes(0, 1)
        return [sequence[:n] for sequence, n in zip(sequences, counts, strict=True)]

    def score(
        self,
        x: Given,
        y: Given,
        weights: Given | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> Score:
        """Score the answers to x (T, B, I); arguments and errors as of `gradient`."""
        batch, y, weights = self._batch(x, y, weights, lengths, mask)
        out, (h_n, _) = self.lstm(batch.x, lengths=batch.lengths)
        return self._score(batch, self._features(batch, out, h_n), y, weights)[0]

    def gradient(
        self,
        x: Given,
        y: Given,
        weights: Given | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        rng: np.random.Generator | None = None,
    ) -> tuple[Score, RealArray]:
        """Return the score of a batch, and the gradient (N,) of its mean loss.

        Without any answer that counts the score's weight and the gradient are 0.

        Parameters
        ----------
        x : array_like (T, B, I), or list of B arrays (T_b, I)
        y : array (T, B, K) or (B, K), of classes below K (T, B) or (B,); or list, as of `Sequences`
        weights : array (T, B) or (B,), optional
            Finite, 0 or more. Where it is 0, y may be anything, but x is read all the same.
        lengths, mask : array_like, optional
            Which steps exist, as of `Sequences`; weights don't say that.
        rng : numpy.random.Generator, optional
            For what the layer drops, if it drops anything, and then needed: see `LSTM.record`.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.

        Warns
        -----
        UserWarning
            If a layer that begins at the end gets sequences that end in blank steps of weight 0,
            and nobody said which steps exist: these are taken for padding, as by `Trainer`.
        """
        batch, y, weights = self._batch(x, y, weights, lengths, mask)
        rng = rng if self.lstm.drops else None
        out, (h_n, _), tape = self.lstm.record(batch.x, lengths=batch.lengths, rng=rng)
        features = self._features(batch, out, h_n)
        score, dz = self._score(batch, features, y, weights)

        gradient = np.empty_like(self._vector)
        lstm_part, dweight, dbias = self._parts(gradient)
        _, weight, _ = self._parts(self._vector)
        dz = dz.reshape(-1, self.outputs)
        np.einsum("nk,nh->kh", dz, features.reshape(len(dz), features.shape[-1]), out=dweight)
        np.sum(dz, axis=0, out=dbias)
        dfeatures = np.empty_like(features)
        np.einsum("nk,kh->nh", dz, weight, out=dfeatures.reshape(len(dz), features.shape[-1]))
        if self.each_step:
            grads = tape.backward(batch.as_made(dfeatures), wrt=("params",))
        else:
            dh_n = np.zeros_like(h_n)
            D = self.lstm.num_directions
            dh_n[-D:] = np.split(dfeatures, D, axis=-1)
            grads = tape.backward(None, (dh_n, None), wrt=("params",))
        lstm_part[:] = grads.params
        return score, gradient

    def train_step(
        self,
        optimizer: SGD | Adam,
        x: Given,
        y: Given,
        weights: Given | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        clip: float = math.inf,
        rng: np.random.Generator | None = None,
    ) -> Score:
        """Take one step of an optimiser on a batch.

        Parameters
        ----------
        optimizer : SGD, Adam or AdamW
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
        norm = clip_grad_norm(gradient, clip)
        if not (math.isfinite(score.loss_sum) and math.isfinite(norm)):
            raise FloatingPointError(
                f"the training diverged: loss {score.loss}, gradient of norm {norm}; "
                "a smaller lr or clip may help"
            )
        optimizer.step(self._vector, gradient)
        self.lstm.load_parameters(self._vector[: self.lstm.parameters.size])
        return score

    def _batch(
        self, x: Any, y: Any, weights: Any, lengths: Any, mask: Any
    ) -> tuple[PaddedBatch, Any, Any]:
        """Return the inputs of a batch, and its answers and their weights as arrays."""
        batch_first = self.lstm.batch_first
        given = {"x": x, "y": y, "weights": weights}
        (x, y, weights), lengths = as_padded(given, lengths, mask, batch_first)
        unsaid = lengths is None and mask is None and weights is not None
        if unsaid and self.each_step and self.lstm.needs_whole_sequences:
            arrays = [np.asarray(array) for array in (x, y, weights)]
            # Others are refused when it is their turn.
            if arrays[0].ndim == 3 and len({array.shape[:2] for array in arrays}) == 1:
                arrays = [a.swapaxes(0, 1) if batch_first else a for a in arrays]
                steps = steps_of_tails("x", *arrays, read_silently=True)
                lengths = None if steps is None else steps.lengths
        return PaddedBatch(x, lengths, mask, batch_first), y, weights

    def _features(self, batch: PaddedBatch, y: RealArray, h_n: RealArray) -> RealArray:
        """What the head reads: a row for each step, or (B, D*P) of the last layer's final states.

        Rows are (N, D*P) of the steps that exist, or of plain arrays (T, B, D*P).
        """
        if self.each_step:
            return batch.rows_of_made(y)
        return np.concatenate(h_n[-self.lstm.num_directions :], axis=-1)

    def _score(
        self,
        batch: PaddedBatch,
        features: RealArray,
        y: Any,
        weights: Any,
    ) -> tuple[Score, RealArray]:
        """Check y and weights, and return the score with the gradient by the answers."""
        outer = batch.outer
        if 0 in (outer if batch.is_padded else features.shape[:-1]):
            raise ValueError("x: got no steps or no sequences, expected at least one")
        classes = self.loss == "cross_entropy"
        y = as_array("y", y, *(("iu", "integer classes") if classes else ("iuf", "real numbers")))
        answers = outer if self.each_step else features.shape[:-1]
        shape = answers if classes else (*answers, self.outputs)
        if y.shape != shape:
            raise ValueError(f"y: got shape {y.shape}, expected {shape}")
        counted = batch.present() if self.each_step else None
        if weights is not None:
            weights = as_weights(weights, answers, outer)
            counted = weights > 0 if counted is None else (weights > 0) & counted
        check_answers(y, counted, classes=classes, below=self.outputs if classes else None)
        if classes and counted is not None:
            y = np.where(counted, y, 0)  # so that every answer has a class
        if self.each_step:
            y = batch.rows_of_given(y)
            weights = None if weights is None else batch.rows_of_given(weights)
        return weighted(LOSSES[self.loss], self._answers(features), y, weights)

    def _answers(self, features: RealArray) -> RealArray:
        _, weight, bias = self._parts(self._vector)
        return linear(features, weight, bias, self.lstm.isa)

    def _parts(self, vector: RealArray) -> tuple[RealArray, RealArray, RealArray]:
        """Views of the layer's part (n,), head.weight (K, D*P) and head.bias (K,)."""
        K = self.outputs
        lstm, weight, bias = np.split(vector, [self.lstm.parameters.size, vector.size - K])
        return lstm, weight.reshape(K, -1), bias


def check_optimizer(value: Any) -> None:
    """Raise a TypeError if a value is no optimiser."""
    if not isinstance(value, SGD | Adam):
        raise TypeError(f"optimizer: got {type(value).__name__}, expected SGD, Adam, AdamW")


def as_clip(value: Any) -> float:
    """Return value as the largest norm of a gradient; TypeError or ValueError if it is none."""
    expected = "expected a number above 0"
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"clip: got {value!r}, {expected}")
    if not (clip := float(value)) > 0:
        raise ValueError(f"clip: got {value}, {expected}")
    return clip

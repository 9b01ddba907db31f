"""What of a network is learnt: an embedding, a layer and heads as one vector, and its gradient."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from fastlstm._arguments import RealArray, as_flag, as_real_array, shown
from fastlstm._linear import linear, linear_backward
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.optim import SGD, Adam, clip_grad_norm
from fastlstm.tape import Tape
from fastlstm.training.batches import PaddedBatch
from fastlstm.training.checks import as_array, as_weights
from fastlstm.training.embedding import Embedding
from fastlstm.training.heads import HeadSpec
from fastlstm.training.losses import Score
from fastlstm.training.padding import steps_of_tails
from fastlstm.training.pooling import POOLINGS, Pooling, pooled, spread
from fastlstm.training.sequences import Given, as_padded, as_tokens
from fastlstm.weights.native import KEYS

#: Of each head its weight (N, F) and bias (N,).
_Parts = tuple[RealArray, RealArray | None, dict[str, tuple[RealArray, RealArray]]]

#: Name of the head of a network that has one, whose answers come by themselves.
ONLY = ""


class RecurrentModel:
    """The part of a `Network` that is trained; its parameters are documented there."""

    __slots__ = ("__weakref__", "_heads", "_vector", "each_step", "embedding", "lstm", "pooling")

    def __init__(
        self,
        lstm: LSTM | BiLSTM,
        heads: Mapping[str, HeadSpec],
        each_step: bool,
        seed: int | np.random.Generator | None,
        embedding: Any,
        pooling: Any,
    ) -> None:
        self.lstm = lstm
        self._heads = dict(heads)
        self.each_step = as_flag("each_step", each_step)
        self.embedding: Embedding | None = embedding
        self.pooling: Pooling = pooling
        if embedding is not None:
            if not isinstance(embedding, Embedding):
                name = type(embedding).__name__
                raise TypeError(f"embedding: got {name}, expected a fastlstm.training.Embedding")
            if embedding.embedding_dim != lstm.input_size:
                raise ValueError(
                    f"embedding: has vectors of {embedding.embedding_dim} numbers, expected "
                    f"{lstm.input_size}, the layer's input size"
                )
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: got {shown(pooling)}, expected {', '.join(POOLINGS)}")
        if each_step and pooling != "last":
            raise ValueError(
                f"pooling: got {pooling!r}, which is of one answer for a sequence, with "
                "each_step=True"
            )
        width = lstm.num_directions * lstm.output_size
        bound = 1 / math.sqrt(width)
        try:
            # Children, or LSTM(seed=0) and Network(seed=0) would begin with the same numbers.
            of_heads, *of_table = np.random.default_rng(seed).spawn(1 if embedding is None else 2)
        except (TypeError, ValueError) as error:
            raise type(error)(f"seed: got {seed!r}: {error}") from None
        parts = [
            of_heads.uniform(-bound, bound, spec.width * (width + 1))
            for spec in self._heads.values()
        ]
        if embedding is not None:
            parts.insert(0, embedding.drawn(*of_table).ravel())
        vector = [lstm.parameters, *(part.astype(lstm.dtype) for part in parts)]
        self._vector: RealArray = np.concatenate(vector)

    @property
    def is_linear(self) -> bool:
        """Whether z is one linear layer of the layer's y, or of its final states, for inputs x."""
        return self.pooling == "last" and self.embedding is None and ONLY in self._heads

    @property
    def parameters(self) -> RealArray:
        """(N,) of the layer's dtype, read-only: `LSTM.parameters`, then embedding.weight, heads."""
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
        lstm, table, heads = self._parts(vector)
        views = dict(self.lstm.named_views(lstm))
        if table is not None:
            views["embedding.weight"] = table
        for name, (weight, bias) in heads.items():
            prefix = "head" if name == ONLY else f"heads.{name}"
            views |= {f"{prefix}.weight": weight, f"{prefix}.bias": bias}
        return views

    def state_dict(self) -> Mapping[str, RealArray]:
        """Return the parameters by name.

        Beside the layer's there are ``head.weight`` and ``head.bias``, of several heads
        ``heads.NAME.weight`` and ``heads.NAME.bias``, and ``embedding.weight``.
        """
        return self.named_views(self.parameters)

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
        # What a file says of itself is no parameter.
        if wrong := sorted((views.keys() ^ arrays.keys()) - set(KEYS)):
            raise ValueError(f"arrays: missing or unexpected {', '.join(map(str, wrong))}")
        for name, view in views.items():
            array = as_real_array(name, arrays[name], vector.dtype)
            if array.shape != view.shape:
                raise ValueError(f"{name}: got shape {array.shape}, expected {view.shape}")
            view[:] = array
        self.load_parameters(vector)

    def score(
        self,
        x: Given,
        y: Any,
        weights: Any = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> Score:
        """Score the answers to x (T, B, I); arguments and errors as of `gradient`."""
        batch, ys, all_weights = self._batch(x, y, weights, lengths, mask)
        out, (h_n, _) = self.lstm(self._inputs(batch)[0], lengths=batch.lengths)
        features = self._features(batch, out, h_n)
        return self._scores(batch, features, ys, all_weights)[0]

    def gradient(
        self,
        x: Given,
        y: Any,
        weights: Any = None,
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
            With an embedding integers (T, B), or a list of B arrays (T_b,).
        y : array (T, B, K) or (B, K), of classes below K (T, B) or (B,); or list, as of `Sequences`
            Of several heads a mapping of their names to such arrays.
        weights : array (T, B) or (B,), optional
            Finite, 0 or more. Where it is 0, y may be anything, but x is read all the same. Of
            several heads one for all, or a mapping.
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
        batch, ys, all_weights = self._batch(x, y, weights, lengths, mask)
        rng = rng if self.lstm.drops else None
        inputs, tokens = self._inputs(batch)
        out, (h_n, _), tape = self.lstm.record(inputs, lengths=batch.lengths, rng=rng)
        features = self._features(batch, out, h_n)
        score, dz = self._scores(batch, features, ys, all_weights)

        gradient = np.empty_like(self._vector)
        lstm_part, dtable, dheads = self._parts(gradient)
        _, _, heads = self._parts(self._vector)
        dfeatures: RealArray | None = None
        for name, (weight, _) in heads.items():
            by_head = linear_backward(dz[name], features, weight, *dheads[name], self.lstm.isa)
            dfeatures = by_head if dfeatures is None else dfeatures + by_head
        assert dfeatures is not None  # there is a head
        wrt = ("params",) if tokens is None else ("params", "x")
        grads = self._backward(tape, batch, out, h_n, dfeatures, wrt)
        lstm_part[:] = grads.params
        if self.embedding is not None:
            assert grads.x is not None
            assert dtable is not None
            assert tokens is not None
            dx = batch.rows_of_made(grads.x)
            rows = batch.rows_of_made(tokens[..., np.newaxis])
            self.embedding.gradient(rows.ravel(), dx.reshape(-1, dx.shape[-1]), dtable)
        return score, gradient

    def train_step(
        self,
        optimizer: SGD | Adam,
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

    def _answers(
        self, x: Any, lengths: Any, mask: Any
    ) -> tuple[dict[str, RealArray], PaddedBatch, Any]:
        """Return z of each head, of each step (N, K) in rows or (T, B, K), else (B, K).

        Besides the batch, and what tells how long the sequences are: of a list their lengths.
        """
        batch_first = self.lstm.batch_first
        (padded,), counts = as_padded({"x": x}, lengths, mask, batch_first)
        batch = self._as_batch(padded, counts, mask)
        y, (h_n, _) = self.lstm(self._inputs(batch)[0], lengths=batch.lengths)
        return self._heads_of(self._features(batch, y, h_n)), batch, counts

    def _batch(
        self, x: Any, y: Any, weights: Any, lengths: Any, mask: Any
    ) -> tuple[PaddedBatch, dict[str, Any], dict[str, Any]]:
        """Return the inputs of a batch, and its answers and their weights by head, as arrays."""
        batch_first = self.lstm.batch_first
        names = {name: called("y", name) for name in self._heads}
        weight_names = {name: called("weights", name) for name in self._heads}
        given = {"x": x}
        given |= {names[name]: part for name, part in self._by_head("y", y).items()}
        given |= {weight_names[name]: part for name, part in self._by_head("weights", weights)
                  .items()}  # fmt: skip
        padded, lengths = as_padded(given, lengths, mask, batch_first)
        arrays = dict(zip(given, padded, strict=True))
        x, y, weights = arrays["x"], arrays.get("y"), arrays.get("weights")
        unsaid = lengths is None and mask is None and weights is not None
        if unsaid and self.each_step and self.lstm.needs_whole_sequences:
            three = [np.asarray(array) for array in (x, y, weights)]
            # Others are refused when it is their turn.
            if three[0].ndim == 3 and len({array.shape[:2] for array in three}) == 1:
                three = [a.swapaxes(0, 1) if batch_first else a for a in three]
                steps = steps_of_tails("x", *three, read_silently=True)
                lengths = None if steps is None else steps.lengths
        return (
            self._as_batch(x, lengths, mask),
            {name: arrays[key] for name, key in names.items()},
            {name: arrays[key] for name, key in weight_names.items()},
        )

    def _by_head(self, what: str, value: Any) -> dict[str, Any]:
        """Return y or weights of each head."""
        if ONLY in self._heads:
            return {ONLY: value}
        if not isinstance(value, Mapping):
            if what == "y":
                raise TypeError(
                    f"y: got {type(value).__name__}, expected a mapping of heads' names"
                )
            return dict.fromkeys(self._heads, value)
        if wrong := sorted(map(str, value.keys() ^ self._heads.keys())):
            raise ValueError(f"{what}: missing or unexpected heads {', '.join(wrong)}")
        return {name: value[name] for name in self._heads}

    def _as_batch(self, x: Any, lengths: Any, mask: Any) -> PaddedBatch:
        if self.embedding is None:
            return PaddedBatch(x, lengths, mask, self.lstm.batch_first)
        tokens = as_tokens(as_array("x", x, "iu", "integers, as the embedding takes"))
        batch = PaddedBatch(tokens, lengths, mask, self.lstm.batch_first)
        if tokens.ndim != 3 or tokens.shape[-1] != 1:
            axes = "(B, T)" if self.lstm.batch_first else "(T, B)"
            raise ValueError(f"x: got shape {tokens.shape}, expected integers {axes}")
        # Where no step exists 0, which has a vector.
        tokens = self.embedding.checked(tokens[..., 0], batch.present())[..., np.newaxis]
        return PaddedBatch(tokens, lengths, mask, self.lstm.batch_first)

    def _inputs(self, batch: PaddedBatch) -> tuple[Any, NDArray[np.intp] | None]:
        """Return what the layer takes, and the integers whose vectors that is."""
        _, table, _ = self._parts(self._vector)
        if table is None:
            return batch.x, None
        tokens = batch.x[..., 0]
        return table[tokens], tokens

    def _features(self, batch: PaddedBatch, y: RealArray, h_n: RealArray) -> RealArray:
        """What the heads read: a row for each step, or one (B, D*P) for each sequence.

        Rows are (N, D*P) of the steps that exist, or of plain arrays (T, B, D*P). Of a sequence it
        is the last layer's final states, or what `pooled` makes of the steps.
        """
        if self.each_step:
            return batch.rows_of_made(y)
        if self.pooling == "last":
            return np.concatenate(h_n[-self.lstm.num_directions :], axis=-1)
        return pooled(self.pooling, batch.time_first(y), batch.taken)

    def _backward(
        self,
        tape: Tape,
        batch: PaddedBatch,
        y: RealArray,
        h_n: RealArray,
        dfeatures: RealArray,
        wrt: tuple[Any, ...],
    ) -> Any:
        """Run the tape of y and h_n backwards from the gradient by what `_features` returned."""
        if self.each_step:
            return tape.backward(batch.as_made(dfeatures), wrt=wrt)
        if self.pooling != "last":
            dy = spread(self.pooling, dfeatures, batch.time_first(y), batch.taken)
            return tape.backward(batch.time_first(dy), wrt=wrt)
        dh_n = np.zeros_like(h_n)
        D = self.lstm.num_directions
        dh_n[-D:] = np.split(dfeatures, D, axis=-1)
        return tape.backward(None, (dh_n, None), wrt=wrt)

    def _checked(
        self,
        batch: PaddedBatch,
        features: RealArray,
        ys: Mapping[str, Any],
        all_weights: Mapping[str, Any],
    ) -> dict[str, tuple[Any, Any]]:
        """Return y and weights of each head, in the order of features, or raise what is wrong."""
        outer = batch.outer
        if 0 in (outer if batch.is_padded else features.shape[:-1]):
            raise ValueError("x: got no steps or no sequences, expected at least one")
        answers = outer if self.each_step else features.shape[:-1]
        present = batch.present() if self.each_step else None
        checked: dict[str, tuple[Any, Any]] = {}
        for name, spec in self._heads.items():
            y = spec.arranged(ys[name], answers, called("y", name))
            weights, counted = all_weights[name], present
            if weights is not None:
                weights = as_weights(weights, answers, outer, called("weights", name))
                counted = weights > 0 if present is None else (weights > 0) & present
            y = spec.checked(y, counted, called("y", name))
            if self.each_step:
                y = batch.rows_of_given(y)
                weights = None if weights is None else batch.rows_of_given(weights)
            checked[name] = y, weights
        return checked

    def _scores(
        self,
        batch: PaddedBatch,
        features: RealArray,
        ys: Mapping[str, Any],
        all_weights: Mapping[str, Any],
    ) -> tuple[Score, dict[str, RealArray]]:
        """Check y and weights, and return the score with the gradients by the heads' answers."""
        checked = self._checked(batch, features, ys, all_weights)
        z = self._heads_of(features)
        scored = {name: spec.score(z[name], *checked[name]) for name, spec in self._heads.items()}
        if ONLY in scored:
            score, dz = scored[ONLY]
            return score, {ONLY: dz}
        for name, spec in self._heads.items():
            scored[name][1][...] *= scored[name][1].dtype.type(spec.weight)
        scores = [(scored[name][0], spec) for name, spec in self._heads.items()]
        return _summed(scores), {name: dz for name, (_, dz) in scored.items()}

    def _heads_of(self, features: RealArray) -> dict[str, RealArray]:
        """Return the answers z (..., N) of each head."""
        _, _, heads = self._parts(self._vector)
        isa = self.lstm.isa
        return {name: linear(features, *parts, isa) for name, parts in heads.items()}

    def _parts(self, vector: RealArray) -> _Parts:
        """Views of the layer's part (n,), the table (V, E) or None, and weight and bias by head."""
        width = self.lstm.num_directions * self.lstm.output_size
        at = self.lstm.parameters.size
        lstm, table, heads = vector[:at], None, {}
        if self.embedding is not None:
            V, E = self.embedding.shape
            table = vector[at : at + V * E].reshape(V, E)
            at += V * E
        for name, spec in self._heads.items():
            N, end = spec.width, at + spec.width * width
            heads[name] = vector[at:end].reshape(N, width), vector[end : end + N]
            at = end + N
        return lstm, table, heads


def called(what: str, head: str) -> str:
    """Return what y or weights of a head are called in errors."""
    return what if head == ONLY else f"{what}[{head!r}]"


def _summed(scores: list[tuple[Score, HeadSpec]]) -> Score:
    """Return one score of several heads': their weights' mean, and the weighted sum of losses."""
    weight = sum(score.weight for score, _ in scores) / len(scores)
    counting = [(score, spec) for score, spec in scores if score.weight]
    loss = sum(spec.weight * score.loss for score, spec in counting)
    decided = [score.accuracy for score, spec in counting if spec.is_decision]
    accuracy = sum(decided) / len(decided) if decided else 0.0
    return Score(weight, weight * loss, weight * accuracy)


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

"""What of a network is learnt: an embedding, a layer and heads as one vector, and its gradient."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from fastlstm._arguments import RealArray, as_flag, as_real_array, shown
from fastlstm._merge import gradient_of_both, merge
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.tape import Tape
from fastlstm.training.batches import PaddedBatch
from fastlstm.training.checks import as_array, as_weights
from fastlstm.training.dense import run, run_back
from fastlstm.training.embedding import Embedding
from fastlstm.training.heads import HeadSpec
from fastlstm.training.layout import ONLY, Layout, Parts, feature_count
from fastlstm.training.losses import Score
from fastlstm.training.optimizers import as_total
from fastlstm.training.padding import steps_of_tails
from fastlstm.training.pooling import POOLINGS, Pooling, pooled, spread
from fastlstm.training.sequences import Given, as_padded, as_tokens
from fastlstm.weights.native import KEYS


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
        try:
            # Children, or LSTM(seed=0) and Network(seed=0) would begin with the same numbers.
            of_heads, *of_table = np.random.default_rng(seed).spawn(1 if embedding is None else 2)
        except (TypeError, ValueError) as error:
            raise type(error)(f"seed: got {seed!r}: {error}") from None
        parts = [
            of_heads.uniform(-1 / math.sqrt(F), 1 / math.sqrt(F), N * (F + 1))
            for spec in self._heads.values()
            for N, F in spec.shapes(feature_count(lstm))
        ]
        if embedding is not None:
            parts.insert(0, embedding.drawn(*of_table).ravel())
        of_layer = [lstm.parameters] if lstm.bits is None else []
        vector = [*of_layer, *(part.astype(lstm.dtype) for part in parts)]
        self._vector: RealArray = np.concatenate(vector)

    @property
    def is_linear(self) -> bool:
        """Whether z is one linear layer of the layer's y, or of its final states, for inputs x."""
        plain = self.pooling == "last" and self.embedding is None and ONLY in self._heads
        return plain and not self._heads[ONLY].hidden

    @property
    def _layout(self) -> Layout:
        return Layout(self.lstm, self.embedding, self._heads)

    @property
    def parameters(self) -> RealArray:
        """(N,) of the layer's dtype, read-only: `LSTM.parameters`, then embedding.weight, heads.

        Of a network whose layer is quantised those of the layer are not among them.
        """
        view = self._vector.view()
        view.flags.writeable = False
        return view

    def _check_trains(self) -> None:
        """Raise a TypeError if the layer is a quantised one."""
        if self.lstm.bits is not None:
            raise TypeError(
                f"lstm: the network has one of {self.lstm.bits} bits, which can't be trained: "
                "train the network that it was made of, and quantise that"
            )

    def _with_layer(self, lstm: LSTM | BiLSTM) -> Self:
        """Return a copy with a quantised layer in place of its own."""
        made = copy.deepcopy(self)
        of_layer = made._layout.parts(made._vector).lstm.size
        made.lstm, made._vector = lstm, made._vector[of_layer:].copy()
        return made

    def _load_parts(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        """Replace the parameters that are not the layer's, as `load_state_dict` does all."""
        of_layer = self.lstm.state_dict() if self.lstm.bits is None else {}
        self.load_state_dict({**of_layer, **arrays})

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
        if self.lstm.bits is None:
            self.lstm.load_parameters(self._layout.parts(given).lstm)
        self._vector[:] = given

    def named_views(self, vector: RealArray) -> dict[str, RealArray]:
        """Return views of a vector laid out as `parameters`, by the names that files have."""
        return self._layout.named(vector)

    def state_dict(self) -> Mapping[str, RealArray]:
        """Return the parameters by name.

        Beside the layer's there are ``head.weight`` and ``head.bias``, of several heads
        ``heads.NAME.weight`` and ``heads.NAME.bias``, those of hidden layers behind
        ``head.hidden.0``, and ``embedding.weight``. A quantised layer's are not among them.
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
        z, checked = self._scorable(x, y, weights, lengths, mask)
        return self._scores(z, checked, dict.fromkeys(self._heads))[0]

    def gradient(
        self,
        x: Given,
        y: Any,
        weights: Any = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        rng: np.random.Generator | None = None,
        total: float | Mapping[str, float] | None = None,
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
        total : float, or mapping of heads' names, optional
            What the sum of losses is divided by, 0 or more, in place of the weight of this batch:
            with the `total_weight` of a larger one the gradients of its parts add up to its own.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, or the layer is a quantised one.

        Warns
        -----
        UserWarning
            If a layer that begins at the end gets sequences that end in blank steps of weight 0,
            and nobody said which steps exist: these are taken for padding, as by `Trainer`.
        """
        self._check_trains()
        batch, ys, all_weights = self._batch(x, y, weights, lengths, mask)
        totals = {name: as_total(part) for name, part in self._by_head("total", total).items()}
        rng = rng if self.lstm.drops else None
        own = self._layout.parts(self._vector)
        inputs, tokens = self._inputs(batch, own)
        out, (h_n, _), tape = self.lstm.record(inputs, lengths=batch.lengths, rng=rng)
        features = self._features(batch, out, h_n)
        checked = self._checked(batch, ys, all_weights)
        score, dz = self._scores(self._heads_of(features, own), checked, totals)

        gradient = np.empty_like(self._vector)
        lstm_part, dtable, dheads = self._layout.parts(gradient)
        dfeatures: RealArray | None = None
        for name, layers in own.heads.items():
            hidden, isa = self._heads[name].hidden, self.lstm.isa
            by_head = run_back(dz[name], layers, hidden, features, dheads[name], isa)
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

    def total_weight(
        self,
        x: Given,
        y: Any,
        weights: Any = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> Any:
        """Return what `gradient` divides the sum of a batch's losses by, of several heads a dict.

        That is the sum of the weights of the answers, with those of their classes. Arguments and
        errors are as of `gradient`; nothing is computed of x.
        """
        batch, ys, all_weights = self._batch(x, y, weights, lengths, mask)
        checked = self._checked(batch, ys, all_weights)
        totals = {
            name: self._heads[name].weight_of(*pair, batch.answers(self.each_step))
            for name, pair in checked.items()
        }
        return totals.get(ONLY, totals)

    def _answers(
        self, x: Any, lengths: Any, mask: Any
    ) -> tuple[dict[str, RealArray], PaddedBatch, Any]:
        """Return z of each head, of each step (N, K) in rows or (T, B, K), else (B, K).

        Besides the batch, and what tells how long the sequences are: of a list their lengths.
        """
        batch_first = self.lstm.batch_first
        (padded,), counts = as_padded({"x": x}, lengths, mask, batch_first)
        batch = self._as_batch(padded, counts, mask)
        return self._answers_from(batch, None)[0], batch, counts

    def _answers_from(
        self, batch: PaddedBatch, state: tuple[RealArray, RealArray] | None
    ) -> tuple[dict[str, RealArray], tuple[RealArray, RealArray]]:
        """Return z of each head, as `_answers`, of steps that go on from a state; and the next."""
        y, state = self.lstm(self._inputs(batch)[0], state, lengths=batch.lengths)
        return self._heads_of(self._features(batch, y, state[0])), state

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
        """Return y, weights or totals of each head."""
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
        present = self.embedding.present(tokens[..., 0], batch.present())
        if self.embedding.masked:
            lengths, mask = None, present
        tokens = self.embedding.checked(tokens[..., 0], present)[..., np.newaxis]
        return PaddedBatch(tokens, lengths, mask, self.lstm.batch_first)

    def _inputs(
        self, batch: PaddedBatch, own: Parts | None = None
    ) -> tuple[Any, NDArray[np.intp] | None]:
        """Return what the layer takes, and the integers whose vectors that is.

        ``own`` are the parts of the network's vector, for who has them already.
        """
        table = (own or self._layout.parts(self._vector)).table
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
            merged = merge(self._last_states(h_n), self.lstm.merge_mode)
            assert isinstance(merged, np.ndarray)  # a network has no layer with merge_mode=None
            return merged
        return pooled(self.pooling, batch.time_first(y), batch.taken)

    def _last_states(self, h_n: RealArray) -> RealArray:
        """Return the last layer's final states (B, D*P), those of the forward direction first."""
        if self.lstm.num_directions == 1:
            last: RealArray = h_n[-1]
            return last
        return np.concatenate(h_n[-self.lstm.num_directions :], axis=-1)

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
        both = gradient_of_both(dfeatures, self._last_states(h_n), self.lstm.merge_mode)
        dh_n[-D:] = [both] if D == 1 else np.split(both, D, axis=-1)
        return tape.backward(None, (dh_n, None), wrt=wrt)

    def _checked(
        self,
        batch: PaddedBatch,
        ys: Mapping[str, Any],
        all_weights: Mapping[str, Any],
    ) -> dict[str, tuple[Any, Any]]:
        """Return y and weights of each head, in the order of features, or raise what is wrong."""
        outer = batch.outer
        if 0 in outer:
            raise ValueError("x: got no steps or no sequences, expected at least one")
        answers = outer if self.each_step else batch.sequences
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

    def _scorable(
        self, x: Any, y: Any, weights: Any, lengths: Any, mask: Any
    ) -> tuple[dict[str, RealArray], dict[str, tuple[Any, Any]]]:
        """Return z of each head, and y and weights as `_checked` has them."""
        batch, ys, all_weights = self._batch(x, y, weights, lengths, mask)
        out, (h_n, _) = self.lstm(self._inputs(batch)[0], lengths=batch.lengths)
        z = self._heads_of(self._features(batch, out, h_n))
        return z, self._checked(batch, ys, all_weights)

    def _scores(
        self,
        z: Mapping[str, RealArray],
        checked: Mapping[str, tuple[Any, Any]],
        totals: Mapping[str, float | None],
    ) -> tuple[Score, dict[str, RealArray]]:
        """Return the score with the gradients by the heads' answers."""
        scored = {
            name: spec.score(z[name], *checked[name], totals[name])
            for name, spec in self._heads.items()
        }
        if ONLY in scored:
            score, dz = scored[ONLY]
            return score, {ONLY: dz}
        for name, spec in self._heads.items():
            scored[name][1][...] *= scored[name][1].dtype.type(spec.weight)
        scores = [(scored[name][0], spec) for name, spec in self._heads.items()]
        return _summed(scores), {name: dz for name, (_, dz) in scored.items()}

    def _heads_of(self, features: RealArray, own: Parts | None = None) -> dict[str, RealArray]:
        """Return the answers z (..., N) of each head; ``own`` as of `_inputs`."""
        heads = (own or self._layout.parts(self._vector)).heads
        isa = self.lstm.isa
        return {
            name: run(layers, self._heads[name].hidden, features, isa)
            for name, layers in heads.items()
        }


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

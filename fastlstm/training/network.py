"""A network: what is trained, saved, loaded and used."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._arguments import shown
from fastlstm.lstm import LSTM, BiLSTM
from fastlstm.training.embedding import Embedding
from fastlstm.training.evaluation import Truth
from fastlstm.training.heads import ClassName, HeadSpec, as_names
from fastlstm.training.layout import ONLY
from fastlstm.training.losses import LossName, OwnLoss
from fastlstm.training.pooling import Pooling
from fastlstm.training.predictions import decided, probabilities
from fastlstm.training.scaling import Scaling, check_scaling
from fastlstm.training.sequences import Given
from fastlstm.training.trainable import TrainableModel


class Network(TrainableModel):
    """A layer with one linear head or several, ``z = h @ weight.T + bias``, and their losses.

    Between the layer's numbers and the head there may be `hidden` linear layers.

    Parameters
    ----------
    lstm : LSTM or BiLSTM
        Any number of layers. It belongs to the network from then on, which changes its parameters.
        With ``batch_first`` all arrays with an axis of time are (B, T, ...) in place of
        (T, B, ...). A quantised one, as after :func:`fastlstm.quantize` of a network, is not
        trained; all else works.
    outputs : int, optional
        K, numbers in an answer, classes or labels. What `classes` or `targets` count need not be
        said.
    loss : str or callable
        "mse", "mae", "huber", "pinball", "cross_entropy", "binary_cross_entropy", or a function
        ``(z, y) -> (losses, gradient)``: see `HeadSpec`, which also tells of `quantiles`,
        `class_weights`, `classes`, `targets` and `check`.
    each_step : bool
        Whether there is an answer at each step, from h_t, or one for the sequence.
    seed : int or numpy.random.Generator, optional
        For the heads' first parameters, drawn from U(-1/sqrt(D*P), 1/sqrt(D*P)) as PyTorch's are,
        and those of the embedding.
    embedding : Embedding, optional
        Then x holds integers (T, B), each of which stands for a vector that is learnt.
    pooling : {"last", "last_step", "mean", "max"}
        What one answer for a sequence is read from: the last layer's h_n, of a BiLSTM the final
        states of both directions, merged as its outputs are; its outputs at the last step, of which
        a reverse direction has seen that step alone; or the mean, or the largest of each number,
        over the steps that exist.
    heads : mapping of str to HeadSpec, optional
        Several heads on the same features, in place of `outputs` and what tells of one head. y,
        and all answers, are then mappings by these names, and the loss is the sum of the heads'
        mean losses times their weights.
    quantiles, class_weights, classes, targets, check, hidden
        As of `HeadSpec`.
    features : sequence of str, optional
        Names of the I inputs.
    scaling : Scaling, optional
        See the attribute.
    metadata : mapping, optional
        Whatever JSON can hold; it is kept in files.

    Attributes
    ----------
    lstm, each_step, embedding, pooling
        As above.
    heads : mapping of str to HeadSpec
        Of a network with one head its name is "".
    outputs, loss, classes, targets
        Of the head; of several a dict by their names.
    features : tuple of str or None
    scaling : Scaling or None
        Means and scales of x and y: `predict` and `evaluate` take x, and give or take y, in their
        own units. All that trains works in the network's: x and y as `Scaling.apply` returns them.
        May be set at any time.
    metadata : dict

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    An answer's bits depend on the parameters and its sequence alone, and are those that
    ``fastlstm run`` gives for the file that `save` writes. The sums of the heads' gradients are
    this package's own, not those of a BLAS, whose bits may depend on the number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm import LSTM
    >>> from fastlstm.training import Network
    >>> network = Network(LSTM(3, 8, seed=0), loss="cross_entropy", classes=["low", "high"],
    ...                   each_step=False, pooling="mean", seed=0)
    >>> network.predict(np.zeros((5, 1, 3)))  # x (T, B, I)
    array(['high'], dtype='<U4')
    """

    __slots__ = ("_metadata", "_scaling", "features")

    def __init__(
        self,
        lstm: LSTM | BiLSTM,
        outputs: int | None = None,
        *,
        loss: LossName | OwnLoss = "mse",
        each_step: bool = True,
        seed: int | np.random.Generator | None = None,
        embedding: Embedding | None = None,
        pooling: Pooling = "last",
        heads: Mapping[str, HeadSpec] | None = None,
        quantiles: Iterable[float] | None = None,
        class_weights: Iterable[float] | Mapping[ClassName, float] | None = None,
        classes: Iterable[ClassName] | None = None,
        targets: Iterable[str] | None = None,
        features: Iterable[str] | None = None,
        scaling: Scaling | None = None,
        metadata: Mapping[str, Any] | None = None,
        check: bool = False,
        hidden: Iterable[tuple[int, str]] | tuple[int, str] = (),
    ) -> None:
        if not isinstance(lstm, LSTM | BiLSTM):
            raise TypeError(f"lstm: got {type(lstm).__name__}, expected an LSTM or BiLSTM")
        if lstm.merge_mode is None or not lstm.return_sequences:
            raise ValueError(f"lstm: got {lstm}, expected one that gives all outputs, in one array")
        given = {
            "outputs": outputs,
            "quantiles": quantiles,
            "class_weights": class_weights,
            "classes": classes,
            "targets": targets,
        }
        if heads is None:
            heads = {ONLY: HeadSpec(loss=loss, check=check, hidden=hidden, **given)}  # type: ignore[arg-type]
        else:
            beside = [name for name, value in given.items() if value is not None]
            if beside or loss != "mse" or check or hidden:
                what = [*beside, *(["hidden"] if hidden else []), "loss", "check"][0]
                raise ValueError(f"{what}: got one beside heads, which say it of each")
            heads = _as_heads(heads)
        super().__init__(lstm, heads, each_step, seed, embedding, pooling)
        self.features = None if features is None else as_names("features", features)
        inputs = lstm.input_size if embedding is None else 1
        if self.features is not None and len(self.features) != inputs:
            raise ValueError(f"features: got {len(self.features)} names, expected {inputs}")
        self._metadata = _as_json({} if metadata is None else metadata)
        self.scaling = scaling

    def __repr__(self) -> str:
        parts: list[str] = [str(self.lstm)]
        if ONLY in self._heads:
            options = self._heads[ONLY].options
            loss = options.pop("loss", "mse")
            parts += [f"{options.pop('outputs')}", f"loss={loss!r}", f"each_step={self.each_step}"]
            parts += [f"{k}={v!r}" for k, v in options.items() if k not in ("classes", "targets")]
        else:
            parts += [f"heads={self._heads}", f"each_step={self.each_step}"]
        if self.embedding is not None:
            parts.append(f"embedding={self.embedding}")
        if self.pooling != "last":
            parts.append(f"pooling={self.pooling!r}")
        return f"Network({', '.join(parts)})"

    @property
    def heads(self) -> Mapping[str, HeadSpec]:
        """What each head answers, by its name; "" where there is one."""
        return dict(self._heads)

    @property
    def outputs(self) -> Any:
        """K, of several heads a dict."""
        return self._of_heads("outputs")

    @property
    def loss(self) -> Any:
        """The loss's name, or the function; of several heads a dict."""
        return self._of_heads("loss")

    @property
    def classes(self) -> Any:
        """Names of the classes or labels, or None; of several heads a dict."""
        return self._of_heads("classes")

    @property
    def targets(self) -> Any:
        """Names of the numbers of an answer, or None; of several heads a dict."""
        return self._of_heads("targets")

    def _of_heads(self, name: str) -> Any:
        values = {head: getattr(spec, name) for head, spec in self._heads.items()}
        return values.get(ONLY, values) if ONLY in values else values

    @property
    def metadata(self) -> dict[str, Any]:
        """What the network was given to keep; a dict of its own, which may be changed."""
        return self._metadata

    @metadata.setter
    def metadata(self, value: Mapping[str, Any]) -> None:
        self._metadata = _as_json(value)

    @property
    def scaling(self) -> Scaling | None:
        """Means and scales of x and y, or None."""
        return self._scaling

    @scaling.setter
    def scaling(self, value: Scaling | None) -> None:
        if value is not None:
            inputs = None if self.embedding is not None else self.lstm.input_size
            spec = self._heads.get(ONLY)
            check_scaling(value, inputs, None if not spec or spec.is_decision else spec.outputs)
        self._scaling = value

    def __call__(
        self,
        x: Given,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> Any:
        """Return the answers to x as the heads' numbers.

        Parameters
        ----------
        x : array_like (T, B, I), or list of B arrays (T_b, I)
            With an embedding integers (T, B), or a list of B arrays (T_b,).
        lengths, mask : array_like, optional
            Which steps exist, as of `Sequences`.

        Returns
        -------
        ndarray, list of ndarray, or dict of these
            z (T, B, N), 0 at steps that don't exist, of a list x a list of B arrays (T_b, N); or
            (B, N) without ``each_step``. N is K, of quantiles K*Q, those of a number side by side.
            Of several heads a dict by their names.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.
        """
        return self._each_answer(x, lengths, mask, lambda spec, z, present: z)

    def predict(
        self,
        x: Given,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> Any:
        """Return the answers to x: numbers in y's own unit, classes by their names, labels.

        Parameters
        ----------
        x : array_like (T, B, I), or list of B arrays (T_b, I)
            In its own unit where there is a `scaling`. With an embedding integers (T, B), or a list
            of B arrays (T_b,).
        lengths, mask : array_like, optional
            Which steps exist, as of `Sequences`.

        Returns
        -------
        ndarray, list of ndarray, or dict of these
            With ``each_step`` (T, B, ...), of a list x a list of B arrays (T_b, ...), without (B,
            ...). Behind these axes

            - of a regression (K,), with quantiles (K, Q): sorted, so that they don't cross where z
              does, as "Quantile and Probability Curves without Crossing" (Chernozhukov and others,
              2010) has it, which makes no loss larger;
            - of classes nothing: the likeliest one's name out of `classes`, or without names its
              number, the first of equal ones;
            - of labels (K,) of bool: those with a probability above 1/2;
            - of a loss of one's own (K,), as of a regression.

            At steps that don't exist numbers are NaN, classes -1, names empty or 0, and labels
            False. Of several heads a dict by their names.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, or x makes the scores of classes or labels NaN.
        """
        scaling = self._scaling if ONLY in self._heads else None
        return self._each_answer(
            self._in_own_unit(x),
            lengths,
            mask,
            lambda spec, z, present: decided(spec, z, scaling, present),
        )

    def predict_proba(
        self,
        x: Given,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> Any:
        """Return the probabilities of classes, which sum to 1, or of labels.

        Parameters
        ----------
        x, lengths, mask
            As of `predict`.

        Returns
        -------
        ndarray, list of ndarray, or dict of these
            (T, B, K), (T_b, K) or (B, K), in the order of `classes`; NaN at steps that don't exist.
            Of several heads a dict of those that have probabilities.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, or the loss is that of no classification.
        """
        likely = {name for name, s in self._heads.items() if s.is_decision}
        if not likely:
            raise ValueError(
                f"predict_proba: the loss is {shown(self.loss)}, expected one of a "
                "classification: cross_entropy or binary_cross_entropy"
            )
        return self._each_answer(self._in_own_unit(x), lengths, mask, probabilities, likely)

    def evaluate(
        self,
        x: Given,
        y: Any,
        weights: Any = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        season: int | None = None,
        baselines: Mapping[str, npt.ArrayLike] | None = None,
    ) -> Any:
        """Compare what `predict` gives with what is right.

        Parameters
        ----------
        x, lengths, mask
            As of `predict`.
        y : array_like, or list
            As of `gradient`, in its own unit; classes by their names or, where these are strings,
            by number. Of several heads a mapping.
        weights : array_like, optional
            As of `gradient`.
        season : int, optional
            Steps of a season, of a regression at each step: then "seasonal persistence" is among
            the forecasts without a model.
        baselines : mapping of str to array_like, optional
            Forecasts by other means, as y, of a regression with one head.

        Returns
        -------
        Evaluation, or dict of these
            Of several heads a dict by their names.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, or no answer counts.
        """
        truth = Truth(self, x, y, weights, lengths, mask, season, baselines or {})
        return truth.compared(self._answers_from(truth.batch, None)[0])

    def _each_answer(
        self, x: Any, lengths: Any, mask: Any, use: Any, names: Iterable[str] | None = None
    ) -> Any:
        """Return what a function (spec, z, present) makes of z of each head, in x's layout."""
        answers, batch, counts = self._answers(x, lengths, mask)
        present = batch.present() if self.each_step else None
        results = {}
        for name in self._heads if names is None else names:
            z = batch.as_given(answers[name]) if self.each_step else answers[name]
            made = use(self._heads[name], z, present)
            if self.each_step and counts is not lengths:
                sequences = made if self.lstm.batch_first else made.swapaxes(0, 1)
                made = [each[:n] for each, n in zip(sequences, counts, strict=True)]
            results[name] = made
        return results[ONLY] if ONLY in self._heads else results

    def _in_own_unit(self, x: Any) -> Any:
        """Return x as the network takes it, of an x in its own unit."""
        if self._scaling is None or self.embedding is not None:
            return x
        return self._scaling.apply_x(x, self.lstm.dtype)

    def _inputs_of_layer(self, x: Any) -> Any:
        """Return what the layer gets of x in its own unit, an array without padding."""
        return self._inputs(self._as_batch(self._in_own_unit(x), None, None))[0]

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write all of the network to a file, for `load`, ``fastlstm run`` and others.

        :func:`fastlstm.load` of such a file gives the layer: with one answer for a sequence from
        its last states, one with ``return_sequences=False``.

        Parameters
        ----------
        path : str or path
            ``.npz`` and ``.safetensors`` hold everything, but of a loss of one's own its name
            alone. Other formats that :func:`fastlstm.save` writes hold the layer and a linear head:
            a network that is more than these is refused.
        overwrite : bool
            As of :func:`fastlstm.save`.

        Raises
        ------
        ImportError, OSError, TypeError, ValueError
            As :func:`fastlstm.save`.
        """
        from fastlstm.training.files import save_network

        save_network(self, path, overwrite=overwrite)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        name: str | None = None,
        *,
        loss: LossName | OwnLoss | None = None,
        isa: str | None = None,
    ) -> Network:
        """Load a network.

        Parameters
        ----------
        path : str or path
            What `save` wrote; or any file that :func:`fastlstm.load` reads and that holds a linear
            layer on top of the LSTM.
        name : str, optional
            Of the LSTM in the file, where it holds several.
        loss : str or callable, optional
            Where the file does not say it, or names a function of one's own.
        isa : str, optional
            As for :class:`fastlstm.LSTM`.

        Raises
        ------
        FileNotFoundError, ImportError, ValueError
            As :func:`fastlstm.load`; or if the file holds no linear layer, or what it says of the
            network is damaged.

        Warns
        -----
        AssumptionWarning
            If the file does not say what the loss is, and neither does the argument: it is taken
            for "mse".
        """
        from fastlstm.training.files import load_network

        return load_network(cls, path, name, loss=loss, isa=isa)


def _as_heads(value: Any) -> dict[str, HeadSpec]:
    """Return a mapping of names to heads; else TypeError or ValueError."""
    if not isinstance(value, Mapping) or not value:
        raise TypeError(f"heads: got {shown(value)}, expected a mapping of names to HeadSpec")
    for name, spec in value.items():
        if not isinstance(name, str) or not isinstance(spec, HeadSpec):
            raise TypeError(f"heads: got {shown(name)}: {shown(spec)}, expected a name: HeadSpec")
        if not name.isidentifier():
            raise ValueError(f"heads: got the name {shown(name)}, expected one as of a variable")
    if not any(spec.weight for spec in value.values()):
        raise ValueError("heads: the weights of all are 0, expected some above")
    return dict(value)


def _as_json(value: Any) -> dict[str, Any]:
    """Return a copy of metadata as a file gives it back."""
    if not isinstance(value, Mapping):
        raise TypeError(f"metadata: got {type(value).__name__}, expected a mapping")
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise type(error)(f"metadata: got what JSON does not hold: {error}") from None
    return copy

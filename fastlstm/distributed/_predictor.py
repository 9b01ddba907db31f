"""What engines send to their workers and call there: a model, with how it is to be used.

Letters: T time steps, B batch, I input size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from fastlstm import _foreign
from fastlstm._arguments import as_array, as_size, shown
from fastlstm._steps import as_steps
from fastlstm.distributed._answers import METHODS, Answer, answers_of, blanked
from fastlstm.distributed._frames import check_order, predict_frame, told_features, told_frame
from fastlstm.distributed._models import Model, as_bytes, digest_of, model_of
from fastlstm.distributed._pieces import State, run_layer, run_network
from fastlstm.threads import MAX_THREADS, at_most
from fastlstm.training import Network
from fastlstm.training.sequences import as_padded

Method: TypeAlias = Literal["predict", "predict_proba", "call"]
Missing: TypeAlias = Literal["propagate", "skip", "raise"]
Array: TypeAlias = NDArray[Any]

#: Of pickles. Whatever changes what they hold, or mean, gets the next number.
FORMAT = 1

_MISSING = ("propagate", "skip", "raise")


class Predictor:
    """A trained model that may be sent to other processes, and answers there with the same bits.

    It is a function of batches, which joblib, ``concurrent.futures``, Dask, Ray and Spark can call
    as they call any other. It keeps the parameters that the model had when it was made.

    Parameters
    ----------
    model : LSTM, BiLSTM or Network
        A quantised layer, too. Of a layer the answers are y, of a network what `method` gives.
    threads : int
        That a call may use at most, 1 by default, as engines run one worker for each processor. It
        limits the process while a call runs; of calls at the same time the least counts. More than
        the processors that the process may use are never used.
    method : {"predict", "predict_proba", "call"}
        Of a network: answers in y's unit, probabilities, or the heads' numbers.
    missing : {"propagate", "skip", "raise"}
        What a NaN among the inputs of a step is. "propagate": a number like any other, so that
        answers are NaN from then on (and before, where a direction begins at the end); refused
        where answers are classes or labels, which can't be NaN. "skip": that step does not exist,
        as by ``mask``; its answer is blank, NaN or what `Network.predict` has there, as is that of
        a sequence without steps. "raise": a ValueError.
    features : str or sequence of str, optional
        Of tables: the columns that are the inputs, in the model's order, by default the network's
        own ``features``.
    group : str or sequence of str, optional
        Of tables with a number in each cell: the columns that tell one sequence from another. An
        empty sequence takes the whole table for one.
    time : str, optional
        Of such tables: the column that orders the rows of a sequence: times, numbers, ordered
        categories, or texts, of which "10" comes before "9". Without it they are in order.
    name : str
        Of tables: the column of the answers, or what the names of several begin with. A column of
        that name is replaced, if it is not one that is read.

    Attributes
    ----------
    model : LSTM, BiLSTM or Network
        A copy, which all predictors of equal models in this process share: it is packed once.
    digest : str
        Tells one model from another.
    answers : tuple
        What is answered: one entry, or one for each head.
    threads, method, missing, features, group, time, name
        As above.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described. Subclasses are refused, as their code does not travel.

    Notes
    -----
    A pickle holds the bytes of a file as ``fastlstm.save`` writes it (4 bytes for each parameter of
    float32, and about 2 KB), and a number: another version of this class refuses what it does not
    know. A process keeps the 8 models that were used last.

    Examples
    --------
    >>> import pickle
    >>> import numpy as np
    >>> from fastlstm import LSTM
    >>> from fastlstm.distributed import Predictor
    >>> predictor = pickle.loads(pickle.dumps(Predictor(LSTM(3, 5, seed=0))))
    >>> predictor(np.ones((10, 2, 3), np.float32)).shape  # x (T, B, I)
    (10, 2, 5)
    """

    def __init__(
        self,
        model: Model,
        threads: int = 1,
        *,
        method: Method = "predict",
        missing: Missing = "propagate",
        features: str | Sequence[str] | None = None,
        group: str | Sequence[str] | None = None,
        time: str | None = None,
        name: str = "prediction",
    ) -> None:
        self.threads = as_size("threads", threads, MAX_THREADS)
        for what, value, allowed in (
            ("method", method, tuple(METHODS)),
            ("missing", missing, _MISSING),
        ):
            if value not in allowed:
                raise ValueError(
                    f"{what}: got {shown(value)}, expected one of {', '.join(allowed)}"
                )
        if not isinstance(name, str) or not name:
            raise ValueError(f"name: got {shown(name)}, expected that of a column")
        self.method, self.missing, self.name = method, missing, name
        self._data = as_bytes(model)
        self._is_network = isinstance(model, Network)
        self.digest = digest_of(self._data)
        own = model.features if isinstance(model, Network) else None
        if features is not None and not isinstance(features, str):
            check_order(own, features)
        self.features, self.group, self.time = told_frame(
            own if features is None else features, group, time
        )
        self.answers: tuple[Answer, ...] = answers_of(model, method)
        kinds = {answer.dtype.kind for answer in self.answers}
        self._has_nan = kinds <= {"f"}

    @property
    def model(self) -> Model:
        """The model, packed for this process."""
        return model_of(self.digest, self._data, self._is_network)

    @property
    def layer(self) -> Any:
        """The layer of the model, or the model itself."""
        model = self.model
        return model.lstm if isinstance(model, Network) else model

    @property
    def takes_tokens(self) -> bool:
        """Whether inputs are integers, which an embedding reads."""
        return isinstance(model := self.model, Network) and model.embedding is not None

    @property
    def each_step(self) -> bool:
        """Whether there is an answer at each step, or one for a sequence."""
        model = self.model
        return model.each_step if isinstance(model, Network) else model.return_sequences

    @property
    def resumes(self) -> bool:
        """Whether a sequence may come in pieces, in order: see `resume`."""
        return self.each_step and not self.layer.needs_whole_sequences and not self.takes_tokens

    def __repr__(self) -> str:
        return f"Predictor({self.model}, threads={self.threads}, method={self.method!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "format": FORMAT}

    def __setstate__(self, state: dict[str, Any]) -> None:
        found = state.get("format")
        if found != FORMAT:
            raise ValueError(
                f"predictor: got a pickle of format {found!r}, this version of fastlstm reads "
                f"{FORMAT}: the same version is needed on all machines"
            )
        vars(self).update({name: value for name, value in state.items() if name != "format"})

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Return what is the same for equal predictors, by which Dask knows them."""
        options = (self.threads, self.method, self.missing, self.name)
        return (type(self).__name__, self.digest, *options, self.features, self.group, self.time)

    def __call__(
        self,
        x: Any,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> Any:
        """Return the answers to a batch.

        Parameters
        ----------
        x : array_like (T, B, I), (B, T, I) of a model with ``batch_first``, or (T, I)
            Or a list of B arrays (T_b, I), of any lengths. With an embedding integers, without the
            axis I. Or a table: a DataFrame of pandas, a table or record batch of Arrow, or a
            mapping of names to columns (R,), whose `features` hold

            - a number in each cell: a row is a step, and `group` tells whose. Rows may lie in any
              order with `time`.
            - a sequence in each cell: a row is a sequence. Of one column a cell is (T, I), or (T,)
              if I is 1; of I columns each is (T,).
        lengths, mask : array_like, optional
            Which steps of arrays exist, as of `fastlstm.training.Sequences`.

        Returns
        -------
        ndarray, list of ndarray, or dict of these
            As the layer's y or the network's method; of a list a list, where there is an answer at
            each step. Several heads make a dict. Of a table a table of the same kind, with the
            columns of the answers beside those that were there; of a row for each step with one
            answer for a sequence, a row for each group, and its columns.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, or a NaN is refused.
        """
        with at_most(self.threads):
            if _is_frame(x):
                if lengths is not None or mask is not None:
                    raise ValueError("lengths, mask: got one beside a table, which has none")
                return predict_frame(self, x)
            return self._of_arrays(x, lengths, mask)

    def resume(
        self, x: npt.ArrayLike, state: State | None = None, *, mask: npt.ArrayLike | None = None
    ) -> tuple[Any, State]:
        """Return the answers to the next steps of sequences, and the state after them.

        The bits are those of whole sequences.

        Parameters
        ----------
        x : array_like (T, B, I), (B, T, I) of a model with ``batch_first``
        state : (h, c), optional
            As the piece before returned it; None at the beginning.
        mask : array_like, optional
            Which steps exist.

        Raises
        ------
        TypeError, ValueError
            As a call; or if the model does not answer at each step, or not before it has seen the
            last one: see `resumes`.
        """
        if not self.resumes:
            raise ValueError(
                "resume: the model needs whole sequences, expected one that answers at each step "
                "and goes forward in time"
            )
        with at_most(self.threads):
            array = _as_batch(x, 3)
            present, blank = self._present(array, None, mask)
            answers, state = self._piece(array, present, state)
            return self._blanked(answers, blank), state

    def _of_arrays(self, x: Any, lengths: Any, mask: Any) -> Any:
        batch_first = self.layer.batch_first
        (x,), counts = as_padded({"x": x}, lengths, mask, batch_first)
        is_list = counts is not lengths
        whole = 2 if self.takes_tokens and not is_list else 3
        array = as_array("x", x)
        axis = 0 if batch_first else 1
        is_single = array.ndim == whole - 1
        if is_single:
            array = np.expand_dims(array, axis)
        array = _as_batch(array, whole)
        present, blank = self._present(array, counts, mask)
        answers = self._blanked(self._whole(array, present), blank)
        if is_list and self.each_step:
            return _each(answers, lambda z: _cut(z if batch_first else z.swapaxes(0, 1), counts))
        if is_single:
            return _each(answers, lambda z: z.take(0, axis if self.each_step else 0))
        return answers

    def _present(self, x: Array, lengths: Any, mask: Any) -> tuple[Array | None, Array | None]:
        """Return which steps of x exist, in its layout, and which answers are blank for NaN.

        These are answers of steps that are left out, or of sequences of which all are.
        """
        batch_first = self.layer.batch_first
        outer = x.shape[:2]
        present: Array | None = None
        steps = as_steps(lengths, mask, outer[::-1] if batch_first else outer, batch_first)
        if steps is not None:
            exists = np.zeros(outer[::-1] if batch_first else outer, np.bool_)
            steps.scatter(np.True_, exists)
            present = exists.swapaxes(0, 1) if batch_first else exists
        if x.dtype.kind != "f" or (self.missing == "propagate" and self._has_nan):
            return present, None
        gaps: Array = np.asarray(np.isnan(x).any(axis=tuple(range(2, x.ndim))))
        if present is not None:
            gaps &= present
        if not gaps.any():
            return present, None
        if self.missing != "skip":
            place = tuple(int(i) for i in np.argwhere(gaps)[0])
            why = "" if self.missing == "raise" else ", and a class or label can't be NaN"
            raise ValueError(
                f"x: got NaN in {int(gaps.sum())} steps, the first at {place}{why}; "
                'missing="skip" leaves such steps out'
            )
        present = ~gaps if present is None else present & ~gaps
        if self.each_step:
            return present, gaps
        axis = 1 if batch_first else 0
        return present, np.logical_and(gaps.any(axis), ~present.any(axis))

    def _blanked(self, answers: Any, blank: Array | None) -> Any:
        """Return answers, some of them blank."""
        if blank is None:
            return answers
        if not isinstance(answers, dict):
            return blanked(answers, blank, self.answers[0])
        return {each.head: blanked(answers[each.head], blank, each) for each in self.answers}

    def _whole(self, x: Array, present: Array | None) -> Any:
        """Return the answers to sequences, of which some steps exist."""
        model = self.model
        if isinstance(model, Network):
            return getattr(model, METHODS[self.method])(x, mask=present)
        return run_layer(model, x, present, None)[0]

    def _piece(self, x: Array, present: Array | None, state: State | None) -> tuple[Any, State]:
        """Return the answers to a piece of sequences, and the state after it."""
        model = self.model
        if isinstance(model, Network):
            return run_network(model, self.method, x, present, state)
        return run_layer(model, x, present, state)


def features_of_engine(predictor: Predictor, group: Any, engine: str) -> tuple[str, ...]:
    """Return the columns that are inputs of an engine's tables, whose rows have no order.

    Raises
    ------
    ValueError
        As `told_features`; or if there are times without groups, or groups without times.
    """
    if predictor.features is None:
        raise ValueError("features: got None, expected the names of the columns that are inputs")
    features, time = told_features(predictor), predictor.time
    if predictor.group is None:
        if time is not None:
            raise ValueError("time: got one without group, the columns that tell whose step it is")
    elif not predictor.group or time is None:
        raise ValueError(
            f"group, time: got {shown(group)} and {shown(time)}, expected columns for both: "
            f"{engine} keeps no order of rows"
        )
    return features


def _is_frame(value: Any) -> bool:
    """Tell whether a value is a table of several columns, not an array or a series."""
    if isinstance(value, Mapping):
        return True
    columns = getattr(value, "columns", getattr(value, "column_names", None))
    return columns is not None and _foreign.columns_of(value) is not None


def _as_batch(x: Any, dimensions: int) -> Array:
    """Return x as an array of so many dimensions; else TypeError or ValueError."""
    array = as_array("x", x)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"x: got values of dtype {array.dtype}, expected real numbers")
    if array.ndim != dimensions:
        raise ValueError(f"x: got shape {array.shape}, expected {dimensions} dimensions")
    return array


def _each(answers: Any, change: Callable[[Array], Any]) -> Any:
    """Return what a function makes of the answers, of several heads of each."""
    if isinstance(answers, dict):
        return {head: change(array) for head, array in answers.items()}
    return change(answers)


def _cut(answers: Array, lengths: Sequence[int]) -> list[Array]:
    """Return the answers (B, T, ...) of a list of sequences as a list."""
    return [each[:length] for each, length in zip(answers, lengths, strict=True)]

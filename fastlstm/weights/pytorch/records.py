"""What stands in PyTorch's pickles: tensors, as records of where their numbers lie.

A tensor is pickled as a call, ``torch._utils._rebuild_tensor_v2(storage, offset, size, stride)``
and more, with the storage as a persistent id, ``("storage", torch.FloatStorage, key, location,
count)``. Here these names mean records. The table's other names are those that
``torch.load(weights_only=True)`` allows and TorchScript uses (torch/_weights_only_unpickler.py,
torch/jit/_pickle.py), Python's containers and NumPy's arrays (`arrays`). All others stand for
objects that are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from fastlstm.weights.pytorch.arrays import (
    MOST_DIMENSIONS,
    NUMPY,
    NUMPY_MARKS,
    Encoded,
    Numbers,
    Opaque,
    as_sizes,
)
from fastlstm.weights.pytorch.pickles import Global, Instance, Mapped, Unknown, fill


class Element(NamedTuple):
    """A number of a storage: PyTorch's name of its dtype, its bytes, and NumPy's code or ""."""

    name: str
    size: int
    code: str = ""


BFLOAT16 = Element("bfloat16", 2, "u2")  # as its bits, to be widened

_FLOAT8 = ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")

_ELEMENTS = {
    element.name: element
    for element in (
        Element("float32", 4, "f4"),
        Element("float64", 8, "f8"),
        Element("float16", 2, "f2"),
        BFLOAT16,
        Element("uint8", 1, "u1"),
        Element("int8", 1, "i1"),
        Element("int16", 2, "i2"),
        Element("int32", 4, "i4"),
        Element("int64", 8, "i8"),
        Element("bool", 1, "?"),
        Element("uint16", 2, "u2"),
        Element("uint32", 4, "u4"),
        Element("uint64", 8, "u8"),
        Element("complex32", 4),
        Element("complex64", 8),
        Element("complex128", 16),
        Element("qint8", 1, "i1"),
        Element("quint8", 1, "u1"),
        Element("qint32", 4),
        Element("quint4x2", 1),
        Element("quint2x4", 1),
        *(Element(f"float8_{kind}", 1) for kind in _FLOAT8),
    )
}

_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "uint8",
}


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """Numbers that lie side by side in a file.

    Attributes
    ----------
    key : str
        Of the bytes in the file.
    element : Element
    count : int
        Numbers under that key.
    start, stop : int
        Those of them that make this storage: all, but for the views of the old format.
    data : memoryview or None
        The numbers themselves, little-endian, where the pickle holds them.
    """

    key: str
    element: Element
    count: int
    start: int
    stop: int
    data: memoryview | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Tensor(Numbers):
    """A view of a storage: not yet checked against it.

    Attributes
    ----------
    storage : Storage
    element : Element
    offset : int
        In elements, as strides are.
    shape, stride : tuple of int
        Of equal length, none negative, nor is the offset.
    """

    storage: Storage
    element: Element
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class QuantizedTensor(Numbers):
    """A tensor of integers q that stand for scale * (q - zero).

    Attributes
    ----------
    integers : Tensor
    scale, zero : Tensor of one axis, or a float and an int
        For each number of an axis, or for all.
    axis : int or None
        None where there is one scale for all.
    """

    integers: Tensor
    scale: Tensor | float
    zero: Tensor | int
    axis: int | None

    what = "quantized tensor"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return self.integers.shape

    @property
    def parts(self) -> list[Tensor]:
        """All that has numbers in a storage."""
        parts = (self.integers, self.scale, self.zero)
        return [part for part in parts if isinstance(part, Tensor)]


class ScriptObject(Instance):
    """An object of TorchScript's in a state dict: its state is (state, class)."""

    __slots__ = ()

    def __str__(self) -> str:
        return "torch.ScriptObject"


def find(module: str, name: str) -> Global:
    """Return what a name in a pickle stands for."""
    known = _GLOBALS.get((module, name))
    if known is not None:
        return known
    if module == "__torch__" or module.startswith("__torch__."):
        return Global(module, name, new=Instance)
    if (module, name) == ("torch", "ScriptObject"):
        # Also in state dicts, those of dynamically quantised modules, whose weights it packs.
        return Global(module, name, new=ScriptObject)
    return Global(module, name, known=False)


def persistent(identity: Any) -> Storage | Global:
    """Return the storage of a persistent id, or the class where it is that of a module's class.

    Raises
    ------
    ValueError
        If it is neither.
    """
    # The old format has the source of a module's class beside it.
    if type(identity) is tuple and len(identity) > 1 and identity[0] == "module":
        kind = identity[1]
        if isinstance(kind, Global):
            return kind
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise ValueError("damaged: a persistent id that is no storage")
    kind, key, _, count = identity[1:5]
    if (
        not isinstance(kind, Global)
        or kind.module not in ("torch", "torch.cuda", "torch.storage")
        or kind.name not in _STORAGES
        or type(key) is not str
    ):
        raise ValueError("damaged: a storage of no known type, or without a key")
    (count,) = as_sizes((count,), "a storage's size")
    start, stop = 0, count
    view = identity[5] if len(identity) == 6 else None
    if view is not None:
        if type(view) is not tuple or len(view) != 3:
            raise ValueError("damaged: a view of a storage without offset and size")
        start, size = as_sizes(view[1:], "a storage's view")
        stop = start + size
        if stop > count:
            raise ValueError("damaged: a view beyond its storage")
    return Storage(key, _ELEMENTS[_STORAGES[kind.name]], count, start, stop)


_STRANGE_STORAGE = "tensor of a storage that is not understood"


def _rebuild_tensor(arguments: tuple[Any, ...]) -> Tensor | Opaque:
    """Of ``(storage, offset, size, stride)``, then ``requires_grad, hooks, metadata``."""
    if len(arguments) >= 4 and isinstance(arguments[0], Unknown):
        return Opaque(_STRANGE_STORAGE)
    if len(arguments) < 4 or not isinstance(arguments[0], Storage):
        raise ValueError("damaged: a tensor without a storage")
    return _tensor(arguments, arguments[0].element, arguments[6:])


def _rebuild_from_type(arguments: tuple[Any, ...]) -> Any:
    """Of ``(function, class, its arguments, state)``: a tensor with attributes of its own."""
    if len(arguments) >= 3:
        function, kind, of = arguments[:3]
        plain = isinstance(kind, Global) and kind.known and kind.name in ("Tensor", "Parameter")
        if plain and isinstance(function, Global) and function.reduce and type(of) is tuple:
            return function.reduce(of)
    return Opaque("tensor of a class of its own")


def _rebuild_tensor_v3(arguments: tuple[Any, ...]) -> Tensor | Opaque:
    """As the second version, with a dtype before the metadata and a storage of bytes."""
    if len(arguments) >= 7 and isinstance(arguments[0], Unknown):
        return Opaque(_STRANGE_STORAGE)
    if len(arguments) < 7 or not isinstance(arguments[0], Storage):
        raise ValueError("damaged: a tensor without a storage")
    dtype = arguments[6]
    if not isinstance(dtype, Global) or dtype.module != "torch" or dtype.name not in _ELEMENTS:
        raise ValueError("damaged: a tensor of no known dtype")
    return _tensor(arguments, _ELEMENTS[dtype.name], arguments[7:])


def _tensor(
    arguments: tuple[Any, ...], element: Element, metadata: tuple[Any, ...]
) -> Tensor | Opaque:
    storage, offset, shape, stride = arguments[:4]
    if type(shape) is not tuple or type(stride) is not tuple or len(shape) != len(stride):
        raise ValueError("damaged: a tensor's shape and strides don't fit each other")
    if len(shape) > MOST_DIMENSIONS:
        return Opaque(f"tensor of more than {MOST_DIMENSIONS} dimensions")
    (offset,) = as_sizes((offset,), "a tensor's offset")
    shape, stride = as_sizes(shape, "a tensor's shape"), as_sizes(stride, "a tensor's strides")
    if any(metadata):  # {"neg": True}: the numbers are to be negated, or conjugated
        return Opaque("tensor that is lazily negated or conjugated")
    return Tensor(storage, element, offset, shape, stride)


def _rebuild_quantized(arguments: tuple[Any, ...]) -> QuantizedTensor | Opaque:
    """Of ``(storage, offset, size, stride, how)``, then ``requires_grad, hooks``.

    ``how`` is ``(torch.per_tensor_affine, scale, zero)`` or ``(torch.per_channel_affine, scales,
    zeros, axis)``.
    """
    tensor = _rebuild_tensor(arguments[:4])
    how = arguments[4] if len(arguments) > 4 else None
    if isinstance(tensor, Tensor) and tensor.element.name in ("qint8", "quint8"):
        match how:
            case (Global(name="per_tensor_affine"), float(scale), int(zero)):
                return QuantizedTensor(tensor, scale, zero, None)
            case (
                Global(name="per_channel_affine"),
                Tensor() as scale,
                Tensor() as zero,
                int(axis),
            ):
                return QuantizedTensor(tensor, scale, zero, axis)
    return Opaque(QuantizedTensor.what)


def _first(arguments: tuple[Any, ...]) -> Any:
    if not arguments:
        raise ValueError("damaged: a call without arguments")
    return arguments[0]


def _ordered_dict(arguments: tuple[Any, ...]) -> Mapped:
    """Of nothing, or as Python 2 has it of a list of [key, value]."""
    mapped = Mapped()
    if arguments:
        pairs = _first(arguments)
        if type(pairs) is not list:
            raise ValueError("damaged: an OrderedDict of no list")
        for pair in pairs:
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise ValueError("damaged: an OrderedDict of no pairs")
            fill(mapped, list(pair))
        pairs.clear()  # else one list could be copied any number of times
    return mapped


def _default_dict(arguments: tuple[Any, ...]) -> Mapped:
    """Of nothing, or of what makes its values, which is not called."""
    return Mapped()


def _encoded(arguments: tuple[Any, ...]) -> Any:
    """Of text and ``"latin1"``, or of bytes: what protocols before 3 have for bytes."""
    if arguments and type(arguments[0]) is str:
        return Encoded(arguments[0])
    return arguments[0] if arguments and type(arguments[0]) in (bytes, bytearray, Encoded) else b""


def _nothing(_: tuple[Any, ...]) -> None:
    return None


def _opaque(what: str) -> Any:
    opaque = Opaque(what)
    return lambda _: opaque


_REDUCED = {
    **NUMPY,
    "collections OrderedDict": _ordered_dict,
    "collections defaultdict": _default_dict,
    "torch._utils _rebuild_tensor": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils _rebuild_sparse_tensor": _opaque("sparse tensor"),
    "torch._utils _rebuild_qtensor": _rebuild_quantized,
    "torch._utils _rebuild_meta_tensor_no_storage": _opaque("tensor without numbers"),
    "torch._utils _rebuild_nested_tensor": _opaque("nested tensor"),
    "torch._utils _rebuild_wrapper_subclass": _opaque("tensor of a class of its own"),
    "torch._utils _rebuild_device_tensor_from_numpy": _opaque("tensor of a device"),
    "torch._utils _rebuild_device_tensor_from_cpu_tensor": _opaque("tensor of a device"),
    "torch._tensor _rebuild_from_type_v2": _rebuild_from_type,
    "torch.jit._pickle build_tensor_from_id": _opaque("tensor by number"),
    **dict.fromkeys(
        (
            "torch._utils _rebuild_parameter",
            "torch._utils _rebuild_parameter_with_state",
            "torch Size",
            "torch.jit._pickle build_intlist",
            "torch.jit._pickle build_tensorlist",
            "torch.jit._pickle build_doublelist",
            "torch.jit._pickle build_boollist",
            "torch.jit._pickle restore_type_tag",
            "collections Counter",
            "__builtin__ set",
            "builtins set",
        ),
        _first,
    ),
    # Not the list in it, which can't be a key as a frozenset can.
    **dict.fromkeys(("__builtin__ frozenset", "builtins frozenset"), lambda arguments: arguments),
    **dict.fromkeys(
        (
            "torch device",
            "torch.serialization _get_layout",
            "__builtin__ complex",
            "builtins complex",
        ),
        _nothing,
    ),
    **dict.fromkeys(
        (
            "_codecs encode",
            "__builtin__ bytearray",
            "builtins bytearray",
            "__builtin__ bytes",
            "builtins bytes",
        ),
        _encoded,
    ),
}

_MARKS = [
    *NUMPY_MARKS,
    *(f"torch {name}" for name in (*_ELEMENTS, *_STORAGES)),
    *(f"torch.cuda {name}" for name in _STORAGES),
    "torch.storage UntypedStorage",
    "torch Tensor",
    "torch.nn.parameter Parameter",
    *(f"torch per_{kind}" for kind in ("tensor_affine", "tensor_symmetric")),
    *(f"torch per_channel_{kind}" for kind in ("affine", "symmetric", "affine_float_qparams")),
]

_GLOBALS: dict[tuple[str, str], Global] = {}
for _entry in (*_REDUCED, *_MARKS):
    _module, _name = _entry.split(" ")
    _GLOBALS[_module, _name] = Global(_module, _name, _REDUCED.get(_entry))

"""Reads a data frame from a Python pickle without letting the pickle run anything.

A pickle is a program. Python's documentation advises restricting the names it may look up; that leaves open
what it does with them. Here the names, the calls, the states that may be set and the opcodes are all restricted
to what pandas (1.x to 3.x) and numpy write for a frame of text and numbers. Everything else is refused by name.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routebook.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

# (module, name) as a pickle states it -> where the real thing is now.
_CLASSES = {
    ("pandas", "DataFrame"): "pandas:DataFrame",
    ("pandas.core.frame", "DataFrame"): "pandas:DataFrame",
    ("pandas", "Index"): "pandas:Index",
    ("pandas.core.indexes.base", "Index"): "pandas:Index",
    ("pandas.core.indexes.numeric", "Int64Index"): "pandas:Index",
    ("pandas.core.indexes.numeric", "UInt64Index"): "pandas:Index",
    ("pandas.core.indexes.numeric", "Float64Index"): "pandas:Index",
    ("pandas", "RangeIndex"): "pandas:RangeIndex",
    ("pandas.core.indexes.range", "RangeIndex"): "pandas:RangeIndex",
    ("pandas.core.internals.managers", "BlockManager"): "pandas.core.internals.managers:BlockManager",
    ("pandas.core.internals", "BlockManager"): "pandas.core.internals.managers:BlockManager",
    ("pandas", "StringDtype"): "pandas:StringDtype",
    ("pandas.core.arrays.string_", "StringDtype"): "pandas:StringDtype",
    ("pandas.arrays", "StringArray"): "pandas.arrays:StringArray",
    ("pandas.core.arrays.string_", "StringArray"): "pandas.arrays:StringArray",
    ("pandas.arrays", "ArrowStringArray"): "pandas.arrays:ArrowStringArray",
    ("pandas.core.arrays.string_arrow", "ArrowStringArray"): "pandas.arrays:ArrowStringArray",
    ("numpy", "ndarray"): "numpy:ndarray",
    ("numpy", "dtype"): "numpy:dtype",
}
_CONSTANTS = {
    ("pandas", "NA"): "pandas:NA",
    ("pandas._libs.missing", "NA"): "pandas:NA",
}
_FUNCTIONS = {
    ("pandas._libs.internals", "_unpickle_block"): "pandas._libs.internals:_unpickle_block",
    ("pandas.core.internals.blocks", "new_block"): "pandas._libs.internals:_unpickle_block",
    ("numpy.core.numeric", "_frombuffer"): "numpy._core.numeric:_frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "numpy._core.numeric:_frombuffer",
    ("pyarrow.lib", "py_buffer"): "pyarrow.lib:py_buffer",
    ("pyarrow.lib", "chunked_array"): "pyarrow.lib:chunked_array",
    ("builtins", "slice"): "builtins:slice",
    ("__builtin__", "slice"): "builtins:slice",
}
# Classes that a pickle may also call as functions.
_CALLED_CLASSES = ("numpy:dtype", "pandas:StringDtype", "pandas.core.internals.managers:BlockManager")
_ARROW_TYPES = ("string", "large_string")


class _Refused(DataError):
    """The pickle asks for something that is not needed to rebuild a frame."""


def read_frame(path: Path) -> pd.DataFrame:
    """Return the data frame in a pickle file.

    Parameters
    ----------
    path
        A pickle (protocol 2 to 5) of one pandas DataFrame of text, numbers and missing values.

    Raises
    ------
    DataError
        When the file is missing, damaged, holds something other than a frame, or asks for anything beyond
        rebuilding one; the message gives the dotted name of what it asked for.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror}); pull the dataset again") from None
    return loads_frame(data, str(path))


def loads_frame(data: bytes, where: str = "the pickle") -> pd.DataFrame:
    """Return the data frame in the bytes of a pickle; see `read_frame`."""
    import pandas as pd

    try:
        found = _FrameUnpickler(data, where).load()
    except _Refused:
        raise
    # A damaged or hostile program can raise anything at all while it is followed.
    except Exception as problem:
        reason = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise DataError(f"{where} is no readable pickle of a data frame ({reason}); pull the dataset again") from None
    if type(found) is not pd.DataFrame:
        raise DataError(f"{where} holds a {type(found).__name__}, expected a pandas DataFrame; pull the dataset again")
    return _plain(found, where)


def _plain(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Rebuild the frame from its columns' values, so that nothing of the pickle's own objects lives on."""
    import numpy as np
    import pandas as pd

    try:
        columns = {str(name): frame.iloc[:, i].to_numpy() for i, name in enumerate(frame.columns)}
        plain = pd.DataFrame({name: np.array(values) for name, values in columns.items()})
    except Exception as problem:
        raise DataError(f"{where} holds a damaged data frame ({problem}); pull the dataset again") from None
    if len(plain.columns) != len(frame.columns):
        raise DataError(f"{where} holds a data frame with repeated column names; pull the dataset again")
    return plain


def _resolve(target: str) -> Any:
    module, name = target.split(":")
    return getattr(import_module(module), name)


def _latin1(text: str, encoding: str) -> bytes:
    # Protocol 2 has no bytes: it writes them as text to be encoded so, and in no other way.
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"the pickle asks for _codecs.encode with {encoding!r}, expected 'latin1'; it was not read")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    # How protocol 2 writes b"", the buffer of an empty column.
    return b""


def _bytearray(content: Any = b"", encoding: str = "latin-1") -> bytearray:
    return bytearray(_latin1(content, encoding) if isinstance(content, str) else bytes(memoryview(content)))


def _arrow_type(name: str) -> Any:
    if name not in _ARROW_TYPES:
        raise _Refused(f"the pickle asks for pyarrow type {name!r}, expected {' or '.join(_ARROW_TYPES)}")
    return _resolve("pyarrow.lib:type_for_alias")(name)


def _arrow_array(data: Any) -> Any:
    array = _resolve("pyarrow.lib:_restore_array")(data)
    # Offsets that point outside the buffers would be read blindly later.
    array.validate(full=True)
    return array


def _scalar(dtype: Any, content: Any = None) -> Any:
    if dtype.hasobject:
        raise _Refused("the pickle asks for a numpy scalar of objects; it was not read")
    return _resolve("numpy._core.multiarray:scalar")(dtype, content)


def _for(*classes: str) -> Callable[[str], Callable]:
    """Return a maker of functions that call a target only when its first argument is one of the classes."""

    def maker(target: str) -> Callable:
        def call(cls: Any, *args: Any) -> Any:
            if not any(cls is _resolve(allowed) for allowed in classes):
                raise _Refused(f"the pickle asks {target.partition(':')[2]} for {_name(cls)}; it was not read")
            return _resolve(target)(cls, *args)

        return call

    return maker


_new_index = _for("pandas:Index", "pandas:RangeIndex")("pandas.core.indexes.base:_new_Index")
_new_array = _for("numpy:ndarray")("numpy._core.multiarray:_reconstruct")
_new_strings = _for("pandas.arrays:StringArray")("pandas._libs.arrays:__pyx_unpickle_NDArrayBacked")

_OWN: dict[tuple[str, str], Callable] = {
    ("pandas.core.indexes.base", "_new_Index"): _new_index,
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): _new_strings,
    ("_codecs", "encode"): _latin1,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytearray"): _bytearray,
    ("__builtin__", "bytearray"): _bytearray,
    ("pyarrow.lib", "type_for_alias"): _arrow_type,
    ("pyarrow.lib", "_restore_array"): _arrow_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _FrameUnpickler(pickle._Unpickler):
    """An unpickler that can do nothing but rebuild a frame.

    The pure-Python unpickler is its base because the one in C admits no say over calls and states.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, data: bytes, where: str):
        super().__init__(io.BytesIO(data))
        self.where = where
        classes = {key: _resolve(target) for key, target in _CLASSES.items()}
        functions = {**{key: _resolve(target) for key, target in _FUNCTIONS.items()}, **_OWN}
        constants = {key: _resolve(target) for key, target in _CONSTANTS.items()}
        self._known = {**classes, **functions, **constants}
        self._callable = [*functions.values(), *(_resolve(target) for target in _CALLED_CLASSES)]
        self._dtype, self._manager = classes["numpy", "dtype"], classes["pandas.core.internals", "BlockManager"]
        self._built = tuple({*classes.values()} - {_resolve("pandas:StringDtype"), self._dtype})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise _refusal(self.where, f"{module}.{name}")
        return self._known[module, name]

    def _call(self) -> None:
        args = self.stack.pop()
        function = self.stack[-1]
        if not any(function is allowed for allowed in self._callable):
            raise _refusal(self.where, f"a call of {_name(function)}")
        self.stack[-1] = function(*args)

    def _make(self) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        if args or not any(cls is allowed for allowed in self._built):
            raise _refusal(self.where, f"a new {_name(cls)}")
        # Pickles of pandas before 1.3 make the manager empty and set its state later.
        self.append(cls.__new__(cls, (), [], False) if cls is self._manager else cls.__new__(cls))

    def _set_state(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, self._dtype):
            _check_dtype_state(self.where, state)
        elif type(target) in self._built and hasattr(target, "__setstate__"):
            target.__setstate__(state)
        else:
            raise _refusal(self.where, f"a state for {_name(target)}")

    def _refuse_inst(self) -> None:
        module, name = self.readline()[:-1], self.readline()[:-1]
        raise _refusal(self.where, f"{module.decode('ascii', 'replace')}.{name.decode('ascii', 'replace')}")

    dispatch[pickle.REDUCE[0]] = _call
    dispatch[pickle.NEWOBJ[0]] = _make
    dispatch[pickle.BUILD[0]] = _set_state
    dispatch[pickle.INST[0]] = _refuse_inst


def _refuse(opcode: str) -> Callable:
    def refuse(self: _FrameUnpickler) -> None:
        raise _refusal(self.where, f"opcode {opcode}")

    return refuse


for _opcode in ("OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"):
    _FrameUnpickler.dispatch[getattr(pickle, _opcode)[0]] = _refuse(_opcode)


def _check_dtype_state(where: str, state: Any) -> None:
    """Admit the state of a plain native dtype, which adds nothing to what the dtype's name said."""
    import sys

    native = "<" if sys.byteorder == "little" else ">"
    plain = isinstance(state, tuple) and len(state) >= 5 and state[2:5] == (None, None, None)
    if not plain or state[1] not in (native, "|", "="):
        raise _refusal(where, "a structured or byte-swapped numpy dtype")


def _name(thing: Any) -> str:
    if isinstance(thing, type) or callable(thing):
        return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    return f"a {type(thing).__module__}.{type(thing).__qualname__}"


def _refusal(where: str, what: str) -> _Refused:
    return _Refused(
        f"{where} was refused: it asks for {what}, which no pickled data frame needs; nothing of it was executed. "
        f"Do not open this file with pickle or pandas; fetch the dataset again from its publisher"
    )

"""The pickle reader rebuilds frames and executes nothing else."""

from __future__ import annotations

import copyreg
import functools
import io
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from routebook.datasets.safe_pickle import loads_frame, read_frame
from routebook.errors import DataError

FRAMES = {
    "objects": pd.DataFrame(
        {
            "a": pd.Series(["x", "it's", "β"], dtype=object),
            "b": [1.5, -2.0, np.nan],
            "c": [True, False, True],
            "i": [1, 2, 3],
            "f": np.array([1, 2, 3], dtype="float32"),
        },
        columns=pd.Index(["a", "b", "c", "i", "f"], dtype=object),
    ),
    "strings": pd.DataFrame({"prompt": ["['x']", "['y']"], "m|total_cost": [1e-4, np.nan]}),
    "python strings": pd.DataFrame({"a": pd.array(["x", None], dtype="string[python]")}),
    "arrow strings": pd.DataFrame({"a": pd.array(["x", "y"], dtype="string[pyarrow]")}),
    "labelled rows": pd.DataFrame({"b": [1.0, 2.0], "s": ["u", "v"]}, index=[5, 9]),
    "empty": pd.DataFrame({"b": pd.Series([], dtype=float)}),
    "numpy scalars": pd.DataFrame({"a": pd.Series([np.float64(0.5), np.str_("t"), None], dtype=object)}),
}


def same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    assert [str(c) for c in left.columns] == [str(c) for c in right.columns]
    for column in left.columns:
        a, b = left[column].tolist(), right[column].tolist()
        assert len(a) == len(b)
        assert all((pd.isna(x) and pd.isna(y)) or x == y for x, y in zip(a, b, strict=True)), column


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", FRAMES)
def test_frames_written_by_pandas_load(kind, protocol, tmp_path):
    path = tmp_path / "frame.pkl"
    FRAMES[kind].to_pickle(path, protocol=protocol)
    same(read_frame(path), FRAMES[kind].reset_index(drop=True))


OLDER_NAMES = {
    # numpy 1.x and pandas 1.x and 2.x wrote the modules where things were then.
    b"cnumpy._core.multiarray\n": b"cnumpy.core.multiarray\n",
    b"cpandas\nDataFrame\n": b"cpandas.core.frame\nDataFrame\n",
    b"cpandas\nIndex\n": b"cpandas.core.indexes.base\nIndex\n",
    b"cpandas\nRangeIndex\n": b"cpandas.core.indexes.range\nRangeIndex\n",
}


@pytest.mark.parametrize(
    "block", [b"cpandas.core.internals.blocks\nnew_block\n", b"cpandas._libs.internals\n_unpickle_block\n"]
)
def test_names_of_older_pandas_load(block):
    data = pickle.dumps(FRAMES["objects"], 2)
    for now, then in {**OLDER_NAMES, b"cpandas._libs.internals\n_unpickle_block\n": block}.items():
        assert now in data, now
        data = data.replace(now, then)
    same(loads_frame(data), FRAMES["objects"])


def test_manager_state_of_pandas_before_1_3_loads():
    """Those pickles make an empty manager and hand it a state with its blocks."""
    frame = FRAMES["objects"]

    class OldPickler(pickle.Pickler):
        def reducer_override(self, thing):
            if type(thing).__name__ == "BlockManager":
                blocks = [{"values": b.values, "mgr_locs": b.mgr_locs.indexer} for b in thing.blocks]
                state = (list(thing.axes), [], [], {"0.14.1": {"axes": list(thing.axes), "blocks": blocks}})
                return copyreg.__newobj__, (type(thing),), state
            return NotImplemented

    stream = io.BytesIO()
    OldPickler(stream, 4).dump(frame)
    same(loads_frame(stream.getvalue()), frame)


def test_int64_index_of_older_pandas_loads():
    frame = FRAMES["labelled rows"]
    data = pickle.dumps(frame[["b"]], 2)
    # The class is written once, for the columns, and referred to again for the rows; both may be the old class.
    data = data.replace(b"cpandas\nIndex\n", b"cpandas.core.indexes.numeric\nInt64Index\n")
    assert b"Int64Index" in data
    same(loads_frame(data), frame[["b"]].reset_index(drop=True))


# --- attacks ----------------------------------------------------------------------------------------------------


class Reduces:
    def __init__(self, function, *args):
        self.what = function, args

    def __reduce__(self):
        return self.what


def _attacks(marker: Path) -> dict[str, bytes]:
    touch = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w').close()"
    text = lambda s: b"X" + len(s.encode()).to_bytes(4, "little") + s.encode()  # noqa: E731
    strings = lambda *s: b"".join(b"\x8c" + bytes([len(x)]) + x.encode() for x in s)  # noqa: E731
    cells = np.empty(2, dtype=object)
    cells[:] = ["fine", Reduces(os.system, touch)]
    frame = pd.DataFrame({"a": pd.Series(cells, dtype=object)})
    attacks = {f"os.system, protocol {p}": pickle.dumps(Reduces(os.system, touch), p) for p in range(6)}
    attacks |= {f"inside an object column, protocol {p}": pickle.dumps(frame, p) for p in range(2, 6)}
    attacks |= {
        "eval": pickle.dumps(Reduces(eval, python)),
        "exec": pickle.dumps(Reduces(exec, python)),
        "subprocess": pickle.dumps(Reduces(subprocess.call, ["touch", str(marker)])),
        "open": pickle.dumps(Reduces(open, str(marker), "w")),
        "partial": pickle.dumps(Reduces(functools.partial, os.system, touch)),
        "getattr": b"\x80\x02cbuiltins\ngetattr\n(cpandas\nDataFrame\n" + text("eval") + b"tR.",
        "pandas.eval": b"\x80\x02cpandas\neval\n(" + text(f"@__import__('os').system('{touch}')") + b"tR.",
        "pandas.read_pickle": b"\x80\x02cpandas\nread_pickle\n(" + text(str(marker)) + b"tR.",
        "numpy.load": b"\x80\x02cnumpy\nload\n(" + text(str(marker)) + b"tR.",
        "INST": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + touch.encode() + b"'\no.",
        "OBJ of an allowed class": b"(cpandas\nDataFrame\no.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n" + text(touch) + b"\x85\x81.",
        "NEWOBJ with arguments": b"\x80\x02cpandas\nIndex\n(]" + text("x") + b"at\x81.",
        "NEWOBJ_EX": b"\x80\x04" + strings("pandas", "DataFrame") + b"\x93)}\x92.",
        "dotted name": b"\x80\x04" + strings("numpy.core.multiarray", "_reconstruct.__globals__") + b"\x93.",
        "dotted module": b"\x80\x04" + strings("pandas", "io.common.os.system") + b"\x93" + strings(touch) + b"\x85R.",
        "dunder": b"\x80\x04" + strings("pandas", "__builtins__") + b"\x93.",
        "BUILD on a function": b"\x80\x02cpandas._libs.internals\n_unpickle_block\n}" + text("x") + text("y") + b"sb.",
        "BUILD on a class": b"\x80\x02cpandas\nDataFrame\nN}" + text("__setstate__") + text("y") + b"s\x86b.",
        "PERSID": b"Pos.system\n.",
        "BINPERSID": b"\x80\x02" + text("x") + b"Q.",
        "calls a constant": b"\x80\x02cpandas\nNA\n)R.",
        "calls a class": b"\x80\x02cpandas\nDataFrame\n)R.",
        "another codec": b"\x80\x02c_codecs\nencode\n(" + text("x") + text("rot13") + b"tR.",
        "index of arrays": b"\x80\x02cpandas.core.indexes.base\n_new_Index\n(cnumpy\nndarray\n}tR.",
    }
    return attacks


NAMES = list(_attacks(Path("marker")))


@pytest.mark.parametrize("attack", NAMES)
def test_a_malicious_pickle_executes_nothing(attack, tmp_path):
    marker = tmp_path / "executed"
    with pytest.raises(DataError) as caught:
        loads_frame(_attacks(marker)[attack], "file.pkl")
    assert not marker.exists()
    assert "file.pkl was refused" in str(caught.value) or "it was not read" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "attack", ["os.system, protocol 4", "inside an object column, protocol 5", "eval", "INST", "OBJ", "dotted module"]
)
def test_these_attacks_are_real(attack, tmp_path):
    """The same bytes do execute under Python's own unpickler, so the test above could fail."""
    marker = tmp_path / "executed"
    pickle.loads(_attacks(marker)[attack])
    assert marker.exists()


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        ("os.system, protocol 4", "posix.system"),
        ("eval", "builtins.eval"),
        ("subprocess", "subprocess.call"),
        ("INST", "os.system"),
        ("dotted name", "numpy.core.multiarray._reconstruct.__globals__"),
        ("BUILD on a function", "_unpickle_block"),
    ],
)
def test_the_refused_name_is_in_the_message(attack, name, tmp_path):
    with pytest.raises(DataError, match=name):
        loads_frame(_attacks(tmp_path / "executed")[attack])


def test_extension_registry_is_refused(tmp_path):
    marker = tmp_path / "executed"
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        data = pickle.dumps(Reduces(os.system, f"touch {marker}"), 2)
        assert b"\x82\xf0" in data
        with pytest.raises(DataError, match=r"opcode EXT1"):
            loads_frame(data)
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)
    assert not marker.exists()


def test_other_contents_and_damage(tmp_path):
    with pytest.raises(DataError, match=r"holds a dict, expected a pandas DataFrame"):
        loads_frame(pickle.dumps({"a": 1}))
    whole = pickle.dumps(FRAMES["objects"])
    for cut in (0, 1, 20, len(whole) // 2, len(whole) - 1):
        with pytest.raises(DataError, match=r"no readable pickle"):
            loads_frame(whole[:cut])
    with pytest.raises(DataError, match=r"cannot be read"):
        read_frame(tmp_path / "nothing.pkl")
    swapped = pd.DataFrame({"a": np.array([1.0, 2.0], dtype=">f8")})
    with pytest.raises(DataError, match=r"byte-swapped"):
        loads_frame(pickle.dumps(swapped))


def test_bytes_flipped_at_random_never_execute_and_never_crash_otherwise():
    whole = pickle.dumps(FRAMES["strings"])
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=3):
            data[place] = rng.integers(256)
        try:
            frame = loads_frame(bytes(data))
        except DataError:
            continue
        assert isinstance(frame, pd.DataFrame)

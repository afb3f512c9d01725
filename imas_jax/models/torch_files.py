"""Checkpoint files of other frameworks -> NumPy arrays, without those frameworks.

Also how torch names and lays out the leaves of a layer.

Reads PyTorch's zip format (1.6 and later), its older stream format, `.safetensors` and
`.npz`; which one a file is shows in its first bytes, not in its name. Nothing in a
pickle is ever executed: a handful of names have a meaning here (`MEANINGS`), every
other object becomes an inert `Opaque`. A file that names what runs programs is refused
all the same: torch would run them. (ptloader 0.3, the one maintained reader on
PyPI, cannot read the older format, which RAFT's and MoCo's published files have.)
"""

import collections
import io
import json
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import ml_dtypes
import numpy as np
import safetensors.numpy
from absl import logging

from imas_jax import errors, files

STREAM_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
STREAM_PROTOCOL = 1001
# Where training scripts keep the tensors, in order of preference.
WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "module", "net", "params"),
    "teacher",  # of DINO: what its student follows, and what is used afterwards
)
# Modules and built-in functions that no weights have a use for.
PROGRAMS = (
    *("os", "posix", "nt", "subprocess", "pty", "sys", "runpy", "importlib", "ctypes"),
    *("shutil", "socket", "webbrowser", "commands", "code", "timeit", "pip", "urllib"),
)
BUILTINS = ("builtins", "__builtin__", "io", "_io")
FUNCTIONS = ("eval", "exec", "execfile", "compile", "open", "__import__", "breakpoint")
NAMED = 8  # names of a file that a message repeats
EXPECTED = "a .pth, .pth.tar, .pt, .safetensors or .npz file of named tensors"
TYPES = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}
# Our leaf of a layer -> torch's.
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_name(path: tuple[str, ...], layers: Mapping[str, str]) -> str:
    """Translate a leaf's path in our tree, e.g. ("layer1_0", "bn1", "mean").

    Args:
        path: Modules and leaf, without the collection.
        layers: Modules that torch calls otherwise; of the rest only `layer1_0` changes.
    """
    *modules, leaf = path
    translated = [
        layers.get(
            module, module.replace("_", ".") if module.startswith("layer") else module
        )
        for module in modules
    ]
    return ".".join([*translated, LEAVES[leaf]])


def to_kernel(tensor: np.ndarray) -> np.ndarray:
    """Turn torch's weights (out, in, *taps) into a kernel of ours.

    Of a convolution (h, w, in, out), of a linear layer (in, out).
    """
    if tensor.ndim == 3:  # A pointwise Conv1d of the authors' phi_2.
        tensor = tensor[..., None]
    if tensor.ndim not in (2, 4):
        return tensor
    order = (2, 3, 1, 0) if tensor.ndim == 4 else (1, 0)
    return np.ascontiguousarray(tensor.transpose(order))


def to_torch(leaf: np.ndarray) -> np.ndarray:
    """Turn a leaf of ours into torch's layout: what `to_kernel` undoes."""
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim)
    return np.ascontiguousarray(leaf if order is None else leaf.transpose(order))


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> None:
    """Write named tensors, whole or not at all; raises as `files.aside` does.

    Args:
        path: The file.
        tensors: In torch's layout.
        about: Plain values that say what they are, kept in the file's header.
    """
    # One entry: of several safetensors writes the order as its hash table has it.
    told = {"imas_jax": json.dumps(about)}
    with files.aside(path) as draft:
        safetensors.numpy.save_file(dict(tensors), draft, told)


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Turn the shape of one of our leaves into torch's, for messages."""
    if len(shape) == 4:
        h, w, k, d = shape
        return (d, k, h, w)
    return shape[::-1] if len(shape) == 2 else shape


def read_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Read the named tensors of a checkpoint, wherever in the file they are.

    Args:
        path: File in one of the formats of this module.

    Returns:
        Name -> array, in the file's order and types (bfloat16 becomes float32).
        Wrapping dictionaries (`state_dict`, `model`, ...) are entered; optimiser
        state, counters and settings are left out.

    Raises:
        UserError: If the file is missing, truncated, of another format, or holds no
            named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise errors.UserError(f"no file {path}", EXPECTED, "check the path")
    try:
        return _tensors(_read(path), path)
    except errors.UserError:
        raise
    except RunsPrograms as error:
        raise errors.UserError(
            f"{path} would run {error} when torch opens it; nothing of it was run",
            EXPECTED,
            "open it nowhere else; take the weights from where they are published",
        ) from error
    except Exception as error:
        # A damaged file fails in any way inside the readers of pickles and archives.
        raise errors.UserError(
            f"{path} cannot be read ({type(error).__name__}: {error})",
            EXPECTED,
            "download it again; a file saved by torch.jit or torch.save(model) has to "
            "be saved anew as torch.save(model.state_dict(), path)",
        ) from error


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(0)
        if head.startswith(STREAM_MAGIC):
            return _read_stream(file, path.stat().st_size)
        if head.startswith(b"PK"):
            return _read_zip(path)
    if head[8:9] == b"{":
        return safetensors.numpy.load_file(path)
    raise ValueError(f"unknown format, first bytes {head!r}")


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if all(name.endswith(".npy") for name in names):
            return files.read_npz(path)
        files.check_unpacked(archive, path.stat().st_size)
        root = next((n for n in names if n.endswith("data.pkl")), None)
        if root is None or any(name.endswith("constants.pkl") for name in names):
            raise ValueError("a zip archive, but not one of tensors")
        folder = root.removesuffix("data.pkl")
        order: Literal["<", ">"] = "<"
        if f"{folder}byteorder" in names:
            order = ">" if archive.read(f"{folder}byteorder") == b"big" else "<"

        def load(key: str, dtype: np.dtype, count: int) -> np.ndarray:
            data = archive.read(f"{folder}data/{key}")
            return np.frombuffer(data, dtype.newbyteorder(order), count)

        with archive.open(root) as file:
            return Reader(file, load).load()


def _read_stream(file: IO[bytes], size: int) -> Any:
    """Read the older format: the pickle comes first, the data of its tensors after."""
    storages: dict[str, np.ndarray] = {}

    def reserve(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        if not 0 <= count * dtype.itemsize <= size:
            raise ValueError(f"storage {key} of {count} elements exceeds the file")
        return storages.setdefault(key, np.zeros(count, dtype))

    def plain() -> Any:
        return Reader(file, reserve).load()

    plain()
    if (protocol := plain()) != STREAM_PROTOCOL:
        raise ValueError(f"protocol {protocol}, not {STREAM_PROTOCOL}")
    plain()  # Sizes of C types on the machine that saved.
    content = plain()
    for key in plain():
        (count,) = struct.unpack("<q", file.read(8))
        storage = storages[key]
        if count != storage.size:
            raise ValueError(f"storage {key} has {count}, not {storage.size} elements")
        data = file.read(storage.nbytes)
        storage[:] = np.frombuffer(data, storage.dtype.newbyteorder("<"), count)
    return content


class RunsPrograms(Exception):
    """A pickle names something that no weights have a use for."""


class Opaque:
    """Stands for any object this module gives no meaning; takes all, does nothing."""

    def __init__(self, *_: object, **__: object):
        pass

    def __call__(self, *_: object, **__: object) -> "Opaque":
        """Be called by a pickle and stay inert, as in all methods below."""
        return self

    def __setstate__(self, state: object) -> None:
        """Drop the state."""

    def __setitem__(self, key: object, value: object) -> None:
        """Drop the item."""

    def append(self, value: object) -> None:
        """Drop the value."""

    def extend(self, values: object) -> None:
        """Drop the values."""


class Reader(pickle.Unpickler):
    """An unpickler that knows tensors and plain containers, and nothing else.

    Args:
        file: The pickle.
        load: Storage key, type and element count -> flat array.
    """

    def __init__(
        self,
        file: IO[bytes] | io.BufferedIOBase,
        load: Callable[[str, np.dtype, int], np.ndarray],
    ):
        super().__init__(file, encoding="latin1")
        self._load = load
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up in `MEANINGS`; import nothing.

        Raises:
            RunsPrograms: For what only a file that wants to run programs names.
        """
        called = module in BUILTINS and name in FUNCTIONS
        if called or module.split(".")[0] in PROGRAMS:
            raise RunsPrograms(f"{module}.{name}")
        if module in ("torch", "torch.storage", "torch.cuda"):
            kind = name.removesuffix("Storage")
            if kind in TYPES:
                return np.dtype(TYPES[kind])
        known = MEANINGS.get((module, name))
        if known is None:
            logging.log_first_n(
                logging.INFO, "checkpoint: ignoring %s.%s", 5, module, name
            )
            return Opaque
        return known

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Return the flat array a tensor is a view of."""
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise ValueError(f"unknown storage {pid!r}")
        if key not in self._storages:
            self._storages[key] = self._load(key, dtype, count)
        if view and view[0] is not None:
            _, offset, length = view[0]
            return self._storages[key][offset : offset + length]
        return self._storages[key]


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: object
) -> np.ndarray:
    """Return a strided view; NumPy checks that it stays inside the storage.

    A stride of 0 would let a few bytes stand for terabytes.
    """
    width = storage.itemsize
    if math.prod(size) > storage.size:
        raise ValueError(f"a tensor of {tuple(size)} in a storage of {storage.size}")
    return np.ndarray(
        tuple(size),
        storage.dtype,
        storage,
        offset * width,
        tuple(step * width for step in stride),
    )


def _first(value: Any, *_: object) -> Any:
    return value


def _plain_dict(*_: object) -> dict:
    return {}


MEANINGS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): _plain_dict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
}


def _tensors(content: Any, path: Path) -> dict[str, np.ndarray]:
    """Return the dictionary of arrays in a checkpoint's content."""
    layer, seen = content, set()
    while isinstance(layer, Mapping) and id(layer) not in seen:
        seen.add(id(layer))  # a dictionary may hold itself
        arrays = {
            str(name): value
            for name, value in layer.items()
            if isinstance(value, np.ndarray)
        }
        total = sum(array.nbytes for array in arrays.values())
        files.check_total(total, path.stat().st_size)  # many may share one storage
        if arrays:
            return {name: _native(array) for name, array in arrays.items()}
        layer = next((layer[name] for name in WRAPPERS if name in layer), None)
    names = list(content)[:NAMED] if isinstance(content, Mapping) else ["no names"]
    held = ", ".join(map(str, names))
    raise errors.UserError(
        f"{path} holds no named tensors (found: {held})",
        f"tensors by name, at the top or under one of {', '.join(WRAPPERS)}",
        "save the network's state_dict() alone",
    )


def _native(array: np.ndarray) -> np.ndarray:
    """Return an own, contiguous array in the machine's byte order."""
    if array.dtype == ml_dtypes.bfloat16:
        return array.astype(np.float32)
    return np.array(array, array.dtype.newbyteorder("="), order="C")

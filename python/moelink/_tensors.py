"""Turns NumPy arrays, torch tensors and DLPack objects into views for the core, and back.

PyTorch is never imported here: a torch tensor can only exist when its library is loaded already.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

import numpy as np

from moelink import _core
from moelink._core import DType
from moelink.errors import Error, ErrorCode, invalid_argument, make_error

# Names that NumPy (with ml_dtypes) and torch share.
_DTYPE_OF_NAME: dict[str, DType] = {_core.dtype_name(dtype): dtype for dtype in DType}
_SUPPORTED = ", ".join(_DTYPE_OF_NAME)


class Library(Protocol):
    """What Moelink needs from a tensor library, for tensors on one device."""

    name: str
    device: str
    """``"cpu"``, or such as ``"cuda:0"``."""

    def on(self, device: str, where: str) -> Library:
        """The same library for tensors on ``device``."""

    def view(self, tensor: Any, where: str) -> Any:
        """A core view of ``tensor``; ``where`` opens the message of an error."""

    def payload_view(self, tensor: Any, where: str) -> Any:
        """As ``view``, but types that the core does not know travel as bytes."""

    def dtype_of(self, tensor: Any) -> Any:
        """The library's own dtype of ``tensor``."""

    def wrap(self, tensor: _core.Tensor, dtype: Any = None) -> Any:
        """A tensor of the library over the memory of ``tensor``; ``dtype`` None: the core's."""

    def require_writable(self, tensor: Any, where: str) -> None:
        """Raises if the memory of ``tensor`` may not be written."""

    def native_dtype(self, dtype: DType) -> Any:
        """The library's dtype for ``dtype``."""


def _unsupported_dtype(where: str, dtype: Any) -> Error:
    return invalid_argument(f"{where}: dtype {dtype}, expected one of {_SUPPORTED}")


def _make_view(where: str, *arguments: Any) -> _core.View:
    try:
        return _core.View(*arguments)
    except Error as error:
        raise _located(error, where) from error


def _located(error: Error, where: str) -> Error:
    """The same error, opened by ``where``."""
    return make_error(error.code, f"{where}: {str(error).partition(': ')[2]}")


class _CpuLibrary:
    """A library whose tensors are taken from the CPU only."""

    name: str
    device = "cpu"

    def on(self, device: str, where: str) -> Library:
        raise invalid_argument(f"{where}: {self.name}, expected a torch tensor on {device}")


class _NumpyLibrary(_CpuLibrary):
    name = "a NumPy array"

    def __init__(self) -> None:
        self._core_dtypes: dict[Any, DType | None] = {}

    def _core_dtype(self, dtype: np.dtype[Any]) -> DType | None:
        try:
            return self._core_dtypes[dtype]
        except KeyError:
            found = _DTYPE_OF_NAME.get(dtype.name) if dtype.isnative else None
            self._core_dtypes[dtype] = found
            return found

    def view(self, tensor: Any, where: str) -> Any:
        dtype = self._core_dtype(tensor.dtype)
        if dtype is None:
            raise _unsupported_dtype(where, tensor.dtype)
        address = tensor.__array_interface__["data"][0]
        if tensor.flags.c_contiguous:
            return _make_view(where, address, dtype, tensor.shape)
        strides = _element_strides(tensor, where)
        return _make_view(where, address, dtype, tensor.shape, strides)

    def payload_view(self, tensor: Any, where: str) -> Any:
        if self._core_dtype(tensor.dtype) is not None:
            return self.view(tensor, where)
        if tensor.dtype.hasobject or tensor.ndim == 0 or not tensor.flags.c_contiguous:
            raise _unsupported_dtype(where, tensor.dtype)
        address = tensor.__array_interface__["data"][0]
        shape = _shape_in_bytes(tensor.shape, tensor.itemsize)
        return _make_view(where, address, DType.UINT8, shape)

    def dtype_of(self, tensor: Any) -> Any:
        return tensor.dtype

    def wrap(self, tensor: _core.Tensor, dtype: Any = None) -> Any:
        if dtype is None:
            dtype = self.native_dtype(tensor.dtype)
        shape = tensor.shape
        num_bytes = _core.dtype_size(tensor.dtype)
        if dtype.itemsize != num_bytes:
            shape = (*shape[:-1], shape[-1] * num_bytes // dtype.itemsize)
        memory: Any = tensor  # has the buffer protocol
        return np.ndarray(shape, dtype, memory)

    def require_writable(self, tensor: Any, where: str) -> None:
        if not tensor.flags.writeable:
            raise invalid_argument(f"{where}: a read-only array, expected a writable one")

    def native_dtype(self, dtype: DType) -> Any:
        return numpy_dtype(dtype)


class _TorchLibrary:
    name = "a torch tensor"
    device = "cpu"

    def __init__(self) -> None:
        torch = sys.modules["torch"]
        import torch.utils.dlpack as dlpack  # loads nothing: torch is there already

        self._from_dlpack = dlpack.from_dlpack
        self._strided = torch.strided
        pairs = [(getattr(torch, name, None), dtype) for name, dtype in _DTYPE_OF_NAME.items()]
        self._core_dtypes = {theirs: ours for theirs, ours in pairs if theirs is not None}
        self._native_dtypes = {ours: theirs for theirs, ours in self._core_dtypes.items()}
        self._on_gpus: dict[str, Library] = {}

    def on(self, device: str, where: str) -> Library:
        del where
        if device not in self._on_gpus:
            self._on_gpus[device] = _GpuTorchLibrary(device)
        return self._on_gpus[device]

    def _is_here(self, tensor: Any) -> bool:
        return tensor.is_cpu

    def _check_place(self, tensor: Any, where: str) -> None:
        if self._is_here(tensor) and tensor.layout is self._strided:
            return
        raise make_error(
            ErrorCode.UNSUPPORTED,
            f"{where}: a {tensor.layout} tensor on {tensor.device}, expected torch.strided on "
            f"{self.device}",
        )

    def view(self, tensor: Any, where: str) -> Any:
        self._check_place(tensor, where)
        dtype = self._core_dtypes.get(tensor.dtype)
        if dtype is None:
            raise _unsupported_dtype(where, tensor.dtype)
        return _make_view(where, tensor.data_ptr(), dtype, tensor.shape, tensor.stride())

    def payload_view(self, tensor: Any, where: str) -> Any:
        if tensor.dtype in self._core_dtypes:
            return self.view(tensor, where)
        self._check_place(tensor, where)
        if tensor.dim() == 0 or not tensor.is_contiguous():
            raise _unsupported_dtype(where, tensor.dtype)
        shape = _shape_in_bytes(tuple(tensor.shape), tensor.element_size())
        return _make_view(where, tensor.data_ptr(), DType.UINT8, shape)

    def dtype_of(self, tensor: Any) -> Any:
        return tensor.dtype

    def wrap(self, tensor: _core.Tensor, dtype: Any = None) -> Any:
        wrapped = self._from_dlpack(self._capsule(tensor))
        if dtype is None:
            dtype = self._native_dtypes[tensor.dtype]
        return wrapped if wrapped.dtype is dtype else wrapped.view(dtype)

    def _capsule(self, tensor: _core.Tensor) -> Any:
        return tensor.dlpack()

    def require_writable(self, tensor: Any, where: str) -> None:
        del tensor, where  # every strided tensor is

    def native_dtype(self, dtype: DType) -> Any:
        try:
            return self._native_dtypes[dtype]
        except KeyError:
            raise make_error(
                ErrorCode.UNSUPPORTED,
                f"this version of PyTorch has no dtype {_core.dtype_name(dtype)}",
            ) from None


class _GpuTorchLibrary(_TorchLibrary):
    """Tensors come and go as they are: the streams of calls say what waits for what."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.name = f"a torch tensor on {device}"
        self._index = int(device.removeprefix("cuda:"))
        self._core_device = _core.Device(_core.DeviceKind.CUDA, self._index)

    def _is_here(self, tensor: Any) -> bool:
        return tensor.is_cuda and tensor.get_device() == self._index

    def _capsule(self, tensor: _core.Tensor) -> Any:
        return tensor.dlpack_on(self._core_device)


class _DlpackLibrary(_CpuLibrary):
    """Any other library: through DLPack, and back as that library where the input names it."""

    name = "a DLPack tensor"

    def view(self, tensor: Any, where: str) -> Any:
        try:
            return _core.view_of_dlpack(tensor)
        except Error as error:
            raise _located(error, where) from error

    payload_view = view

    def dtype_of(self, tensor: Any) -> Any:
        namespace = getattr(tensor, "__array_namespace__", None)
        return namespace() if namespace is not None else None

    def wrap(self, tensor: _core.Tensor, dtype: Any = None) -> Any:
        if dtype is not None and hasattr(dtype, "from_dlpack"):
            return dtype.from_dlpack(tensor)
        return _numpy.wrap(tensor)

    def require_writable(self, tensor: Any, where: str) -> None:
        raise invalid_argument(
            f"{where}: a {type(tensor).__name__}, expected a NumPy array or a torch tensor, "
            "which are writable"
        )

    def native_dtype(self, dtype: DType) -> Any:
        return numpy_dtype(dtype)


_numpy = _NumpyLibrary()
_dlpack = _DlpackLibrary()
_library_of_type: dict[type, Library] = {np.ndarray: _numpy}


def library_of(tensor: Any, where: str, device: str = "cpu") -> Library:
    """The library of ``tensor`` for ``device``; raises for objects that are no tensors.

    Its views check that tensors are on the device.
    """
    library = _library_of_type.get(type(tensor))
    if library is None:
        library = _find_library(tensor, where)
        _library_of_type[type(tensor)] = library
    return library if device == "cpu" else library.on(device, where)


def _find_library(tensor: Any, where: str) -> Library:
    if isinstance(tensor, np.ndarray):
        return _numpy
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(tensor, torch.Tensor):
        return torch_library()
    if hasattr(tensor, "__dlpack__") and not isinstance(tensor, type):
        return _dlpack
    raise invalid_argument(
        f"{where}: a {type(tensor).__name__}, expected a NumPy array, a torch tensor or an object "
        "with __dlpack__"
    )


def torch_library() -> Library:
    """The torch library, made once torch is loaded."""
    torch = sys.modules["torch"]
    library = _library_of_type.get(torch.Tensor)
    if library is None:
        library = _TorchLibrary()
        _library_of_type[torch.Tensor] = library
    return library


def view_like(library: Library, tensor: Any, where: str) -> Any:
    """A view of ``tensor``, which must be of ``library``."""
    theirs = library_of(tensor, where, library.device)
    if theirs is not library:
        raise invalid_argument(f"{where}: {theirs.name}, expected {library.name} like x")
    return theirs.view(tensor, where)


def library_and_dtype(
    dtype: Any, like: Any, where: str, device: str = "cpu"
) -> tuple[Library, DType]:
    """The library and core dtype meant by a user's ``dtype`` (name, NumPy's or torch's)."""
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    library: Library = _numpy
    is_torch_dtype = not isinstance(dtype, (str, np.dtype, type)) and (
        "torch" in type(dtype).__module__
    )
    if like is not None:
        library = library_of(like, where, device)
    elif is_torch_dtype or (device != "cpu" and "torch" in sys.modules):
        library = torch_library()
    if library.device != device:
        library = library.on(device, where)
    if name not in _DTYPE_OF_NAME:
        name = _numpy_name(dtype, name)
    if name not in _DTYPE_OF_NAME:
        raise _unsupported_dtype(where, dtype)
    return library, _DTYPE_OF_NAME[name]


def _numpy_name(dtype: Any, fallback: str) -> str:
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        return fallback
    return found.name


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """NumPy's dtype, from ml_dtypes where NumPy has none."""
    name = _core.dtype_name(dtype)
    if name.startswith(("bfloat", "float8")):
        try:
            import ml_dtypes
        except ImportError:
            raise make_error(
                ErrorCode.UNSUPPORTED,
                f"NumPy arrays of {name} need the package ml_dtypes: pip install ml_dtypes",
            ) from None
        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name)


def _element_strides(array: np.ndarray[Any, Any], where: str) -> tuple[int, ...]:
    if any(stride % array.itemsize for stride in array.strides):
        raise invalid_argument(
            f"{where}: strides of {array.strides} bytes, expected multiples of the element size "
            f"{array.itemsize}"
        )
    return tuple(stride // array.itemsize for stride in array.strides)


def _shape_in_bytes(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return (*shape[:-1], shape[-1] * itemsize)

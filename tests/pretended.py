"""CUDA devices pretended on a CPU: real numbers, a device for every storage, operators refused where CUDA would refuse.

Operators on pretended devices, waits of the host and bytes that are copied between devices are counted, so that tests
can hold them to a budget. What it cannot know: seconds, kernels' rounding, memory.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import safetensors
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PROJECT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
COPIES = {"aten::_to_copy", "aten::to", "aten::copy_", "aten::copy", "aten::_copy_from"}
INDEXING = {"aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_", "aten::_unsafe_index"}
"""Their indices may lie on the CPU."""
STRICT = ("cat", "stack", "mm", "mv", "dot", "matmul", "linear", "addr", "outer", "select", "gather", "scatter", "fill",
          "embedding", "linalg", "cholesky", "triangular", "index", "attention", "softmax", "norm", "nll")  # fmt: skip
"""Names of operators that take not even a number (a tensor without dimensions) from the CPU."""
WAITS = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::masked_select", "aten::equal",
         "aten::is_nonzero", "aten::_unique2", "aten::unique_dim", "aten::_linalg_eigh", "aten::linalg_eigh",
         "aten::linalg_eigvalsh", "aten::linalg_cholesky", "aten::linalg_solve"}  # fmt: skip
"""Operators whose result, or success, the host reads."""


class Mismatch(RuntimeError):
    """What CUDA would have refused."""


class Pretended:
    """The devices, and what was done on them; `budget` counts a block of code."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[StorageWeakRef, torch.device]] = {}
        self._full = 2**14
        self.operators: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.moved: Counter[tuple[str, str]] = Counter()
        """Bytes by kinds of device, from and to."""

    def where(self, tensor: Tensor) -> torch.device:
        """The device on which a tensor is taken to lie."""
        with torch._C.DisableTorchFunction():
            if tensor.device.type == "meta":
                return tensor.device
            found = self._kept.get(tensor.untyped_storage()._cdata)
        return found[1] if found else CPU

    def put(self, tensor: Tensor, device: torch.device) -> Tensor:
        """Take a tensor's storage, and so all its views, to lie on a device."""
        with torch._C.DisableTorchFunction():
            if tensor.device.type == "meta":
                return tensor
            storage = tensor.untyped_storage()
        self._kept.pop(storage._cdata, None)
        if device.type == "cuda":
            self._kept[storage._cdata] = StorageWeakRef(storage), device  # held: its address is not given out again
        if len(self._kept) > self._full:
            self._kept = {key: found for key, found in self._kept.items() if not found[0].expired()}
            self._full = max(2**14, 2 * len(self._kept))
        return tensor

    def wait(self, what: str) -> None:
        """The host waits for a device, or the other way round."""
        frame = sys._getframe()
        while frame.f_back and (frame.f_code.co_filename == __file__ or not _own(frame.f_code.co_filename)):
            frame = frame.f_back
        self.waits[f"{what} {Path(frame.f_code.co_filename).name}:{frame.f_lineno}"] += 1

    def carry(self, tensor: Tensor, source: torch.device, target: torch.device, *, waits: bool) -> None:
        """Count a copy from device to device."""
        self.moved[source.type, target.type] += tensor.numel() * tensor.element_size()
        if target.type == "cpu" or (source.type == "cpu" and waits):
            self.wait(f"copy {source.type} to {target.type}")

    def bus(self) -> int:
        """Bytes so far that came from the host or went there."""
        return sum(size for (source, target), size in self.moved.items() if "cpu" in (source, target))

    @contextmanager
    def budget(self) -> Iterator[Spent]:
        """Counts of what happens inside the block, there once it is left."""
        operators, waits, bus, spent = Counter(self.operators), Counter(self.waits), self.bus(), Spent()
        yield spent
        spent.operators, spent.waits = self.operators - operators, self.waits - waits
        spent.bytes = self.bus() - bus


@dataclass(slots=True)
class Spent:
    """Operators on pretended devices, waits of the host, bytes between host and devices."""

    operators: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    bytes: int = 0


def _own(file: str) -> bool:
    return file.startswith(f"{PROJECT}/") and ".venv" not in file


class _Move(torch.autograd.Function):
    """A copy on another device; its gradient goes back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, pretended: Pretended, device: torch.device) -> Tensor:
        ctx.back = pretended, pretended.where(tensor)
        return pretended.put(tensor.detach().clone(memory_format=torch.preserve_format), device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        pretended, device = ctx.back
        return pretended.put(gradient.detach().clone(), device), None, None


class _Operators(TorchDispatchMode):
    """Every operator, below autograd: its operands are checked and its results get their device."""

    def __init__(self, pretended: Pretended) -> None:
        super().__init__()
        self.pretended = pretended

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        where, name = self.pretended.where, func._schema.name
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        devices = [where(tensor) for tensor in tensors]
        device = next((one for one in devices if one.type == "cuda"), None)
        lists = [value for value in args if isinstance(value, list | tuple)] if "_foreach_" in name else []
        if device and lists:
            for each in zip(*lists, strict=False):
                _check(name, found := [one for one in each if isinstance(one, Tensor)], [*map(where, found)])
        elif device and name not in COPIES:
            _check(name, tensors, devices)
        if device:
            self._count(name, tensors, devices)
        result, known = func(*args, **(kwargs or {})), {*map(_storage, tensors)}
        for place, made in enumerate(tree_leaves(result)):
            if isinstance(made, Tensor) and _storage(made) not in known:
                alike = where(lists[0][place]) if lists else devices[0] if name in COPIES else device
                self.pretended.put(made, alike or CPU)
        return result

    def _count(self, name: str, tensors: Sequence[Tensor], devices: Sequence[torch.device]) -> None:
        self.pretended.operators[name] += 1
        masks = any(tensor.dtype in (torch.bool, torch.uint8) for tensor in tensors[1:])
        hosts = any(device.type == "cpu" for device in devices[1:])
        if name in WAITS or (name in INDEXING and (masks or hosts)):
            self.pretended.wait(name)
        if name == "aten::copy_" and devices[0] != devices[1]:
            self.pretended.carry(tensors[0], devices[1], devices[0], waits=True)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _check(name: str, tensors: Sequence[Tensor], devices: Sequence[torch.device]) -> None:
    """Refuse operands that CUDA would not take together."""
    said = f"{name}: operands on {', '.join(f'{d} {tuple(t.shape)}' for t, d in zip(tensors, devices, strict=True))}"
    if len({device for device in devices if device.type == "cuda"}) > 1:
        raise Mismatch(said)
    if name in INDEXING:
        if devices[0].type == "cpu":
            raise Mismatch(said)
        return
    strict = any(part in name for part in STRICT)
    for place, (tensor, device) in enumerate(zip(tensors, devices, strict=True)):
        written = place == 0 and name.endswith("_")
        if device.type == "cpu" and (tensor.dim() > 0 or strict or written):
            raise Mismatch(said)


class _Functions(TorchFunctionMode):
    """What names a device: `.to` and its kin, factories, the attribute itself."""

    def __init__(self, pretended: Pretended) -> None:
        super().__init__()
        self.pretended = pretended
        tensor: Any = Tensor
        self.instead: dict[Any, Callable[..., Any]] = {
            tensor.device.__get__: pretended.where,
            tensor.is_cuda.__get__: lambda tensor: pretended.where(tensor).type == "cuda",
            tensor.to: self._to,
            tensor.cpu: lambda tensor: self._to(tensor, CPU),
            tensor.cuda: lambda tensor, device=0: self._to(tensor, device),
            tensor.pin_memory: self._pinned,
            tensor.__deepcopy__: self._deepcopy,
        }

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in self.instead:
            return self.instead[func](*args, **given)
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__) and self.pretended.where(args[0]).type == "cuda":
            if func is not Tensor.tolist:
                raise TypeError("can't convert a CUDA tensor to numpy")
            self.pretended.carry(args[0], self.pretended.where(args[0]), CPU, waits=True)
        device = given.get("device")
        if device is None or torch.device(device).type != "cuda":
            return func(*args, **given)
        result = func(*args, **given | {"device": "cpu"})
        if any(result is leaf for leaf in args):
            result = result.clone()
        if func in (torch.tensor, torch.as_tensor):
            self.pretended.carry(result, CPU, _indexed(device), waits=True)
        return self.pretended.put(result, _indexed(device))

    def _to(self, tensor: Tensor, *args: Any, non_blocking: bool = False, **kwargs: Any) -> Tensor:
        """Tensor.to, a copy where the device changes."""
        found = [kwargs.pop("device", None), kwargs.pop("other", None), *args]
        like = next((one for one in found if isinstance(one, Tensor)), None)
        kinds = [one for one in found if isinstance(one, torch.dtype)] + ([] if like is None else [like.dtype])
        named = [one for one in found if isinstance(one, str | int | torch.device) and not isinstance(one, bool)]
        device = self.pretended.where(like) if like is not None else _indexed(named[0]) if named else None
        if device is not None and device.type == "meta":
            return Tensor.to(tensor, device)
        source = self.pretended.where(tensor)
        if device is not None and device != source:
            self.pretended.carry(tensor, source, device, waits=not non_blocking)
            tensor = _Move.apply(tensor, self.pretended, device)
        more = {"dtype": kinds[0]} if kinds else {}
        more |= {key: value for key, value in kwargs.items() if value is not None}
        return Tensor.to(tensor, **more) if more else tensor

    def _deepcopy(self, tensor: Tensor, memo: dict[int, Any]) -> Tensor:
        copied = memo.setdefault(id(tensor), tensor.detach().clone().requires_grad_(tensor.requires_grad))
        return self.pretended.put(copied, self.pretended.where(tensor))

    def _pinned(self, tensor: Tensor, *_: Any) -> Tensor:
        if self.pretended.where(tensor).type == "cuda":
            raise RuntimeError("only dense CPU tensors can be pinned")
        return tensor.clone()


def _indexed(device: str | int | torch.device) -> torch.device:
    """The device with its number."""
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


@contextmanager
def pretend(gpus: int = 2) -> Iterator[Pretended]:
    """Inside the block this machine has GPUs."""
    pretended = Pretended()

    class Opened:
        """safetensors' safe_open, which puts tensors on a device."""

        def __init__(self, path: Any, framework: str = "pt", device: str = "cpu", **more: Any) -> None:
            self.file, self.device = safetensors.safe_open(path, framework, **more), _indexed(device)

        def __enter__(self) -> Opened:
            self.file.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            self.file.__exit__(*error)

        def keys(self) -> list[str]:
            return list(self.file.keys())

        def get_tensor(self, name: str) -> Tensor:
            return self.file.get_tensor(name).to(self.device)

        def get_tensors(self) -> dict[str, Tensor]:
            return {name: self.get_tensor(name) for name in self.keys()}

    class Event:
        """A moment on a pretended device: that at which the host sent it."""

        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            assert stream.startswith("stream of cuda")
            self.at = time.perf_counter()

        def synchronize(self) -> None:
            pretended.wait("event.synchronize")

        def elapsed_time(self, end: Event) -> float:
            return 1000 * (end.at - self.at)

    cuda = {
        "Event": Event, "current_stream": lambda device=None: f"stream of {device}",
        "is_available": lambda: True, "device_count": lambda: gpus, "current_device": lambda: 0,
        "max_memory_allocated": lambda device=None: 0, "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: None, "empty_cache": lambda: None,
        "synchronize": lambda device=None: pretended.wait("synchronize"),
    }  # fmt: skip
    with ExitStack() as stack:
        for name, said in cuda.items():
            stack.enter_context(patch(f"torch.cuda.{name}", said))
        for module in ("safetensors.torch", "editor.cache"):
            stack.enter_context(patch(f"{module}.safe_open", Opened))
        stack.enter_context(_Operators(pretended))
        stack.enter_context(_Functions(pretended))
        yield pretended

"""Run a frozen network: OpenVINO on CPU, the same graph as a torch module on CUDA.

Every network of the pipeline, whether read from a model file (IR, ONNX, TFLite) or written here as an
``nn.Module``, is called through :class:`Network`: numpy arrays in, numpy arrays out, safe to call from
several threads at once.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from vidanon.errors import DeviceError, ModelsError

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]
Built = TypeVar("Built")

SHARED_NETWORKS = 16
"""As many stay loaded in a process; a run with one generator exit needs up to twelve."""
_shared: OrderedDict[tuple[Hashable, ...], Any] = OrderedDict()
_shared_lock = threading.Lock()
_compiling = ThreadPoolExecutor(2, "compile")
"""To compile a network occupies one core and a part of another."""


def shared(key: tuple[Hashable, ...], build: Callable[[], Built]) -> Built:
    """Return what ``build`` made when it was first called with this key in this process.

    Analysis, drawing and audit use the same networks, and so do the files of a batch: each is loaded once.
    What has not been asked for longest goes first. Safe to call from several threads.

    Args:
        key: all that decides what is built; of files use :func:`state_of_file`.
        build: loads a network; it must not call this function.
    """
    with _shared_lock:
        if key not in _shared:
            _shared[key] = build()
            while len(_shared) > SHARED_NETWORKS:
                _shared.popitem(last=False)
        _shared.move_to_end(key)
        built: Built = _shared[key]
        return built


def let_go(is_unneeded: Callable[[tuple[Hashable, ...]], bool]) -> None:
    """Forget shared networks, so that their memory is free when nobody uses them any more.

    Args:
        is_unneeded: says so of a key that :func:`shared` was called with.
    """
    with _shared_lock:
        for key in list(filter(is_unneeded, _shared)):
            del _shared[key]


def state_of_file(path: Path) -> tuple[str, int, int]:
    """Return what changes when a file is replaced: name, size, time of the last change.

    Raises:
        ModelsError: the file is missing.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ModelsError(f"model file {path} is missing; run 'vidanon models fetch'") from error
    return str(path), status.st_size, status.st_mtime_ns


@functools.cache
def cpu_has_bfloat16() -> bool:
    """Say whether the processor has instructions of its own for bfloat16; else that is imitated, slowly."""
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class Network(Protocol):
    """A frozen network."""

    def __call__(self, *inputs: Array) -> tuple[Array, ...]:
        """Map input arrays (batch first) to all output arrays, in the order of the graph."""
        ...


class OpenVinoNetwork:
    """A compiled OpenVINO graph with one stream per worker thread and one core per stream.

    Faces are small, so two frames side by side on one core each are faster than one frame on two cores.
    With ``bfloat16`` the network runs in that precision where the processor has it (on others OpenVINO would
    only imitate it, slowly). Pictures stay equal to the eye; do not use it for what is measured or compared.
    It is compiled in the background, several side by side: whoever calls it first waits.
    """

    def __init__(self, model: Any, workers: int, bfloat16: bool = False) -> None:
        import openvino as ov

        core = ov.Core()
        config = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": str(workers),
            "INFERENCE_NUM_THREADS": str(workers),
            # Every process would pin its streams to the first cores, those of other processes included.
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 and cpu_has_bfloat16() else "f32",
        }
        # OpenVINO's binding sets up its numpy interface on first use, and hangs when two threads are first at
        # once: use it here, where networks are built, before any worker runs.
        ov.Type.f32.to_dtype()
        self._compiled = _compiling.submit(core.compile_model, model, "CPU", config)
        self._local = threading.local()

    def __call__(self, *inputs: Array) -> tuple[Array, ...]:
        """Run the network on arrays with the batch first; return all outputs."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.result().create_infer_request()
        request.infer(list(inputs), share_inputs=True)
        return tuple(np.array(tensor.data) for tensor in request.output_tensors)


class TorchNetwork:
    """A torch module behind the same call."""

    def __init__(self, module: nn.Module, device: str) -> None:
        self._module = module.eval().requires_grad_(False).to(device)
        self._device = device

    def __call__(self, *inputs: Array) -> tuple[Array, ...]:
        """Run the network on arrays with the batch first; return all outputs."""
        import torch

        with torch.inference_mode():
            outputs = self._module(*(torch.as_tensor(x).to(self._device) for x in inputs))
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        return tuple(out.cpu().numpy() for out in outputs)


def resolve_device(device: str) -> str:
    """Return ``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        DeviceError: ``cuda`` was asked for and torch finds none.
    """
    if device == "cpu" or (device == "auto" and not _has_cuda_driver()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "auto":
        return "cpu"
    raise DeviceError(f"device '{device}' is not available here; use --device cpu or auto")


def _has_cuda_driver() -> bool:
    """Whether the driver's library is there: it answers without torch, which takes seconds to import."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def network_from_file(path: Path, device: str = "cpu", workers: int = 2, bfloat16: bool = False) -> Network:
    """Load a network file (OpenVINO IR ``.xml``, ``.onnx`` or ``.tflite``).

    Args:
        path: the file.
        device: ``cpu`` or ``cuda``.
        workers: number of threads that will call.
        bfloat16: see :class:`OpenVinoNetwork`.

    Raises:
        ModelsError: the file is missing or cannot be read as a network.
    """
    import openvino as ov

    if not path.is_file():
        raise ModelsError(f"model file {path} is missing; run 'vidanon models fetch'")
    try:
        model = ov.Core().read_model(path)
    except RuntimeError as error:
        raise ModelsError(f"model file {path} cannot be read; run 'vidanon models fetch'") from error
    if device == "cpu":
        return OpenVinoNetwork(model, workers, bfloat16)
    from vidanon.networks.torch_graph import TorchGraph

    return TorchNetwork(TorchGraph(model), device)


def network_from_module(
    module: nn.Module, example: tuple[Array, ...], device: str = "cpu", workers: int = 2
) -> Network:
    """Freeze a torch module; ``example`` inputs fix rank and type, the batch size stays free."""
    if device != "cpu":
        return TorchNetwork(module, device)
    return OpenVinoNetwork(graph_from_module(module, example), workers)


def graph_from_module(module: nn.Module, example: tuple[Array, ...], any_batch: bool = True) -> Any:
    """Convert a torch module to an OpenVINO graph.

    Args:
        module: frozen by this.
        example: inputs, batch first.
        any_batch: leave the batch size free; a fixed one runs a tenth faster.
    """
    import openvino as ov
    import torch

    module = module.eval().requires_grad_(False)
    shapes = [ov.PartialShape([-1 if any_batch else len(x), *x.shape[1:]]) for x in example]
    tensors = tuple(torch.as_tensor(x) for x in example)
    with warnings.catch_warnings():
        # OpenVINO traces with torch.jit, which torch has deprecated; nothing here can change that.
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*torch.jit")
        return ov.convert_model(module, example_input=tensors, input=shapes)

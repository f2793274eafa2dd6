"""Tensors as a safetensors file, made part by part.

safetensors' own writer takes all tensors of a file at once, and leaves the file to be read again for its hash. This
one gives the bytes in order, so that they are copied nowhere, hashed as they are written, and counted by tests that
let the disk fail after any of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ftengine.errors import CheckpointError

DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
}
"""The format's names of types."""


def encode(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, header first; the tensors stay where they are and must not change meanwhile.

    Those on an accelerator are copied to the CPU one by one. Raises CheckpointError for a type the format lacks.
    """
    # Wide types first, so that every tensor begins at a multiple of its element's size.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, dict[str, object]] = {}
    end = 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in DTYPES:
            raise CheckpointError(f"{name} is of {tensor.dtype}, which a safetensors file cannot hold")
        begin, end = end, end + bytes_of(tensor)
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        if tensors[name].numel():
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data


def bytes_of(*tensors: Tensor) -> int:
    """The bytes that the values of tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def load_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises CheckpointError if it cannot be read."""
    return {name: tensor.clone() for name, tensor in map_tensors(file).items()}


def map_tensors(file: Path) -> dict[str, Tensor]:
    """`load_tensors` without copies, to be looked at: as long as one of them is held, the file keeps its room."""
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None

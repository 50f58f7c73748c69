"""Reads and writes safetensors files tensor by tensor, so that memory holds one of them at a time.

A file is 8 bytes of length, a header in JSON, and the tensors' bytes (https://github.com/huggingface/safetensors).
Tensors are read with `readinto`, not by mapping the file: mapped pages would count as this process's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import orjson

from rollmill.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_COPIED_BYTES = 1 << 24
"""Bytes that are copied at a time."""
_METADATA = "__metadata__"


class StoredTensor(NamedTuple):
    """The place of a tensor in a file."""

    dtype: str
    """The format's name, such as `BF16`."""
    shape: list[int]
    begin: int
    """Offset of its first byte in the file."""
    length: int
    """Bytes."""


class TensorFile:
    """A safetensors file that is read. Raises `InputError` for a file that has another format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = orjson.loads(file.read(size))
            self.metadata: dict[str, str] = header.pop(_METADATA, {})
            self.tensors = {
                name: StoredTensor(facts["dtype"], facts["shape"], 8 + size + begin, end - begin)
                for name, facts in header.items()
                for begin, end in [facts["data_offsets"]]
            }
            """In the order of their bytes."""
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"cannot read {path} as safetensors: {error}") from error
        self.tensors = dict(sorted(self.tensors.items(), key=lambda item: item[1].begin))

    def read(self, name: str) -> Tensor:
        """Return a tensor on the CPU. Raises `InputError` for a dtype that torch does not have as a float."""
        import torch

        stored = self.tensors[name]
        data = bytearray(stored.length)
        with self.path.open("rb") as file:
            file.seek(stored.begin)
            if file.readinto(data) != stored.length:
                raise InputError(f"{self.path} is cut off in {name}: download or save the model again")
        return torch.frombuffer(data, dtype=float_dtype(stored.dtype, name)).reshape(stored.shape)

    def copy(self, name: str, target: IO[bytes]) -> None:
        """Append a tensor's bytes to another file."""
        stored = self.tensors[name]
        left = stored.length
        with self.path.open("rb") as file:
            file.seek(stored.begin)
            while left:
                part = file.read(min(left, _COPIED_BYTES))
                if not part:
                    raise InputError(f"{self.path} is cut off in {name}: download or save the model again")
                target.write(part)
                left -= len(part)


def float_dtype(name: str, tensor: str) -> Any:
    """Return torch's dtype of a name in safetensors. Raises `InputError` where it is no float of 16 bits or more."""
    import torch

    dtypes = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    if name not in dtypes:
        raise InputError(
            f"{tensor} of the base model is stored as {name}, and an adapter is merged into floats of 16 bits or "
            "more: serve the adapter beside its base, or merge it into weights that are not quantized"
        )
    return dtypes[name]


def write_header(target: IO[bytes], tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> None:
    """Write the header of a file whose tensors follow in this order, without gaps."""
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name, stored in tensors.items():
        begin, end = end, end + stored.length
        header[name] = {"dtype": stored.dtype, "shape": stored.shape, "data_offsets": [begin, end]}
    data = orjson.dumps(header)
    data += b" " * (-len(data) % 8)  # the format aligns the tensors
    target.write(len(data).to_bytes(8, "little") + data)


def write_tensor(target: IO[bytes], tensor: Tensor) -> None:
    """Append a tensor's bytes."""
    import torch

    # Through bytes: numpy has no bfloat16.
    target.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)

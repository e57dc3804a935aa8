"""Check a ``.tflite`` file against its block metadata (``docs/format.md``).

First the file itself: every offset, index and constant (``model_reader``). Then that each description is that of a
kernel which an operator reads, by the way of its layout and by the axes of the operator (``kernel_uses``,
``kernel_checks``). Then, for each of them, that the tensor is the one described (by a checksum, or by name and shape in
version 1), that its codes divide by the multipliers of the layout and lie in the range of their width, that zero points
are 0, that the scales in the file are those of the metadata bit for bit, and that each integer bias on top has the
scale ``s_x * s_w``. Last the digest of all tensors and operators.
"""

import json
import os
from dataclasses import asdict, dataclass

import numpy as np

from tfptq.base.text import counted, printable, quoted, shortened
from tfptq.tflite.checks import VerificationError, float_bits, require
from tfptq.tflite.digest import content_digest
from tfptq.tflite.kernel_checks import check_use
from tfptq.tflite.kernel_uses import KernelUse, Undescribed, find_kernel_uses
from tfptq.tflite.layouts import Computes
from tfptq.tflite.metadata import BlockMetadata, FormatError, load_bytes, metadata_of
from tfptq.tflite.model_parts import Model, Tensor
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.stored_codes import MOST_SHARING, described_tensor, stored_codes


@dataclass(frozen=True)
class Check:
    """Something that was checked and holds.

    Attributes:
        tensor: name of the tensor.
        statement: what holds.
    """

    tensor: str
    statement: str


@dataclass(frozen=True)
class Verification:
    """Everything that was checked; a failure raises instead.

    Attributes:
        checks: what holds.
        undescribed: operators that may have integer weights of which the metadata says nothing.
        digest: SHA-256 of tensors and operators in hexadecimal digits, which the metadata confirms; None in files of
            older versions, which have no digest. Who changes a file on purpose can make a new one: it tells damage, not
            who wrote the file.
    """

    checks: tuple[Check, ...]
    undescribed: tuple[Undescribed, ...]
    digest: str | None

    def to_json(self, indent: int | None = 2) -> str:
        """All of it as JSON text."""
        return json.dumps(asdict(self), indent=indent)

    def render(self) -> str:
        """One line for each tensor, and how many there are."""
        statements: dict[str, list[str]] = {}
        for check in self.checks:
            statements.setdefault(check.tensor, []).append(check.statement)
        lines = [printable(f"{tensor}: {', '.join(found)}") for tensor, found in statements.items()]
        others = [printable(f"not described: {it.operator} {it.output}, {it.reason}") for it in self.undescribed]
        digest = (
            "no digest: the file is of an older release, or it was taken out; codes and biases may have been changed"
            if self.digest is None
            else f"digest {self.digest}: nothing has been damaged (integrity); it does not tell who wrote the file"
        )
        verified = f"{counted(len(lines), 'tensor')} verified" if lines else "no tensor of codes: weights are floats"
        return "\n".join([*lines, *others, verified, digest])


def verify(file: bytes | str | os.PathLike) -> Verification:
    """Check a file, given as bytes or path, against its block metadata.

    Raises:
        FormatError: the file or its metadata is damaged, or the metadata is too new.
        VerificationError: the file has no block metadata, or metadata that describes none of its codes, or that
            contradicts the file. For a file without codes (float16), only the digest is checked.
        OSError: the path cannot be read.
    """
    model = read_model(load_bytes(file))
    metadata = metadata_of(model)
    if metadata is None:
        raise VerificationError(
            "the file carries no block metadata (TFPTQ_BLOCKS), so there is nothing to compare it with; files of tfptq "
            "carry it unless they were made with metadata='none'"
        )
    found = find_kernel_uses(model, metadata.tensors)
    if not metadata.tensors and (found.undescribed or not metadata.digest):
        raise VerificationError("the block metadata describes no tensor, so there is nothing to verify")
    checks, size = [], 0
    for uses in found.of_each:
        size += uses[0].codes.stored_bytes
        if size > MOST_SHARING * model.size:
            raise VerificationError(f"too many tensors share the bytes of {quoted(uses[0].codes.name)}")
        checks += [Check(shortened(uses[0].codes.name), statement) for statement in _check_weight(uses)]
    digest = _check_digest(model, metadata)
    return Verification(tuple(checks), found.undescribed, digest)


def _check_weight(uses: tuple[KernelUse, ...]) -> list[str]:
    """Check a described weight and all operators that read it; returns what holds."""
    first, blocks = uses[0], uses[0].blocks
    try:
        tensor = described_tensor(blocks, first.model)
        for use in uses:
            check_use(use)
            require(use.kernel == first.kernel, tensor, "several operators unpack its codes, expected one for all")
        stored_codes(blocks, first.model)
    except VerificationError:
        raise
    except FormatError as error:
        raise VerificationError(str(error)) from error
    require(not tensor.zero_point.any(), tensor, "a zero point is not 0")
    scales = blocks.layout.check(first)
    return [f"{blocks.layout.name} tensor with {blocks.bits}-bit codes", scales, *_check_biases(uses)]


def _check_biases(uses: tuple[KernelUse, ...]) -> list[str]:
    """Compare the bias scale of every operator on integers with ``s_x * s_w``; each pair of bias and scale once."""
    graph, kernel, seen, statements = uses[0].graph, uses[0].codes, set(), {}
    for use in uses:
        index, source = use.operator.input(use.place.bias), graph.tensors[use.operator.input(use.place.input)]
        integer = source.type != "FLOAT32" and Computes.INTEGER in use.blocks.layout.serves
        if index < 0 or not (integer and use.owns_bias):
            continue
        bias, key = graph.tensors[index], (index, source.scale.tobytes())
        if key not in seen:
            seen.add(key)
            _check_bias(bias, source, kernel)
            statements[index] = f"bias {quoted(bias.name)} has the scale of input times weight"
    return list(statements.values())


def _check_bias(bias: Tensor, source: Tensor, kernel: Tensor) -> None:
    require(not bias.zero_point.any(), bias, "a zero point is not 0")
    with np.errstate(all="ignore"):
        expected = source.scale * kernel.scale  # float32, like s_x * s_w in the specification
    same = bias.scale.shape == expected.shape and np.array_equal(float_bits(bias.scale), float_bits(expected))
    problem = f"the bias scales are not those of {quoted(source.name)} times those of {quoted(kernel.name)}"
    require(same, bias, problem)


def _check_digest(model: Model, metadata: BlockMetadata) -> str | None:
    """The digest of the file, if the metadata has the same; None if it has none."""
    if not metadata.digest:
        return None
    digest = content_digest(model)
    if digest != metadata.digest:
        raise VerificationError(
            "the digest differs: a code, a bias, a scale or an operator has been changed since the file was written "
            f"(found {digest.hex()}, the metadata says {metadata.digest.hex()})"
        )
    return digest.hex()

"""The C++ reader against the Python reader, on files with every kind of blocks and on damaged files."""

import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hand_made import VIEWS, FileBuilder, random_weight

from tfptq.tflite.digest import content_digest
from tfptq.tflite.layouts import layout_named
from tfptq.tflite.metadata import METADATA_KEY, BlockMetadata, read
from tfptq.tflite.model_reader import read_model

ROOT = Path(__file__).resolve().parent.parent
#: Made by tfptq when version 1 was the newest.
OLD = ROOT / "tests" / "tflite" / "data" / "version_1_kinds.tflite"
COMPILER = shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="g++ is not installed")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("cpp") / "print_blocks"
    source = ROOT / "cpp" / "print_blocks.cc"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1"]
    subprocess.run([COMPILER, *flags, "-o", path, source], check=True)
    return path


def run(program, *paths):
    return subprocess.run([program, *map(str, paths)], capture_output=True, timeout=60)


def file_with_all_kinds():
    rng, builder = np.random.default_rng(0), FileBuilder((1, 4))
    view = VIEWS["CONV_2D"]((6, 3, 3, 5))
    cases = [
        ("shift", None, "int8"),
        ("shift", (2, 3), "int8"),
        ("integer", (4, 2), "int4"),
        ("float", (6, 5), "int8"),
        ("float", (1, 5), "native"),
        ("float", (4, 4), "inline"),
        ("float", (2, 3), "composite"),
        ("integer", (2, 3), "inline"),
        ("shift", (1, 5), "int4"),
        ("shift", None, "composite"),
        ("float", (1, 5), "fully_connected_int4"),
        ("integer", (4, 2), "im2col_int2"),
    ]
    for tensor, (kind, block, layout) in enumerate(cases):
        weight = random_weight(rng, view, kind, block, 4, shared_base=tensor % 2 == 0)
        if layout == "native":
            factors = weight.scales.factors.astype(np.float16).astype(np.float32)
            weight = replace(weight, scales=replace(weight.scales, factors=factors))
        name = f"net/layer_{tensor}_1/kernel" if tensor % 2 else None
        builder.weight(weight, view, layout_named(layout), name, f"layer_{tensor}")
    values = {"config": '{"a": 1}', "seed": 2**64 - 1, "versions": {"tfptq": "1", "keras": "3"}}
    return builder.finish(BlockMetadata(tensors=tuple(builder.blocks), **values))


def newer_file():
    """The same, as by a writer of the next version."""
    file = bytearray(file_with_all_kinds())
    start = file.index(b"TPQB") - 4
    root = start + struct.unpack_from("<I", file, start)[0]
    vtable = root - struct.unpack_from("<i", file, root)[0]
    file[root + struct.unpack_from("<H", file, vtable + 4)[0]] = 3
    return bytes(file)


def printed(metadata):
    """What the program has to print."""
    lines = [f"schema version {metadata.schema_version}", f"config {metadata.config}", f"seed {metadata.seed}"]
    lines += [f"version {name} {version}" for name, version in sorted(metadata.versions.items())]
    lines.append("digest equal" if metadata.digest else "digest none")
    for blocks in metadata.tensors:
        kind, layout, granularity = blocks.scale_kind.title(), blocks.layout.format_name, blocks.granularity.title()
        lines += [
            f"tensor {blocks.subgraph}:{blocks.tensor} {blocks.tensor_name}",
            f"  layer {blocks.layer}",
            f"  {blocks.bits} bits, granularity {granularity}, scales {kind}, layout {layout}",
            f"  shape {' '.join(map(str, blocks.shape))}, output axis {blocks.output_axis}, "
            f"input axes{''.join(f' {axis}' for axis in blocks.input_axes)}",
            f"  blocks of {blocks.block_shape[0]} x {blocks.block_shape[1]} channels",
        ]
        for row, (values, factors) in enumerate(zip(blocks.scales().values(), blocks.factors, strict=True)):
            cells = [f"{float(value):.9g}" for value in values]
            if blocks.scale_kind != "float":
                cells = [f"{cell} ({factor})" for cell, factor in zip(cells, factors, strict=True)]
            lines.append(f"  row {row}: {' '.join(cells)}")
    return "\n".join(lines) + "\n"


@needs_compiler
@pytest.mark.parametrize("version", [1, 2])
def test_prints_what_python_reads(program, tmp_path, version):
    path = tmp_path / "model.tflite"
    path.write_bytes(file_with_all_kinds() if version == 2 else OLD.read_bytes())
    result = run(program, path)
    assert result.stderr == b""
    assert result.stdout.decode() == printed(read(path))
    assert result.returncode == 0


def conformance_files(folder="."):
    return sorted((ROOT / "tests" / "conformance" / folder).glob("*.tflite"))


@needs_compiler
def test_conformance_files_are_read_as_by_python(program):
    for path in (*conformance_files(), *conformance_files("unverified")):
        result = run(program, path)
        metadata = read(path)
        same = content_digest(read_model(path.read_bytes())) == metadata.digest
        text = printed(metadata) if same else printed(metadata).replace("digest equal", "digest different")
        assert (result.stdout.decode(), result.stderr, result.returncode) == (text, b"", 0), path.name


@needs_compiler
def test_conformance_files_that_are_refused(program):
    paths = conformance_files("refused")
    result = run(program, *paths)
    lines = result.stderr.decode().splitlines()
    assert result.returncode == 1 and result.stdout == b""
    assert [line.split(": ")[0] for line in lines] == [str(path) for path in paths]


@needs_compiler
def test_names_never_reach_the_terminal_as_they_are(program, tmp_path):
    name = "\x1b[2J\x9b\u202elayer\n\x7f\u5c42"
    view = VIEWS["FULLY_CONNECTED"]((4, 4))
    builder = FileBuilder((1, 4)).weight(
        random_weight(np.random.default_rng(0), view), view, tensor_name=name, layer=name
    )
    (tmp_path / "model.tflite").write_bytes(builder.finish())
    shown = run(program, tmp_path / "model.tflite").stdout
    assert shown.replace(b"\n", b"").isascii() and shown.decode().replace("\n", "").isprintable()
    assert b"layer \\x1b[2J\\x9b\\u202elayer\\x0a\\x7f\\u5c42\n" in shown


@needs_compiler
def test_says_why_it_cannot(program, tmp_path):
    files = {
        "plain": (FileBuilder((1, 4)).finish(None), "carries no block metadata"),
        "newer": (newer_file(), "schema version 3; this reader knows 1 to 2"),
        "rubbish": (b"this is no model", "file identifier"),
        "short": (b"TFL3", "too few bytes"),
    }
    for name, (content, reason) in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        result = run(program, path)
        assert result.returncode == 1
        assert reason in result.stderr.decode()
    assert "cannot be opened" in run(program, tmp_path / "absent").stderr.decode()
    assert run(program).returncode == 2


@needs_compiler
@pytest.mark.parametrize(("version", "at_least"), [(1, 10), (2, 3)])  # checksums let few mutations of version 2 pass
def test_agrees_with_python_on_damaged_files(program, tmp_path, version, at_least):
    """Both readers accept or refuse the same mutations, and the program neither crashes nor hangs."""
    good = file_with_all_kinds() if version == 2 else OLD.read_bytes()
    start, model = good.index(b"TPQB") - 4, read_model(good)
    length = model.buffers[dict(model.metadata)[METADATA_KEY]].size
    rng = np.random.default_rng(0)
    paths, accepted = [], []
    for number in range(400):
        file = bytearray(good)
        for position in rng.integers(start, start + length - 4, rng.integers(1, 4)):
            extreme = struct.pack("<I", int(rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])))
            one_bit = bytes([file[position] ^ (1 << int(rng.integers(8)))])
            change = extreme if rng.random() < 0.3 else one_bit
            file[position : position + len(change)] = change
        paths.append(tmp_path / f"{number}.tflite")
        paths[-1].write_bytes(file)
        try:
            accepted.append(read(bytes(file)) is not None)
        except ValueError:
            accepted.append(False)
    result = run(program, *paths)
    assert result.returncode == 1
    refused = {
        line.split(": ")[0]
        for line in result.stderr.decode(errors="replace").splitlines()
        if line.startswith(str(tmp_path))
    }
    assert [str(path) not in refused for path in paths] == accepted
    assert at_least < sum(accepted) < 390


def test_committed_headers_are_generated_from_the_schema():
    code = "import generate_reader as g; print(all(p.read_text() == text for p, text in g.headers().items()))"
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'cpp'}"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout == "True\n", result.stderr

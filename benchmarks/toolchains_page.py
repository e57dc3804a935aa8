"""The tables of ``docs/benchmarks/toolchains.md``."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from benchmarks.tables import table, write_tables

#: File -> what the tables call it.
TITLES = {
    "converter": "TFLite converter, int8",
    "w8a8_shift": "`w8a8_shift`",
    "w4a8_channel": "`w4a8_channel`",
    "int4": "`w4a8_channel`, INT4",
    "w8a8_channel": "`w8a8_channel`",
    "w4a8_block": "`w4a8_block`",
}
ETHOS = ("U55", "U65", "U85")
OTHERS = ("TOSA", "OpenVINO", "ONNX", "Qualcomm")
#: Columns of ``cpp/run_layers.cc``.
COSTS = ("products", "multiplies", "rescales", "multipliers", "kernel", "bias", "scales", "by_channel", "activations")
#: Linear layers of onnxruntime.
_ONNX_INTEGER = ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul")
_ONNX_FLOAT = ("Conv", "MatMul", "Gemm", "FusedConv", "FusedMatMul", "FusedGemm")
Results = dict[str, dict[str, Any]]


def write(results: Results) -> None:
    """Put the tables into the page."""
    tables = {"versions": versions, "ethos": ethos, "others": others, "failures": failures, "costs": costs}
    write_tables({f"toolchains_{name}": make(results) for name, make in tables.items()})


def versions(results: Results) -> str:
    """What ran."""
    found: dict[str, str] = {}
    for tool, _, _, record in _records(results):
        if "version" in record:
            found["vela" if tool in ETHOS else tool] = record["version"]
    missing = [tool for tool in OTHERS if tool not in found]
    rows = [[tool, found[tool]] for tool in found] + [[tool, "did not run"] for tool in missing]
    return table(["tool", "version"], rows)


def ethos(results: Results) -> str:
    """Operators, partitions, bytes and cycles of vela, one row per network and file."""
    rows = []
    for network, record in results.items():
        for name in _names(record, ETHOS):
            found = [record[core][name] for core in ETHOS if core in record]
            if all("error" in each for each in found):
                rows.append([network, TITLES[name], *["fails"] * 3])
                continue
            rows.append(
                [
                    network,
                    TITLES[name],
                    _joined(found, _placed),
                    _joined(found, lambda each: f"{each['compiled_bytes'] / 1000:.1f}"),
                    _joined(found, lambda each: f"{each['cycles'] / 1000:.0f}"),
                ]
            )
    head = "on NPU / on CPU / partitions"
    return table(["network", "file", head, "compiled, kB: U55, U65, U85", "cycles, thousands: U55, U65, U85"], rows)


def _placed(record: dict[str, Any]) -> str:
    on_cpu = f" ({', '.join(record['on_cpu'])})" if record["on_cpu"] else ""
    return f"{record['npu_operators']} / {record['cpu_operators']}{on_cpu} / {record['partitions']}"


def _joined(found: list[dict[str, Any]], cell: Any) -> str:
    """A cell for several accelerators; one text where all agree."""
    texts = ["fails" if "error" in each else cell(each) for each in found]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)


def others(results: Results) -> str:
    """What TOSA, OpenVINO and ONNX make of a file, one row per network and file."""
    rows = []
    for network, record in results.items():
        for name in _names(record, OTHERS):
            cells = [_cell(tool, record[tool][name]) if tool in record else "" for tool in OTHERS[:3]]
            rows.append([network, TITLES[name], *cells])
    return table(["network", "file", "TOSA", "OpenVINO", "ONNX"], rows)


def _cell(tool: str, record: dict[str, Any]) -> str:
    if "error" in record:
        return "fails"
    if tool == "TOSA":
        return f"{record['tosa']} operators, {record['tfl']} left"
    return f"{_in_integers(tool, record['nodes'])}; {record['same_class']}; {record['steps']}"


def _in_integers(tool: str, nodes: dict[str, int]) -> str:
    """How many of the linear layers compute in integers."""
    if tool == "ONNX":
        integer, floating = (sum(nodes.get(kind, 0) for kind in kinds) for kinds in (_ONNX_INTEGER, _ONNX_FLOAT))
        return f"{integer} of {integer + floating}"
    linear: Counter[bool] = Counter()
    for kind, count in nodes.items():
        name, precision = kind.split()
        if name in ("Convolution", "FullyConnected", "MatMul", "Deconvolution"):
            linear[precision in ("i8", "u8")] += count
    return f"{linear[True]} of {linear.total()}"


def failures(results: Results) -> str:
    """Each message once, with the files that it came for."""
    found: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for tool, network, name, record in _records(results):
        if "error" in record:
            shown = "vela" if tool in ETHOS else tool
            titles, networks = found.setdefault((shown, record["error"]), ({}, {}))
            titles[TITLES[name]] = networks[network] = None
    rows = [
        [tool, ", ".join(titles), ", ".join(networks), f"`{error}`"]
        for (tool, error), (titles, networks) in found.items()
    ]
    return table(["tool", "files", "networks", "its words"], rows)


def costs(results: Results) -> str:
    """What the layers of a file cost in integers."""
    rows = []
    for network, record in results.items():
        for name, cost in record.get("costs", {}).items():
            numbers = ("products", "rescales", "multipliers", "kernel", "scales")
            rows.append([network, TITLES[name], *(f"{cost[column]:,}" for column in numbers)])
    head = ["network", "file", "products", "rescales", "multipliers held", "bytes of kernels", "bytes of scales"]
    return table(head, rows)


def _names(record: dict[str, Any], tools: tuple[str, ...]) -> list[str]:
    """Files that one of the tools has seen."""
    return [name for name in TITLES if any(name in record.get(tool, {}) for tool in tools)]


def _records(results: Results) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for network, record in results.items():
        for tool in (*ETHOS, *OTHERS):
            for name, found in record.get(tool, {}).items():
                yield tool, network, name, found

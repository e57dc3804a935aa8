"""Transformers with float activations beside litert-quantizer: ``python -m benchmarks.sequences [--models ...]``.

Each file is judged by the distance of its logits from those of the float network, on samples that neither training nor
calibration saw. Records in ``benchmarks/results/sequences.json`` are kept; remove the file to measure anew.
``--latency`` measures the time of all files, also of those that have one, and wants a machine without other work.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks import measure, sequence_peers
from benchmarks.converter import float_file
from benchmarks.records import Record, Records, measure_models
from benchmarks.sequence_models import MODELS, Trained
from benchmarks.tables import met, table, write_tables
from benchmarks.zoo import cache_folder
from tfptq.core.decibels import signal_to_noise
from tfptq.quantization import quantize_keras_model


@dataclass(frozen=True)
class Case:
    """A preset of ours, and what it is compared with.

    Attributes:
        preset: name of the preset.
        bits: of the dense kernels.
        granularity: key of ``sequence_peers.GRANULARITIES``.
        algorithms: of litert-quantizer, of which the best on the calibration samples is taken.
        gain: how many dB ours has to be above it.
        samples: whether ours calibrates.
    """

    preset: str
    bits: int
    granularity: str
    algorithms: tuple
    gain: float = 0.0
    samples: bool = True

    @property
    def name(self) -> str:
        """For records and tables."""
        return self.preset if self.samples else f"{self.preset}, no samples"


_MIN_MAX = sequence_peers.WITHOUT_DATA[:1]
CASES = (
    Case("w8_dynamic", 8, "channel", sequence_peers.CHANNELS),
    Case("w4_dynamic_channel", 4, "channel", sequence_peers.CHANNELS, gain=1.0),
    Case("w4_dynamic_block", 4, "block", sequence_peers.BLOCKS, gain=1.0),
    Case("w8_dynamic", 8, "channel", _MIN_MAX, samples=False),
    Case("w4_dynamic_channel", 4, "channel", _MIN_MAX, samples=False),
    Case("w4_dynamic_block", 4, "block", _MIN_MAX, samples=False),
)


def main() -> int:
    """Measure what is missing, and write the table."""
    write_tables({"sequences": _table(measure_models("sequences", __doc__, MODELS, _measure))})
    return 0


def _measure(model: str, records: Records, with_latency: bool) -> None:
    _measure_fidelity(model, records)
    if with_latency:
        _measure_latency(model, records)


def _measure_fidelity(model: str, records: Records) -> None:
    wanted = [case for case in CASES if f"{model}: {case.name}" not in records.read()]
    if not wanted:
        return
    trained = MODELS[model]()
    original = float_file(trained.model)
    expected = measure.run(original, trained.evaluation)
    records.keep(f"{model}: float", {"bytes": len(original), "accuracy": _accuracy(expected, trained)})
    for case in wanted:
        algorithm, theirs = sequence_peers.best_file(
            original, trained.calibration, case.bits, case.granularity, case.algorithms
        )
        ours = kept(f"{model} {case.name}", lambda case=case: _ours(trained, case))
        theirs = kept(f"{model} {case.name}, theirs", lambda content=theirs: content)
        found = {"ours": _judged(ours, expected, trained), "theirs": _judged(theirs, expected, trained)}
        records.keep(f"{model}: {case.name}", {**found, "algorithm": algorithm})


def _judged(content: bytes, expected: np.ndarray, trained: Trained) -> Record:
    found = measure.run(content, trained.evaluation)
    return {**fidelity(expected, found), "accuracy": _accuracy(found, trained), "bytes": len(content)}


def _ours(trained: Trained, case: Case) -> bytes:
    dataset = trained.calibration if case.samples else None
    return quantize_keras_model(trained.model, dataset, case.preset, progress=False).tflite


def _measure_latency(model: str, records: Records) -> None:
    """Time of our files against that of the others, in turns, on one thread."""
    trained = MODELS[model]()
    original = float_file(trained.model)
    for case in CASES:
        algorithms = [it for it in case.algorithms if it.value == records.read()[f"{model}: {case.name}"]["algorithm"]]
        ours = kept(f"{model} {case.name}", lambda case=case: _ours(trained, case))
        theirs = kept(
            f"{model} {case.name}, theirs",
            lambda case=case, algorithms=algorithms: sequence_peers.best_file(
                original, trained.calibration, case.bits, case.granularity, algorithms
            )[1],
        )
        records.keep(f"{model}: {case.name}: latency", measure.latency(ours, theirs, trained.evaluation, 1))


def kept(name: str, make: Callable[[], bytes]) -> bytes:
    """A file out of the cache, or made now."""
    path = cache_folder() / f"sequences {name}.tflite"
    if not path.exists():
        path.write_bytes(make())
    return path.read_bytes()


def fidelity(expected: np.ndarray, found: np.ndarray) -> Record:
    """Signal to noise, and how often the largest outputs are the same."""
    agreement = float(np.mean(found.argmax(axis=-1) == expected.argmax(axis=-1)))
    return {"decibels": signal_to_noise(expected, found), "agreement": agreement}


def _accuracy(outputs: np.ndarray, trained: Trained) -> float:
    return float(np.mean(outputs.argmax(axis=1) == trained.labels))


def _table(records: dict[str, Record]) -> str:
    """One row for each file of ours and the one that it is compared with."""
    rows = []
    for model in MODELS:
        for case in CASES:
            record = records.get(f"{model}: {case.name}")
            if record is None:
                continue
            ours, theirs = record["ours"], record["theirs"]
            ratio = ours["bytes"] / theirs["bytes"]
            good = ours["decibels"] - theirs["decibels"] >= case.gain and ratio <= 1.02
            time = records.get(f"{model}: {case.name}: latency")
            slower = "" if time is None else f"{time['ratio']:.2f}"
            rows.append([model, f"`{case.preset}`" + case.name.removeprefix(case.preset), *_cells(ours), "", "", ""])
            compared = [f"{ratio:.2f}", slower, met(good)]
            rows.append([model, f"litert-quantizer {record['algorithm']}", *_cells(theirs), *compared])
    columns = ["network", "file", "dB", "agreement, %", "accuracy, %", "bytes", "bytes of ours to theirs"]
    return table([*columns, "latency of ours to theirs", "ours as far above as wanted, at no more bytes"], rows)


def _cells(record: Record) -> list[str]:
    shares = [f"{100 * record[name]:.1f}" for name in ("agreement", "accuracy")]
    return [f"{record['decibels']:.1f}", *shares, f"{record['bytes']:,}"]


if __name__ == "__main__":
    main()

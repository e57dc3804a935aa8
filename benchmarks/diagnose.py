"""Where a file loses its signal: ``python -m benchmarks.diagnose MODEL METHOD [METHOD]``.

Prints, for each tensor in the order of computation, the signal to noise against the float file (ai-edge-quantizer's
``validate``, mean over samples) of one method's file, or of two side by side.
"""

import sys

from benchmarks import measure, peers, worker, zoo


def main(model_name: str, methods: list[str], samples: int = 8, calibration_samples: int = 256) -> None:
    """Print the table.

    Args:
        model_name: key of ``zoo.ENTRIES``.
        methods: keys of ``METHODS``.
        samples: evaluation samples to compare on.
        calibration_samples: which files to take from the cache, or to make.
    """
    model = zoo.load(model_name, calibration_samples)
    x = model.evaluation[0][:samples]
    original = worker.made(model, "float")
    columns = [peers.validate(original, worker.made(model, method), x) for method in methods]
    print("  ".join(f"{method:>13}" for method in methods), "  tensor")
    for name in measure.computed_tensors(original):
        if any(name in column for column in columns):
            cells = "  ".join(f"{column.get(name, float('nan')):13.1f}" for column in columns)
            print(cells, "  ", name)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

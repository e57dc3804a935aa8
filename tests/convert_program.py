"""A call of ``tfptq convert``."""

from tfptq.cli import convert as program


def convert(files, output, *flags, model="net.keras", data="samples.npy"):
    """Exit code of the program, with the files of the fixture ``files`` and 64 samples."""
    return program.main(
        [
            "keras_to_tflite.py",
            f"--model={files / model}",
            f"--calibration_data={files / data}",
            f"--output={output}",
            "--samples=64",
            *flags,
        ]
    )

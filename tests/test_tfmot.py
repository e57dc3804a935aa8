"""TFMOT turns tf.keras into Keras 2 for the whole process, so what imports it runs in a process of its own."""

import subprocess
import sys
from pathlib import Path

IMPORTS = """
import sys
import tfptq
import tfptq.graph
import tfptq.layers

for name in tfptq.__all__:
    getattr(tfptq, name)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"tensorflow_model_optimization", "tf_keras"}, loaded
import tensorflow as tf
assert tf.keras.__version__.startswith("3."), tf.keras.__version__
"""

MISSING = """
import sys
sys.modules["tensorflow_model_optimization"] = None
try:
    import tfptq.tfmot
except ImportError as error:
    assert 'pip install "tfptq[tfmot]"' in str(error), error
else:
    raise AssertionError("no error")
"""


def run(*arguments: str) -> None:
    command = [sys.executable, *arguments]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_importing_tfptq_imports_neither_tfmot_nor_keras_2():
    run("-c", IMPORTS)


def test_without_tfmot_an_error_says_what_to_install():
    run("-c", MISSING)


def test_cases_that_import_tfmot():
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).with_name("tfmot_cases.py")))

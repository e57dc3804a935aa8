import subprocess
import sys

import pytest

import tfptq


@pytest.mark.parametrize("name", tfptq.__all__)
def test_every_name_in_the_table_of_contents_exists(name):
    assert getattr(tfptq, name) is not None
    assert name in dir(tfptq)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tfptq.nothing  # noqa: B018


def _modules_after(code: str) -> set[str]:
    program = f"import sys; {code}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def test_import_is_cheap():
    assert not {"tensorflow", "keras", "tensorflow_model_optimization"} & _modules_after("import tfptq")


def test_the_model_optimization_toolkit_is_not_imported():
    """Importing it turns tf.keras into Keras 2 for the whole process."""
    loaded = _modules_after("import tfptq; [getattr(tfptq, name) for name in tfptq.__all__]")
    assert "tensorflow" in loaded
    assert not {"tensorflow_model_optimization", "tf_keras"} & loaded

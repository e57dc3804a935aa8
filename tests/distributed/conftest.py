import pytest

from tfptq.distributed import Processes


@pytest.fixture(scope="session")
def processes():
    """Two processes for all tests: each one takes its time to import TensorFlow."""
    with Processes(2) as runner:
        yield runner

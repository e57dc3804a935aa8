import math

import pytest

from tfptq.evaluation.fidelity import Fidelity
from tfptq.evaluation.latency import Latency
from tfptq.evaluation.metrics import Score
from tfptq.evaluation.result import Evaluation

ONE = Evaluation(
    samples=880,
    bytes=38096,
    float_bytes=97360,
    scores=(Score("accuracy", "output_0", 0.917, 0.9239, 0.0036),),
    fidelities=(Fidelity("output_0", 25.04, 0.9875, 0.0037),),
    latency=Latency(0.0218, 0.0267, 500),
)
BARE = Evaluation(samples=1, bytes=10, float_bytes=None, scores=(), fidelities=(), latency=None)
TWO = Evaluation(
    samples=5,
    bytes=10,
    float_bytes=40,
    scores=(Score("mse", "a", 0.3, 0.1, 0.01, lower_is_better=True), Score("accuracy", "b", 0.5, 0.9, 0.03)),
    fidelities=(Fidelity("a", math.inf), Fidelity("b", 10.0, 0.5, 0.1)),
    latency=Latency(1.0, None, 5),
)


def test_table():
    assert str(ONE).splitlines() == [
        "880 samples",
        "                         float       file           difference",
        "accuracy               92.39 %    91.70 %  -0.69 ± 0.36 points",
        "agreement                         98.75 %        ± 0.37 points",
        "signal to noise                   25.0 dB",
        "latency, one thread  0.0267 ms  0.0218 ms               x 0.82",
        "bytes                   97,360     38,096               x 0.39",
    ]


def test_table_of_several_outputs_and_of_nothing_but_bytes():
    lines = {line[:23].strip(): line[23:].split() for line in TWO.render().splitlines()[2:]}
    assert lines["mse of a"] == ["0.1000", "0.3000", "+0.2000", "±", "0.0100"]
    assert lines["agreement of b"][:2] == ["50.00", "%"] and "agreement of a" not in lines
    assert lines["signal to noise of a"] == ["inf", "dB"] and lines["latency, one thread"] == ["1", "ms"]
    assert BARE.render().split() == ["1", "sample", "float", "file", "difference", "bytes", "10"]


def test_numbers_over_all_outputs():
    assert ONE.drop == pytest.approx(0.0069) and ONE.drop_error == 0.0036 and ONE.agreement == 0.9875
    assert (TWO.drop, TWO.drop_error) == (pytest.approx(0.3), pytest.approx(0.02))
    assert (TWO.agreement, TWO.agreement_error, TWO.snr_db) == (0.5, 0.1, 10.0)
    assert (BARE.score, BARE.drop, BARE.agreement, BARE.snr_db) == (None, None, None, None)


@pytest.mark.parametrize("evaluation", [ONE, TWO, BARE])
def test_json_round_trip(evaluation):
    assert Evaluation.from_json(evaluation.to_json()) == evaluation


def test_json_of_something_else():
    with pytest.raises(ValueError, match="the JSON is not an evaluation of tfptq"):
        Evaluation.from_json('{"layers": []}')

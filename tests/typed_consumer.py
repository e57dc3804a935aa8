"""What a user's program may hold; ``test_types.py`` lets mypy read it, and nothing runs it."""

import tfptq


def accepted() -> None:
    config = tfptq.QuantizationConfig(
        tfptq.PerBlock(input_blocks=4),
        rounding="coordinate",
        calibration="min_max",
        multipliers=[2, 3, 4, 6],
        overrides=[tfptq.override("logits", skip=True)],
        mixed_precision=tfptq.MixedPrecision(bits=[3, 4]),
    )
    print(config.rounding.method, config.calibration.percentile, config.overrides[0].pattern)
    result = tfptq.quantize_keras_model("net.keras", {"image": [1.0]}, config="w4a8_channel", checkpoint_dir="work")
    result.save("net.tflite")
    evaluation = result.evaluate([[1.0]], [0], metric="accuracy", latency_seconds=0)
    print(evaluation.drop, evaluation.scores[0].drop_error, tfptq.evaluate("net.tflite", [], "net.keras").agreement)
    found = tfptq.search("net.keras", [], ([], []), max_drop=0.01, objective="latency", target="web")
    print(found.best.report.file_bytes, found.trials[0].proposal.config.weight_bits, found.save_plot("pareto.png"))
    print([row.alone_db for row in tfptq.layer_sensitivity("net.keras", [], "w4a8_channel", measured=True)])
    print(result.report.file_bytes, tfptq.inspect("net.tflite").render(), tfptq.verify(result.tflite).checks)


def refused() -> None:
    result = tfptq.quantize_keras_model("net.keras", [], "w8a8_shift", chekpoint_dir="work")  # call-arg
    result.sav("net.tflite")  # attr-defined
    print(result.reprot)  # attr-defined
    tfptq.quantize_keras_model("net.keras", [], preset="w8a8_shift")  # call-arg
    tfptq.quantize_keras_model("net.keras", [], max_memory="1 GB")  # arg-type
    result.evaluate([[1.0]], metrik="accuracy")  # call-arg
    tfptq.search("net.keras", [], [], max_drop="1 %")  # arg-type
    tfptq.QuantizationConfig(weight_bits="4")  # arg-type
    tfptq.QuantizationConfig(rounding=3)  # arg-type
    tfptq.QuantizationConfig(weight_bit=4)  # call-arg
    tfptq.quantise_keras_model("net.keras", [])  # attr-defined

"""Made from ``blocks.fbs``: ``flatc --python --gen-object-api --gen-onefile -o tfptq/tflite/generated <schema>``."""

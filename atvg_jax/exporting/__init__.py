"""Models as artifacts that run without this package: StableHLO, SavedModel and ONNX."""

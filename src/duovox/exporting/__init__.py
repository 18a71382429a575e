"""Networks of a bundle as ONNX graphs: one folder that runs without PyTorch."""

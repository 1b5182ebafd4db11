"""A torch module becomes an ONNX file whose outputs are proven against it."""

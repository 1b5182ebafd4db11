"""An ONNX file becomes a TensorRT engine, which is compared, inspected and recorded."""

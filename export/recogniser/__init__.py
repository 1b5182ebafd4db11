"""The recogniser of the do-not-generate list: dlib's ResNet, fetched as npm's @vladmandic/face-api has it, written as ONNX."""

"""From a checkpoint to what Triton loads: networks, ONNX graphs, engines, the assembled model repository.

Imports `faceclip_serving` (the contract) and torch; nothing of the server, the client or the benchmarks imports this package.
"""

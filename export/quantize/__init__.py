"""INT8 and FP8 forms of an exported graph, and what judges precisions."""

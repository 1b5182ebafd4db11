"""What Triton's Python models are made of: the adapter to Triton, metrics, and what each model computes."""

"""Weights: fetched, read by name, stood in for, fused with LoRAs; and tokenizers."""

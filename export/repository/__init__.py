"""Exported components and engines become a model repository that Triton loads."""

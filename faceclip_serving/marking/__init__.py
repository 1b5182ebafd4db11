"""What marks a picture as generated, and what reads such marks: pure functions, without Triton."""

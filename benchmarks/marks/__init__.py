"""What the marks of pictures survive, cost and mistake."""

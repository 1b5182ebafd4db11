"""What HTTP callers ask and are answered: OpenAI's image endpoints, and our own beside them."""

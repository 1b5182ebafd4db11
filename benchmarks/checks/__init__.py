"""What the checks of requests refuse, mistake and cost."""

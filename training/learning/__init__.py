"""What each stage learns, and the one loop that all of them run in."""

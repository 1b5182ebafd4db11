"""Pictures that are drawn in the background, and kept for a time."""

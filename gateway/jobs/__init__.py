"""Jobs: pictures that are drawn while nobody waits for the answer, kept for a time, and lost by no restart."""

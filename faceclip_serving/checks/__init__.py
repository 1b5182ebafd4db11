"""What is asked and what comes out, checked against the server's policy."""

"""What reads the marks of a picture on this machine: the server's own modules, copied."""

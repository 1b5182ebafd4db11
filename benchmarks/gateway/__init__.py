"""The gateway: what it adds to a request, and whether jobs outlive kills."""

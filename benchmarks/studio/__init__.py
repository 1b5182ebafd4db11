"""The page of the gateway, by a real browser: time to its first paint, its bytes, what axe finds, and pictures of it."""

"""An Envoy before several servers: its configuration as a value."""

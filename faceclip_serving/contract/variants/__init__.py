"""Every model that can be served: what a variant is, the widths of its networks, and its values by name."""

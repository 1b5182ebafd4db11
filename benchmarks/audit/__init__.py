"""The audit log: what a record costs, and whether tampering is found."""

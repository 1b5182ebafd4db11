"""Whether the unit tests of a room would notice a fault in it."""

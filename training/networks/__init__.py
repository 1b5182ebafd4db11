"""How the networks of nano start, and what the denoisers are conditioned on."""

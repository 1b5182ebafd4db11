"""What memory a served variant takes, on the host and on the card."""

"""A folder of training: its stages, its networks, and the files that are made of them."""

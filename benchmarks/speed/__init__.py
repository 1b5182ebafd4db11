"""How long requests take, how many are served, and what parameters and precisions cost."""

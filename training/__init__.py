"""How the `nano` variant is made: a rendered world, and the recipe that trains a FaceCLIP on it. Nothing here is needed to serve."""

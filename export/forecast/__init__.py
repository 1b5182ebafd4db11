"""What memory a placement needs, from the graphs at their sizes, before anything is built."""

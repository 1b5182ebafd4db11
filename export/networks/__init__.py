"""The networks of every family as torch modules, and the table of components."""

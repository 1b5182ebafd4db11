"""The FaceCLIP servers behind: which there are, how they are, which one draws."""

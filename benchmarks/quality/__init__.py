"""Whether pictures are what they should be: the reference's, and of the person and the prompt."""

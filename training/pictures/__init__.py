"""What nano learns from, as arrays on disk: pictures of the rendered world or of a folder, face crops, and where in them what is."""

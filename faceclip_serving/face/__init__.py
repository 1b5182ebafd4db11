"""From a photograph to an aligned face: files, detection, geometry, several references."""

"""Several servers behind one address: what is gained, and what is lost when one of them goes."""

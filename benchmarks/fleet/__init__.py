"""Several servers: what is measured of real ones, and what is simulated of many."""

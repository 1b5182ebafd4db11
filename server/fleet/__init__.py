"""Several servers on one machine behind one address: Envoy's configuration, the processes, their restarts."""

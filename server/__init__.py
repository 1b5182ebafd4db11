"""Starting, watching and stopping a real tritonserver on this machine."""

"""What measurements share: reports, hardware, memory, in-process runs, the reference pipeline, tables and charts."""

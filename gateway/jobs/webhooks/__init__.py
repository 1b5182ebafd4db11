"""Who is told of a job that has ended, and how."""

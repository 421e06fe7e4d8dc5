"""The edge: everything with a file descriptor or a clock."""

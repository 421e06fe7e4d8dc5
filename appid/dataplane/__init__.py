"""The dataplane: what the kernel should hold, as values. Rendered to text here, made real by edge."""

"""Identify: which application a flow is, how sure we are, and because of what."""

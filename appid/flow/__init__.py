"""Flows: 5-tuples, a bounded table of them, bounded TCP reassembly, and calls (the flows that serve one call)."""

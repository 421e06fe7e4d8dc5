"""appid: a firewall that knows applications, not ports.

packet -> flow -> decode -> evidence -> identify -> policy | alg -> dataplane -> (edge) kernel
"""

__version__ = "0.1.0"

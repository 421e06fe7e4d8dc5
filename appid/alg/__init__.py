"""The ALG: dialogs -> expectations -> (dataplane) pinholes and NAT bindings; addresses in payloads translated."""

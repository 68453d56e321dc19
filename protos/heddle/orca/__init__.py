"""The contract of load reports of Envoy and gRPC, as far as an engine pod writes it."""

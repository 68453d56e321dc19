"""The gRPC runtime of all services: servers, streams, errors, settings and logs. Knows neither models nor texts."""

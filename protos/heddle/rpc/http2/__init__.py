"""gRPC streams on the event loop's own sockets: they carry `Infer`, and wake none of the threads that gRPC has."""

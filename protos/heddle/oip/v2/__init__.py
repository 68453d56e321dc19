"""Messages and stubs generated from protos/oip/v2/open_inference_grpc.proto; never edited by hand."""

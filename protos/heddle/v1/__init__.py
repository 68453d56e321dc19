"""Messages and stubs generated from the .proto files beside them; never edited by hand."""

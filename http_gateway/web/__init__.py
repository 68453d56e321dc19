"""The web server of the gateway: sockets, routing, decoding of bodies, and writing of answers. Knows no route."""

#!/usr/bin/env python3
"""Exits with 0 if a service is ready, else with 1. Every image has it as `heddle-health`:

    heddle-health 127.0.0.1:8081                             # GET /ready of a gateway, at its operations port
    heddle-health 127.0.0.1:50052 heddle.v1.EngineService    # grpc.health.v1; "" asks if the process is alive

An address can also be unix:/path. There is no TLS: an engine or tokenizer with TLS must listen on a socket too."""

import asyncio
import sys

from heddle.cli.readiness import grpc_ready, http_ready

address, *service = sys.argv[1:]
ready = grpc_ready(address, service[0]) if service else http_ready(address)
sys.exit(0 if asyncio.run(ready) else 1)

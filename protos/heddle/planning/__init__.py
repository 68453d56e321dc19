"""How many pods a load needs, and what answers then take: models of traffic, engines and queues. No I/O in here."""

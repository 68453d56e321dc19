"""A slow backend, for tests of what happens while it runs."""

import time
from collections.abc import Mapping

from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch


class SlowBackend:
    """A simulated backend that takes half a second for each batch after the warm-up, and counts the sequences it
    ran."""

    def __init__(self) -> None:
        self._simulated = SimulatedBackend(fixed_us=0, per_token_ns=0)
        self.outputs, self.data_type = self._simulated.outputs, self._simulated.data_type
        self.is_warm = False
        self.ran = 0

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        if self.is_warm:
            self.ran += len(batch)
            time.sleep(0.5)
        return self._simulated.run(batch)

    def close(self) -> None:
        pass

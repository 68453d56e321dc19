"""How many rows and warps a program of a row-wise kernel has. This depends only on the width of the rows, so a row is
computed in the same way in any batch, and a kernel compiles once for each width."""

from dataclasses import dataclass
from functools import cache

import triton

# Narrow rows share a program until it has this many numbers: fewer do not keep its threads busy.
NUMBERS_MIN = 2048
NUMBERS_PER_WARP = 512  # 16 for each thread
WARPS_MAX = 32  # of a program, on any GPU


@dataclass(frozen=True, slots=True)
class Tile:
    rows: int
    columns: int  # a power of two
    warps: int

    def programs(self, rows: int) -> int:
        return -(-rows // self.rows)


@cache
def tile_of(width: int) -> Tile:
    """At least as wide as the rows."""
    columns = triton.next_power_of_2(width)
    rows = max(1, NUMBERS_MIN // columns)
    return Tile(rows, columns, min(WARPS_MAX, rows * columns // NUMBERS_PER_WARP))

"""The steps of `tests.gpu`, the most valuable first, each with its share of the time."""

from tests.gpu import ceilings, correctness, hot_spots, machine, peers, serving, throughput
from tests.gpu.running import Step

STEPS = (
    Step("machine", 30, "the card and its software", machine.run, is_vital=True),
    Step("correctness", 90, "every architecture against float32 on the CPU", correctness.run),
    Step("ceilings", 45, "how fast the card copies and multiplies, and how fast our kernels are", ceilings.run),
    Step("throughput", 85, "the engine with random weights", throughput.run),
    Step("peers", 55, "the engine compared with transformers", peers.run),
    Step("hot-spots", 30, "the kernels that take most of the time", hot_spots.run),
    Step("http", 40, "the whole server over HTTP", serving.run),
)

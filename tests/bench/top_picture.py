"""Draws deploy/top.svg: `heddle top` while `heddle serve` is under load, on their default ports.

python -m tests.bench.top_picture deploy/top.svg
"""

import asyncio
import io
import random
import re
import sys
import time
from pathlib import Path

import httpx
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from heddle.cli.top import LOCAL_ADDRESSES, TopSettings, view, watch
from tests.bench.texts import log_normal_tokens, text_of_tokens
from tests.system.served import served

CALLERS = 16
WARM_UP_S = 3.0
INTERVAL_S = 5.0
WIDTH = 190

# Without the web fonts that rich asks for: viewers of pictures may not load them.
FORMAT = re.sub(r"@font-face {{.*?}}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code, ", "")


async def send_load(url: str, seed: int) -> None:
    """Sends requests until it is cancelled. One in a hundred is invalid."""
    rng = random.Random(seed)
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        while True:
            texts = [text_of_tokens(rng, log_normal_tokens(rng, 40, 0.8, 500)) for _ in range(rng.choice((1, 1, 2, 8)))]
            await http.post("/v1/embeddings", json={"input": texts} if rng.random() > 0.01 else {})


async def draw() -> str:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False, force_terminal=True)
    watched = watch(TopSettings(LOCAL_ADDRESSES[:4]))  # no others that run on this machine
    async with served("--engines", "2", "--http-port", "8080") as heddle:
        load = [asyncio.create_task(send_load(heddle.url, seed)) for seed in range(CALLERS)]
        for pause_s in (WARM_UP_S, INTERVAL_S):
            await asyncio.sleep(pause_s)
            services = await asyncio.to_thread(watched.read)
        for task in load:
            task.cancel()
    console.print(view(services, console, finds=False))
    return console.export_svg(title=f"heddle top, {time.strftime('%Y-%m-%d')}", code_format=FORMAT, unique_id="top")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(asyncio.run(draw()))

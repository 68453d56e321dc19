"""Checks and measures the engine on a GPU in one run of under six minutes.

    python -m tests.gpu --out results
    python -m tests.gpu --dry-run          # every step on the CPU, with tiny shapes

If transformers on the GPU machine is older than the tests need, make the small checkpoints elsewhere and copy them:

    python -m tests.gpu --prepare checkpoints
    python -m tests.gpu --checkpoints checkpoints --out results

Each step prints what it finds and keeps it in DIR/<step>.json, which is complete JSON at any time. DIR/summary.json
says how every step ended and which aims were met. Needs torch, triton, transformers, sentence-transformers, grpcio,
numpy and safetensors, and no network. The exit code is 1 if a step failed, crashed or was not run.
"""

import argparse
import datetime as dt
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# Set before torch is imported: counting GPUs must not initialise CUDA in the process that forks the steps.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

from tests.gpu.aims import compare_with_aims
from tests.gpu.record import format_table, read_rows, write_whole
from tests.gpu.running import Outcome, Settings, Step, request_stop, run_all
from tests.gpu.steps import STEPS

BUDGET_S = 340.0
OUT = Path(tempfile.gettempdir()) / "heddle-gpu"
# Files of an earlier run, which must not be mistaken for results of this one.
STALE = ("summary", *(step.name for step in STEPS))


def main() -> int:
    options = parse_options()
    if options.list:
        print(format_table([{"step": step.name, "seconds": step.seconds, "about": step.about} for step in STEPS]))
        return 0
    if options.prepare:
        from tests.gpu.made_subjects import prepare

        prepare(options.prepare, is_dry=options.dry_run)
        return 0
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    steps = [step for step in STEPS if not options.only or step.name in options.only]
    forget(folder, steps, everything=not options.only)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)
    print(f"results in {folder}, up to {options.budget_s:.0f} s", flush=True)
    outcomes = run_all(steps, folder, options.budget_s, Settings(options.dry_run, options.checkpoints))
    return finish(folder, outcomes, is_dry=options.dry_run)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [step.name for step in STEPS]
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"folder for the results [default: {OUT}]")
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="STEP",
        help="run this step, see --list; may be given several times",
    )
    parser.add_argument(
        "--budget-s",
        type=float,
        default=BUDGET_S,
        metavar="S",
        help=f"seconds for all steps together [default: {BUDGET_S:.0f}]",
    )
    parser.add_argument("--dry-run", action="store_true", help="run on the CPU, with tiny shapes")
    parser.add_argument(
        "--prepare", type=Path, metavar="DIR", help="write the checkpoints of `correctness` to DIR and end"
    )
    parser.add_argument(
        "--checkpoints", type=Path, metavar="DIR", help="use the checkpoints that --prepare wrote to DIR"
    )
    parser.add_argument("--list", action="store_true", help="print the steps and end")
    options = parser.parse_args()
    if options.checkpoints and not options.checkpoints.is_dir():
        parser.error(f"argument --checkpoints: there is no folder {options.checkpoints}; --prepare makes one")
    return options


def forget(folder: Path, steps: Sequence[Step], *, everything: bool) -> None:
    for name in STALE if everything else [step.name for step in steps]:
        (folder / f"{name}.json").unlink(missing_ok=True)


def finish(folder: Path, outcomes: Sequence[Outcome], *, is_dry: bool) -> int:
    aims = [] if is_dry else compare_with_aims(folder)
    ended = [{"step": one.name, "status": one.status, "seconds": round(one.seconds, 1)} for one in outcomes]
    machine = [{}, *read_rows(folder, "machine")]
    write_whole(
        folder / "summary.json",
        {
            "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "is_dry_run": is_dry,
            "machine": {name: value for row in machine for name, value in row.items()},
            "steps": ended,
            "aims": aims,
        },
    )
    print(f"\n{format_table(ended)}\n{format_table(aims)}", flush=True)
    return int(any(outcome.is_bad for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())

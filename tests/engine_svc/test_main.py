"""An engine pod sets environment variables before it imports the libraries that read them."""

import os
import sys

import pytest

from engine_svc import __main__ as main
from heddle.rpc import process


def test_tensorrt_llm_sends_no_usage_report_and_stays_in_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(sys, "argv", ["engine-svc", "--model", "some"])
    monkeypatch.setattr(main, "start_logging", lambda *_, **__: None)
    monkeypatch.setattr(main, "load_libraries_in_background", lambda: None)
    monkeypatch.setattr(process, "run", lambda _: None)
    main.main()
    assert environment["TRTLLM_NO_USAGE_STATS"] == environment["TLLM_WORKER_USE_SINGLE_PROCESS"] == "1"

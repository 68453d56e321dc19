"""All parity cases."""

from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import bert, decoders, gemmas

CASES: list[Case] = [*bert.CASES, *decoders.CASES, *gemmas.CASES]

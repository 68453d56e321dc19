"""All parity cases."""

from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import bert, modernbert

CASES: list[Case] = [*bert.CASES, *modernbert.CASES]

"""All parity cases."""

from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import bert, roberta

CASES: list[Case] = [*bert.CASES, *roberta.CASES]

"""All parity cases."""

from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import bert, distilbert, roberta

CASES: list[Case] = [*bert.CASES, *distilbert.CASES, *roberta.CASES]

"""All parity cases."""

from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import bert, distilbert, electra, mpnet, roberta

CASES: list[Case] = [*bert.CASES, *distilbert.CASES, *electra.CASES, *mpnet.CASES, *roberta.CASES]

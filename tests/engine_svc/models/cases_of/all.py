"""All parity cases."""

from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import bert, gte, jina_roberta, modernbert, nomic_bert

CASES: list[Case] = [*bert.CASES, *gte.CASES, *jina_roberta.CASES, *modernbert.CASES, *nomic_bert.CASES]

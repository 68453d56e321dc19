"""All parity cases."""

from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import albert, bert, deberta, distilbert, electra, jina_bert, mpnet, roberta

CASES: list[Case] = [
    *albert.CASES,
    *bert.CASES,
    *deberta.CASES,
    *distilbert.CASES,
    *electra.CASES,
    *jina_bert.CASES,
    *mpnet.CASES,
    *roberta.CASES,
]

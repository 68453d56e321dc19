"""All parity cases."""

from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import (
    albert,
    bert,
    deberta,
    decoders,
    distilbert,
    electra,
    gemmas,
    gte,
    jina_bert,
    jina_roberta,
    modernbert,
    mpnet,
    nomic_bert,
    roberta,
)

FAMILIES = [
    *(albert, bert, deberta, distilbert, electra, gte, jina_bert, jina_roberta, modernbert, mpnet, nomic_bert, roberta),
    *(decoders, gemmas),
]

CASES: list[Case] = [case for family in FAMILIES for case in family.CASES]

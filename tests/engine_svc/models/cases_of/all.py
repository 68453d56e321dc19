"""All parity cases."""

from tests.engine_svc.models.cases import Case
from tests.engine_svc.models.cases_of import (
    decoders,
    encoders,
    gemmas,
    gte,
    jina_bert,
    jina_roberta,
    modernbert,
    nomic_bert,
)

FAMILIES = (encoders, gte, jina_bert, jina_roberta, modernbert, nomic_bert, decoders, gemmas)

CASES: list[Case] = [case for family in FAMILIES for case in family.CASES]

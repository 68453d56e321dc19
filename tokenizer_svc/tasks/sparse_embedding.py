"""The task of `EmbedSparse`: texts to the words of the vocabulary that they are about, each with a weight."""

from heddle import tensors
from heddle.v1 import engine_pb2, inference_pb2, tensor_pb2
from tokenizer_svc.tasks.grouping import Group
from tokenizer_svc.tasks.plan import Plan, slots
from tokenizer_svc.tasks.terms import Terms
from tokenizer_svc.tasks.texts import contents


def plan(request: inference_pb2.EmbedSparseRequest, terms: Terms) -> Plan:
    terms.check_count(len(request.inputs))
    answer = inference_pb2.InferenceOutcome()
    embeddings = slots(answer.embed_sparse.embeddings, len(request.inputs))

    def read(group: Group, outcome: engine_pb2.Outcome) -> int:
        """Returns the bytes of the vectors, which were not known before."""
        targets = embeddings[group.start : group.start + len(group.sequences)]
        tensors.copy_sparse(outcome.results[0].sparse, targets)
        return sum(map(tensor_pb2.SparseTensor.ByteSize, targets))

    return Plan(
        inputs=contents(request.inputs),
        options=terms.options(request, request.prompt_name, request.task),
        output=engine_pb2.OUTPUT_SPARSE_VECTOR,
        read=read,
        assemble=lambda _: answer,
        read_bytes=int,
    )

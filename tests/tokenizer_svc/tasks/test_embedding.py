"""EmbedTokens, EmbedSparse and Similarity give the vectors and cosines of the engine, in the order of the inputs."""

import numpy as np
import pytest
from sentence_transformers.util import cos_sim

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tensors import Floats
from heddle.v1 import engine_pb2, tensor_pb2
from heddle.v1 import inference_pb2 as pb
from tests.kinds import write_sparse_embedder
from tests.texts import SENTENCES
from tests.tokenizer_svc.fake_engine import FakeEngine, noise, sparse_noise
from tests.tokenizer_svc.tasks.conftest import Serve
from tests.tokenizer_svc.tasks.simulated_logits import sequence_of
from tests.tokenizer_svc.tei.served_model import write_embedder
from tokenizer_svc.text.sequences import TokenSequence

DIMENSION = 384
INPUTS = [pb.Input(text=text) for text in SENTENCES]


async def test_every_token_has_its_vector(serve: Serve) -> None:
    client = await serve(write_embedder)
    response = await client.embed_tokens(pb.EmbedTokensRequest(inputs=INPUTS))
    assert response.usage.tokens == sum(sequence_of(text).tokens for text in SENTENCES)
    for text, tensor in zip(SENTENCES, response.embeddings, strict=True):
        sequence = sequence_of(text)
        expected = noise(sequence, sequence.tokens * DIMENSION).reshape(sequence.tokens, DIMENSION)
        np.testing.assert_array_equal(tensors.from_proto(tensor), expected)


async def test_vectors_of_tokens_have_the_requested_data_type(serve: Serve) -> None:
    client = await serve(write_embedder)
    request = pb.EmbedTokensRequest(inputs=INPUTS[:1], data_type=tensor_pb2.DATA_TYPE_FLOAT16)
    (tensor,) = (await client.embed_tokens(request)).embeddings
    assert tensor.data_type == tensor_pb2.DATA_TYPE_FLOAT16
    assert len(tensor.data) == 2 * sequence_of(SENTENCES[0]).tokens * DIMENSION
    with pytest.raises(HeddleError) as caught:
        await client.embed_tokens(pb.EmbedTokensRequest(inputs=INPUTS, data_type=99))  # type: ignore[arg-type]
    assert (caught.value.kind, caught.value.field) == (ErrorKind.INVALID_INPUT, "data_type")


async def test_sparse_vectors_come_in_the_order_of_the_inputs(serve: Serve) -> None:
    client = await serve(write_sparse_embedder)
    response = await client.embed_sparse(pb.EmbedSparseRequest(inputs=INPUTS))
    for text, sparse in zip(SENTENCES, response.embeddings, strict=True):
        vector = np.zeros(sparse.dimension, np.float32)
        vector[np.frombuffer(sparse.indices, "<u4")] = np.frombuffer(sparse.values, "<f4")
        np.testing.assert_array_equal(vector, sparse_noise(sequence_of(text), sparse.dimension))


async def test_similarity_is_the_cosine_with_each_sentence(serve: Serve) -> None:
    client = await serve(write_embedder)
    source, *sentences = SENTENCES
    request = pb.SimilarityRequest(source=source, sentences=[*sentences, source])
    scores = np.frombuffer((await client.similarity(request)).scores, "<f4")
    vectors = [noise(sequence_of(text), DIMENSION) for text in (*sentences, source)]
    np.testing.assert_allclose(scores, cos_sim(vectors[-1], np.stack(vectors))[0].numpy(), atol=1e-6)
    assert scores[-1] == 1.0


class ZeroVectors(FakeEngine):
    """Answers with zero vectors."""

    def array(self, sequence: TokenSequence, output: engine_pb2.Output, wanted: engine_pb2.Sequences) -> Floats:
        return np.zeros(DIMENSION, np.float32)


async def test_the_similarity_with_a_zero_vector_is_zero(serve: Serve) -> None:
    client = await serve(write_embedder, ZeroVectors())
    response = await client.similarity(pb.SimilarityRequest(source="a", sentences=["a", "b"]))
    np.testing.assert_array_equal(np.frombuffer(response.scores, "<f4"), [0.0, 0.0])


async def test_bad_comparisons_are_refused_by_the_name_of_their_field(serve: Serve) -> None:
    client = await serve(write_embedder, request_inputs_max=3)
    for request, kind, field in (
        (pb.SimilarityRequest(sentences=["a"]), ErrorKind.EMPTY_INPUT, "source"),
        (pb.SimilarityRequest(source="a"), ErrorKind.EMPTY_INPUT, "sentences"),
        (pb.SimilarityRequest(source="a", sentences=["a", ""]), ErrorKind.EMPTY_INPUT, "sentences[1]"),
        (pb.SimilarityRequest(source="a", sentences=list("1234")), ErrorKind.TOO_LARGE, "sentences"),
    ):
        with pytest.raises(HeddleError) as caught:
            await client.similarity(request)
        assert (caught.value.kind, caught.value.field) == (kind, field)

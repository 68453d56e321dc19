"""Puts the services of tei.v1 on the server of a tokenizer pod. Called by `tokenizer_svc.__main__`."""

from heddle.checkpoint import Checkpoint
from heddle.rpc.lifecycle import Server
from heddle.tei.v1 import tei_pb2_grpc
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.servicer import InferenceServicer
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.tasks.reranking import choose_activation
from tokenizer_svc.tei.calls import Calls
from tokenizer_svc.tei.embed import EmbedServicer
from tokenizer_svc.tei.info import InfoServicer
from tokenizer_svc.tei.predict import PredictServicer
from tokenizer_svc.tei.rerank import RerankServicer
from tokenizer_svc.tei.tokenize import TokenizeServicer
from tokenizer_svc.text.tokenization import Tokenizer


def add_services(
    server: Server,
    inference: InferenceServicer,
    tokenizer: Tokenizer,
    encoder: Encoder,
    *,
    checkpoint: Checkpoint,
    settings: TokenizerSettings,
) -> Calls:
    """Returns what has to drain with the pod."""
    calls = Calls(inference.submit, inference.flow_names)
    info = InfoServicer(inference)
    tokenize = TokenizeServicer(calls, tokenizer, encoder, settings.tokenize_bytes_max)
    server.add("tei.v1.Info", tei_pb2_grpc.add_InfoServicer_to_server, info)
    server.add("tei.v1.Embed", tei_pb2_grpc.add_EmbedServicer_to_server, EmbedServicer(calls))
    server.add("tei.v1.Predict", tei_pb2_grpc.add_PredictServicer_to_server, PredictServicer(calls))
    rerank = RerankServicer(calls, choose_activation(checkpoint))
    server.add("tei.v1.Rerank", tei_pb2_grpc.add_RerankServicer_to_server, rerank)
    server.add("tei.v1.Tokenize", tei_pb2_grpc.add_TokenizeServicer_to_server, tokenize)
    return calls

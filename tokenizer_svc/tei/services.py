"""The RPCs of tei.v1, and who answers each. Called by `tokenizer_svc.__main__`."""

from types import SimpleNamespace
from typing import Any

from heddle.checkpoint import Checkpoint
from heddle.rpc.lifecycle import Server
from heddle.tei.v1 import tei_pb2, tei_pb2_grpc
from heddle.v1 import inference_pb2
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.servicer import InferenceServicer
from tokenizer_svc.settings import TokenizerSettings
from tokenizer_svc.tasks.reranking import choose_activation
from tokenizer_svc.tei.calls import Calls, Context
from tokenizer_svc.tei.rerank import RerankServicer
from tokenizer_svc.tei.tokenize import TokenizeServicer
from tokenizer_svc.tei.translation import describe_model, embed, embed_all, embed_sparse, predict, predict_pair
from tokenizer_svc.text.tokenizer import Tokenizer


def add_services(
    server: Server,
    inference: InferenceServicer,
    tokenizer: Tokenizer,
    encoder: Encoder,
    *,
    checkpoint: Checkpoint,
    settings: TokenizerSettings,
) -> Calls:
    """Adds the services to a pod's server. Returns the calls, which must drain with the pod."""
    calls = Calls(inference.traced_submit, inference.flow_names)

    async def info(request: tei_pb2.InfoRequest, context: Context) -> tei_pb2.InfoResponse:
        response = await inference.GetModel(inference_pb2.InferenceServiceGetModelRequest(), context)
        return describe_model(response.model)

    embed_rpcs: Any = SimpleNamespace(
        Embed=calls.unary(embed),
        EmbedStream=calls.stream(embed),
        EmbedSparse=calls.unary(embed_sparse),
        EmbedSparseStream=calls.stream(embed_sparse),
        EmbedAll=calls.unary(embed_all),
        EmbedAllStream=calls.stream(embed_all),
    )
    predict_rpcs: Any = SimpleNamespace(
        Predict=calls.unary(predict),
        PredictStream=calls.stream(predict),
        PredictPair=calls.unary(predict_pair),
        PredictPairStream=calls.stream(predict_pair),
    )
    info_rpcs: Any = SimpleNamespace(Info=info)
    rerank_rpcs: Any = RerankServicer(calls, choose_activation(checkpoint))
    tokenize_rpcs: Any = TokenizeServicer(calls, tokenizer, encoder, settings.tokenize_bytes_max)
    server.add("tei.v1.Info", tei_pb2_grpc.add_InfoServicer_to_server, info_rpcs)
    server.add("tei.v1.Embed", tei_pb2_grpc.add_EmbedServicer_to_server, embed_rpcs)
    server.add("tei.v1.Predict", tei_pb2_grpc.add_PredictServicer_to_server, predict_rpcs)
    server.add("tei.v1.Rerank", tei_pb2_grpc.add_RerankServicer_to_server, rerank_rpcs)
    server.add("tei.v1.Tokenize", tei_pb2_grpc.add_TokenizeServicer_to_server, tokenize_rpcs)
    return calls

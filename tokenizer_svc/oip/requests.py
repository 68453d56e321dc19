"""Translates ModelInfer requests to heddle.v1. Called by `servicer`.

A request has one of three forms. The kind of the model decides the task:

    one BYTES tensor of any name: texts [n], or pairs of texts [n, 2] for classifiers and rerankers
    BYTES tensors `query` [1] and `documents` [n]: rerank
    integer tensors `input_ids` [n, tokens], and optionally `attention_mask` and `token_type_ids`: tokenized inputs
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from heddle.checkpoint import ModelKind
from heddle.oip.v2 import open_inference_grpc_pb2 as oip
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from tokenizer_svc.oip.arrays import InputTensor, read_inputs
from tokenizer_svc.oip.parameters import apply_parameters

IDS, MASK, TYPE_IDS = "input_ids", "attention_mask", "token_type_ids"
QUERY, DOCUMENTS = "query", "documents"
FORMS = f"one BYTES tensor of texts, or {QUERY} and {DOCUMENTS}, or {IDS} with or without {MASK} and {TYPE_IDS}"

# The heddle.v1 request for texts, by kind of model.
TASKS = {
    ModelKind.EMBEDDER: "embed",
    ModelKind.SPARSE_EMBEDDER: "embed_sparse",
    ModelKind.MULTI_VECTOR_EMBEDDER: "embed_tokens",
    ModelKind.RERANKER: "predict",
    ModelKind.CLASSIFIER: "predict",
    ModelKind.TOKEN_CLASSIFIER: "predict_tokens",
}


def translate(request: oip.ModelInferRequest, kind: ModelKind, inputs_max: int) -> inference_pb2.InferenceItem:
    """Raises INVALID_INPUT. The task itself checks texts, ids and limits."""
    inputs = read_inputs(request, inputs_max)
    item = inference_pb2.InferenceItem()
    if inputs.keys() == {QUERY, DOCUMENTS}:
        target: Any = item.rerank
        target.query, target.documents[:] = read_query(inputs[QUERY]), inputs[DOCUMENTS].column()
    else:
        target = getattr(item, TASKS[kind])
        add_inputs(TASKS[kind], target, inputs)
    target.SetInParent()
    apply_parameters(target, request.parameters)
    return item


def read_query(tensor: InputTensor) -> str:
    texts = tensor.column()
    if len(texts) != 1:
        raise tensor.invalid(f"must be one text, not {len(texts)}")
    return texts[0]


def add_inputs(task: str, target: Any, inputs: Mapping[str, InputTensor]) -> None:
    if IDS in inputs and inputs.keys() <= {IDS, MASK, TYPE_IDS}:
        ADD_TOKENIZED[task](target, read_tokenized(inputs))
        return
    if len(inputs) != 1:
        names = ", ".join(inputs) or "none"
        raise HeddleError(ErrorKind.INVALID_INPUT, f"the inputs must be {FORMS}; they are {names}", field="inputs")
    (tensor,) = inputs.values()
    if task == "predict" and len(tensor.message.shape) == 2 and tensor.message.shape[1] == 2:
        target.inputs.extend([inference_pb2.TextOrPair(text=text, pair=pair) for text, pair in tensor.rows()])
    else:
        ADD_TEXTS[task](target, tensor.column())


def read_tokenized(inputs: Mapping[str, InputTensor]) -> list[inference_pb2.TokenizedInput]:
    """Reads one input per row. Without a mask, all ids of the row belong to it. Raises INVALID_INPUT."""
    ids = inputs[IDS].integers()
    others = {name: inputs[name].integers() for name in (MASK, TYPE_IDS) if name in inputs}
    for name, values in others.items():
        if values.shape != ids.shape:
            raise inputs[name].invalid(f"has the shape {list(values.shape)}, and {IDS} has {list(ids.shape)}")
        if values.max(initial=0) > (1 if name == MASK else 255):
            raise inputs[name].invalid("has an element that is too large")
    mask = others.get(MASK, np.ones_like(ids)).astype(bool)
    types = others.get(TYPE_IDS)
    return [
        inference_pb2.TokenizedInput(
            token_ids=row[kept].tobytes(),
            type_ids=b"" if types is None else types[index][kept].astype(np.uint8).tobytes(),
        )
        for index, (row, kept) in enumerate(zip(ids, mask, strict=True))
    ]


def add_text_inputs(target: Any, texts: list[str]) -> None:
    target.inputs.extend([inference_pb2.Input(text=text) for text in texts])


def add_id_inputs(target: Any, tokenized: list[inference_pb2.TokenizedInput]) -> None:
    if any(any(one.type_ids) for one in tokenized):
        message = f"{TYPE_IDS} of embedders must be 0"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field=TYPE_IDS)
    target.inputs.extend([inference_pb2.Input(token_ids=one.token_ids) for one in tokenized])


ADD_TEXTS: Mapping[str, Callable[[Any, list[str]], None]] = {
    "embed": add_text_inputs,
    "embed_sparse": add_text_inputs,
    "embed_tokens": add_text_inputs,
    "predict": lambda target, texts: target.inputs.extend([inference_pb2.TextOrPair(text=text) for text in texts]),
    "predict_tokens": lambda target, texts: target.inputs.extend(texts),
}

ADD_TOKENIZED: Mapping[str, Callable[[Any, list[inference_pb2.TokenizedInput]], None]] = {
    "embed": add_id_inputs,
    "embed_sparse": add_id_inputs,
    "embed_tokens": add_id_inputs,
    "predict": lambda target, tokenized: target.inputs.extend(
        [inference_pb2.TextOrPair(tokenized=one) for one in tokenized]
    ),
    "predict_tokens": lambda target, tokenized: target.tokenized_inputs.extend(tokenized),
}

"""The tasks of `Tokenize` and `Decode`: texts to tokens and back, without an engine."""

from collections.abc import Sequence

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2
from tokenizer_svc.tasks.plan import LocalPlan, add_empty
from tokenizer_svc.tasks.served_model import ServedModel
from tokenizer_svc.text.inputs import indexed_field, measure_sizes


def plan_tokenize(request: inference_pb2.TokenizeRequest, served: ServedModel) -> LocalPlan:
    served.check_count(len(request.inputs))
    prompt = served.tokenizer.options(prompt_name=request.prompt_name).prompt
    skip_special_tokens = request.skip_special_tokens

    outcome = inference_pb2.InferenceOutcome()
    results = add_empty(outcome.tokenize.results, len(request.inputs))

    def answer(index: int) -> None:
        tokens = served.tokenizer.tokenize(
            request.inputs[index], prompt=prompt, skip_special_tokens=skip_special_tokens
        )
        for token in tokens:
            results[index].tokens.add(
                id=token.id,
                text=token.text,
                special=token.special,
                start_byte=token.start_byte,
                end_byte=token.end_byte,
            )

    sizes = check_sizes(request.inputs, served.settings.tokenize_bytes_max, "inputs")
    return LocalPlan(sizes, answer, lambda _: outcome, indexed_field("inputs"))


def plan_decode(request: inference_pb2.DecodeRequest, served: ServedModel) -> LocalPlan:
    served.check_count(len(request.token_ids), "token_ids")

    def answer(index: int) -> str:
        return served.tokenizer.decode(request.token_ids[index], keep_special_tokens=request.keep_special_tokens)

    return LocalPlan(
        check_sizes(request.token_ids, served.settings.tokenize_bytes_max, "token_ids"),
        answer,
        assemble_texts,
        indexed_field("token_ids"),
    )


def assemble_texts(texts: Sequence[str]) -> inference_pb2.InferenceOutcome:
    return inference_pb2.InferenceOutcome(decode=inference_pb2.DecodeResponse(texts=texts))


def check_sizes(inputs: Sequence[str] | Sequence[bytes], bytes_max: int, field: str) -> list[int]:
    """Returns the bytes of each input. Raises TOO_LARGE: these inputs are never truncated, so all of it would be
    processed."""
    sizes = measure_sizes(inputs)
    if sum(sizes) > bytes_max:
        message = f"the request has {sum(sizes)} bytes to tokenize or decode, the limit is {bytes_max}"
        raise HeddleError(ErrorKind.TOO_LARGE, message, field=field)
    return sizes

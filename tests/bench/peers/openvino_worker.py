"""A BERT of Hugging Face on OpenVINO, pooled by mean and normalised, in the environment of openvino.txt:

    python openvino_worker.py FOLDER bfloat16 THREADS

A line of JSON on stdin is a padded batch, {"ids": [[...]], "mask": [[...]]}, or "again" for the last one; each is
answered by a line with the vector of its first sequence.
"""

import json
import sys

import numpy as np
import openvino
import torch
from transformers import AutoModel

PRECISIONS = {"bfloat16": "bf16", "float32": "f32"}


def main() -> None:
    folder, data_type, threads = sys.argv[1:]
    example = {"input_ids": torch.ones(2, 8, dtype=torch.int64), "attention_mask": torch.ones(2, 8, dtype=torch.int64)}
    model = openvino.convert_model(AutoModel.from_pretrained(folder).eval(), example_input=example)
    settings = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[data_type],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    names = {name for port in request.model_inputs for name in port.get_names()}
    batch: dict[str, np.ndarray] = {}
    for line in sys.stdin:
        message = json.loads(line)
        if message != "again":
            ids, mask = (np.array(message[key], np.int64) for key in ("ids", "mask"))
            filled = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            batch = {name: array for name, array in filled.items() if name in names}
        hidden = request.infer(batch, share_inputs=True, share_outputs=True)[0]
        weights = batch["attention_mask"][:, :, None]
        mean = (hidden * weights).sum(1) / weights.sum(1)
        vectors = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        print(json.dumps(vectors[0].tolist()), flush=True)


if __name__ == "__main__":
    main()

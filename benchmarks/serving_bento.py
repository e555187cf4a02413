"""The service of benchmarks/serving.py that BentoML runs; environment variables say what it serves."""

import base64
import os
from pathlib import Path
from typing import Any

import bentoml
import torch
from serving_contenders import MOST, answer_together, prepared, task

OPERATION = os.environ["PEER_OPERATION"]


@bentoml.service(workers=1, traffic={"timeout": 600})
class Pictures:
    """Pictures of one model."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        content = Path(os.environ["PEER_PICTURE"]).read_bytes()
        self.engine = prepared(os.environ["PEER_MODEL"], OPERATION, content)

    def _answer(self, asked: list[Any]) -> list[str]:
        files = answer_together(self.engine, [task(self.engine, OPERATION, one) for one in asked])
        return [base64.b64encode(file).decode() for file in files]

    if OPERATION == "sample":

        @bentoml.api(batchable=True, max_batch_size=MOST, route=os.environ["PEER_PATH"])
        def sample(self, seeds: list[int]) -> list[str]:
            """Draw the picture of each seed."""
            return self._answer(seeds)

    else:

        @bentoml.api(batchable=True, max_batch_size=MOST, route=os.environ["PEER_PATH"])
        def translate(self, images: list[str]) -> list[str]:
            """Translate pictures in base64."""
            return self._answer([base64.b64decode(image) for image in images])

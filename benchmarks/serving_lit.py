"""The service of benchmarks/serving.py that LitServe runs, in a process that it starts."""

import base64
from typing import Any

import litserve as ls
import torch
from fastapi import Response
from serving_contenders import answer_together, prepared, task

from genlab.inference.engine import Task


class Pictures(ls.LitAPI):
    """Pictures of one model: JSON in, with base64; a PNG file out."""

    model: str
    operation: str
    content: bytes

    def setup(self, device: str) -> None:
        """Load the model."""
        torch.set_num_threads(1)
        self.engine = prepared(self.model, self.operation, self.content)

    def decode_request(self, request: dict[str, Any]) -> Task:
        """Read a request."""
        asked = request["seed"] if self.operation == "sample" else base64.b64decode(request["image"])
        return task(self.engine, self.operation, asked)

    def batch(self, inputs: list[Task]) -> list[Task]:
        """Leave requests as they are."""
        return inputs

    def predict(self, inputs: list[Task]) -> list[bytes]:
        """Compute a batch."""
        return answer_together(self.engine, inputs)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Leave answers as they are."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """Answer a request."""
        return Response(output, headers={"Content-Type": "image/png"})

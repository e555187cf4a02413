"""The contenders of benchmarks/serving.py, a process each: ``NAME MODEL OPERATION PORT PICTURE CLIENTS``."""

import contextlib
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from genlab.imaging.codecs import encode_png_fast
from genlab.inference.engine import Engine, Task


def main() -> None:
    """Serve, or loop for as many seconds as each line of the input says."""
    name, model, operation, port, picture, clients = sys.argv[1:]
    torch.set_num_threads(1)
    content = Path(picture).read_bytes()
    if name == "loop":
        loop(Engine(model), operation, content, int(clients))
    elif name in ("genlab", "single"):
        genlab(model, int(port), batches=name == "genlab")
    else:
        fastapi(name, model, operation, int(port), content)


def loop(engine: Engine, operation: str, content: bytes, clients: int) -> None:
    """Decode, compute and encode what ``clients`` requests ask for, again and again."""
    engine.warm_up()

    def task() -> Task:
        if operation == "sample":
            return engine.sample_task(1, 3, None, {})
        return engine.translate_task(engine.read(content, engine.info.directions[0]), None, {})

    kind = task().kind
    while engine.try_larger_batch(kind):
        pass
    for line in sys.stdin:
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < float(line):
            rows = [task().rows[0] for _ in range(clients)]
            while rows:
                count = engine.next_batch(kind, len(rows))
                for pixels in engine.compute(kind, rows[:count]):
                    encode_png_fast(pixels)
                del rows[:count]
            done += clients
        print(done / (time.perf_counter() - began), flush=True)


def genlab(model: str, port: int, batches: bool) -> None:
    """Serve by genlab."""
    from genlab.cli.serve import ServeConfig, serve_models

    one = contextlib.nullcontext() if batches else mock.patch.object(Engine, "next_batch", return_value=1)
    with one:
        serve_models(ServeConfig(models=(model,), port=port, threads=1))


def fastapi(name: str, model: str, operation: str, port: int, content: bytes) -> None:
    """Serve by FastAPI and uvicorn; ordinary functions run in their pool of threads."""
    import uvicorn
    from fastapi import Body, FastAPI, Request
    from fastapi.responses import Response
    from pydantic import BaseModel

    from genlab.imaging.images import encode_png

    class Parameters(BaseModel):
        count: int = 1
        seed: int = 0

    engine, lock, app = Engine(model), threading.Lock(), FastAPI()
    constant = encode_png(engine.sample(1, 3)[0]) if operation == "sample" else content
    path = f"/v1/models/{Path(model).name}/{operation}"

    @app.get("/readyz")
    def ready() -> str:
        return "ok"

    if name == "constant":

        @app.post(path)
        async def answer(request: Request) -> Response:
            await request.body()
            return Response(constant, media_type="image/png")

    elif operation == "sample":

        @app.post(path)
        def sample(parameters: Parameters) -> Response:
            with lock:
                [pixels] = engine.sample(parameters.count, parameters.seed)
            return Response(encode_png(pixels), media_type="image/png")

    else:

        @app.post(path)
        def translate(picture: Any = Body(media_type="image/png")) -> Response:  # noqa: B008 -- as FastAPI has it
            with lock:
                pixels = engine.translate(picture)
            return Response(encode_png(pixels), media_type="image/png")

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()

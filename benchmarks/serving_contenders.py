"""The contenders of benchmarks/serving.py, a process each: ``NAME MODEL OPERATION PORT PICTURE``.

Those without HTTP read lines ``SECONDS CALLERS`` and answer each with the pictures a second. All encode PNG by the same
function; all but genlab itself compute in batches through :func:`answer_together`.
"""

import asyncio
import base64
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from genlab.imaging.codecs import encode_png_fast
from genlab.inference.engine import Engine, Task

MOST = 32
"""Largest batch of the peers: as many clients as there are at most."""
BATCH_SECONDS = 0.01
"""How long LitServe waits for a batch to fill."""


def main() -> None:
    """Serve, or compute for as many seconds as each line of the input says."""
    name, model, operation, port, picture = sys.argv[1:]
    torch.set_num_threads(1)
    content = Path(picture).read_bytes()
    if name in ("loop", "engine", "engine-single"):
        run: Callable[[Engine, str, bytes, float, int], float] = loop if name == "loop" else engine_alone
        without_http(run, prepared(model, operation, content, batches=name != "engine-single"), operation, content)
    elif name in ("genlab", "single"):
        genlab(model, int(port), batches=name == "genlab")
    else:
        path = f"/v1/models/{Path(model).name}/{operation}"
        serve = {"litserve": litserve, "bentoml": bentoml, "gradio": gradio}.get(name)
        if serve:
            serve(model, operation, path, int(port), content)
        else:
            fastapi(name, model, operation, path, int(port), content)


def prepared(model: str, operation: str, content: bytes, batches: bool = True) -> Engine:
    """Load a model and choose its batch sizes; ``batches=False`` computes rows one by one."""
    engine = Engine(model, exact=None if batches else False, runtime="onnx")
    engine.warm_up()
    kind = task(engine, operation, content).kind
    while engine.try_larger_batch(kind):
        pass
    if not batches:
        mock.patch.object(engine, "next_batch", return_value=1).start()
    return engine


def task(engine: Engine, operation: str, asked: Any) -> Task:
    """Make the task of a request: of a seed, or of the picture that a file holds."""
    if operation == "sample":
        return engine.sample_task(1, asked if isinstance(asked, int) else 3, None, {})
    direction = engine.info.directions[0]
    return engine.translate_task(engine.read(asked, direction), direction, {})


def answer_together(engine: Engine, tasks: Sequence[Task]) -> list[bytes]:
    """Compute tasks of one kind, of one row each, in batches: a PNG file for each."""
    rows = [one.rows[0] for one in tasks]
    files: list[bytes] = []
    while len(files) < len(rows):
        left = rows[len(files) :]
        count = engine.next_batch(tasks[0].kind, len(left))
        files += [encode_png_fast(pixels) for pixels in engine.compute(tasks[0].kind, left[:count])]
    return files


def without_http(
    run: Callable[[Engine, str, bytes, float, int], float], engine: Engine, operation: str, content: bytes
) -> None:
    """Answer lines of the input."""
    print("ready", flush=True)
    for line in sys.stdin:
        seconds, callers = line.split()
        print(run(engine, operation, content, float(seconds), int(callers)), flush=True)


def loop(engine: Engine, operation: str, content: bytes, seconds: float, callers: int) -> float:
    """Decode, compute and encode what ``callers`` requests ask for, again and again: pictures a second."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += len(answer_together(engine, [task(engine, operation, content) for _ in range(callers)]))
    return done / (time.perf_counter() - began)


def engine_alone(engine: Engine, operation: str, content: bytes, seconds: float, callers: int) -> float:
    """Answer coroutines that ask again and again, as those of a server do, with pixels: pictures a second."""
    from genlab.inference.batching import Batcher
    from genlab.serving.computing import Computer

    batcher, asked = Batcher(), task(engine, operation, content)
    done, began = 0, time.perf_counter()

    async def caller(computer: Computer) -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await computer.compute(engine, asked, lambda pixels: pixels)
            done += 1

    async def all_callers() -> None:
        computer = Computer(batcher, 600)
        await asyncio.gather(*(caller(computer) for _ in range(callers)))

    asyncio.run(all_callers())
    rate = done / (time.perf_counter() - began)
    batcher.close()
    return rate


def genlab(model: str, port: int, batches: bool) -> None:
    """Serve by genlab."""
    from genlab.cli.serve import ServeConfig, serve_models
    from genlab.serving.settings import Settings

    one = contextlib.nullcontext() if batches else mock.patch.object(Engine, "next_batch", return_value=1)
    with one:
        settings = Settings() if batches else Settings(exact=False)
        serve_models(ServeConfig(models=(model,), port=port, threads=1, settings=settings))


def fastapi(name: str, model: str, operation: str, path: str, port: int, content: bytes) -> None:
    """Serve by FastAPI and uvicorn; ordinary functions run in their pool of threads."""
    import uvicorn
    from fastapi import Body, FastAPI, Request
    from fastapi.responses import Response
    from pydantic import BaseModel

    class Parameters(BaseModel):
        count: int = 1
        seed: int = 0

    engine, lock, app = prepared(model, operation, content, batches=False), threading.Lock(), FastAPI()
    [constant] = answer_together(engine, [task(engine, operation, content)])

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
            return Response(encode_png_fast(pixels), media_type="image/png")

    else:

        @app.post(path)
        def translate(picture: Any = Body(media_type="image/png")) -> Response:  # noqa: B008 -- as FastAPI has it
            with lock:
                pixels = engine.translate(picture)
            return Response(encode_png_fast(pixels), media_type="image/png")

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


def litserve(model: str, operation: str, path: str, port: int, content: bytes) -> None:
    """Serve by LitServe."""
    import litserve as ls
    from serving_lit import Pictures

    api = Pictures(max_batch_size=MOST, batch_timeout=BATCH_SECONDS, api_path=path)
    api.model, api.operation, api.content = model, operation, content
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=600)
    server.run(host="127.0.0.1", port=port, num_api_servers=1, log_level="warning", generate_client_file=False)


def bentoml(model: str, operation: str, path: str, port: int, content: bytes) -> None:
    """Serve by BentoML, from the folder that holds its service: lists in JSON, of seeds or of base64."""
    environment = {
        "BENTOML_DO_NOT_TRACK": "True",
        "PEER_MODEL": model,
        "PEER_OPERATION": operation,
        "PEER_PATH": path,
        "PEER_PICTURE": sys.argv[5],
    }
    script = Path(__file__).with_name("serving_bento.py")
    serve = ("serve", f"{script.stem}:Pictures", "--host", "127.0.0.1", "--port", str(port), "--working-dir")
    program = str(Path(sys.executable).with_name("bentoml"))
    os.execve(program, [program, *serve, str(script.parent)], os.environ | environment)


def gradio(model: str, operation: str, path: str, port: int, content: bytes) -> None:
    """Serve by Gradio's API with its queue: seeds or base64 in, base64 out."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    engine = prepared(model, operation, content)

    def encode(files: Sequence[bytes]) -> tuple[list[str]]:
        return ([base64.b64encode(file).decode() for file in files],)

    def sample(seeds: list[int]) -> tuple[list[str]]:
        return encode(answer_together(engine, [task(engine, operation, seed) for seed in seeds]))

    def translate(images: list[str]) -> tuple[list[str]]:
        tasks = [task(engine, operation, base64.b64decode(image)) for image in images]
        return encode(answer_together(engine, tasks))

    with gr.Blocks() as app:
        gr.api(sample if operation == "sample" else translate, api_name="picture", batch=True, max_batch_size=MOST)
    server = gr.mount_gradio_app(FastAPI(), app.queue(), path="/", ssr_mode=False)
    uvicorn.run(server, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()

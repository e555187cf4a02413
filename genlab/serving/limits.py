"""The limits of a request; each is looked at before the work that it bounds is done."""

import dataclasses
from typing import Annotated

from annotated_types import Interval


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the HTTP interface. Those of waiting requests and of requests a minute are of each replica."""

    body_bytes: Annotated[int, Interval(ge=1, le=2**31)] = 16 * 2**20
    """Largest body of a request, in bytes; more gets status 413."""
    body_seconds: Annotated[float, Interval(gt=0, le=3600)] = 30.0
    """Seconds in which the body of a request must have come; a slower one gets status 408."""
    side: Annotated[int, Interval(ge=1, le=65535)] = 8192
    """Largest height and width of a picture, in pixels; more gets status 413."""
    pixels: Annotated[int, Interval(ge=1, le=2**31)] = 2**24
    """Largest number of pixels of all pictures of a request together, each padded to whole tiles; more gets status
    413."""
    images: Annotated[int, Interval(ge=1, le=10_000)] = 64
    """Largest number of pictures that a request may send, or ask for; more gets status 422."""
    seconds: Annotated[float, Interval(gt=0, le=3600)] = 120.0
    """Seconds after which a request that is not answered yet is given up, with status 503."""
    waiting: Annotated[int, Interval(ge=1, le=100_000)] = 256
    """Largest number of requests that wait for a model; more get status 503."""
    waiting_seconds: Annotated[float, Interval(gt=0, le=3600)] = 5.0
    """Seconds of work that may wait for a model, by what it took last; with more, requests get status 503 until it is
    less. What comes when nothing waits is always taken."""
    requests_per_minute: Annotated[int, Interval(ge=1, le=1_000_000)] | None = None
    """Largest number of requests of one token in a minute, which may come at once after a pause; more get status 429.
    Without tokens it holds for all requests together. By default there is no such limit."""
    jobs: Annotated[int, Interval(ge=1, le=100_000)] = 100
    """Largest number of jobs of one token, those that are done and kept included; more get status 429. Without tokens
    it holds for all jobs together."""
    job_images: Annotated[int, Interval(ge=1, le=100_000)] = 1000
    """Largest number of pictures that a job may send, or ask for; more gets status 422."""
    job_bytes: Annotated[int, Interval(ge=1, le=2**31)] = 128 * 2**20
    """Largest body of a request that submits a job, in bytes; more gets status 413."""

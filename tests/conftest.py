"""Fixtures shared by all tests."""

import contextlib
import importlib
import multiprocessing.util
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import settings
from s3fs import S3FileSystem

import genlab.models
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.models.cvae import CVAE, CVAEArchitecture
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.models.model import Model, model_type
from genlab.models.stylegan import StyleGAN, StyleGANArchitecture
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory
from tests.cluster_support import Cluster, started_cluster
from tests.s3 import CREDENTIALS, SETTINGS, Bucket, FaultProxy, S3Server
from tests.training.support import tiny_config

REPOSITORY = Path(__file__).resolve().parent.parent

settings.register_profile("no deadline", deadline=None)  # a busy machine is no fault of the code's
settings.load_profile("no deadline")


OF_KILLED_PROCESSES = ("genlab-ray-", "pymp-", "torchinductor_")
"""Beginnings of names of folders that a process removes at its end; those that tests kill cannot."""

SESSION = "GENLAB_TEST_SESSION"
"""Environment variable by which the processes that these tests start, and theirs, are known."""


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail if the tests leave a process, or a file in the folder for temporary files."""
    tmp_path_factory.getbasetemp()  # these two stay where they are
    multiprocessing.util.get_temp_dir()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / "torchinductor"))
    with tempfile.TemporaryDirectory(prefix="gl-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(SESSION, token := secrets.token_hex(8))
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield
        forkserver._forkserver._stop()  # type: ignore[attr-defined]
        left = _processes_of(token)
        for process in left:
            process.kill()
        assert not left, "processes are left behind"
        files = [file for file in Path(folder).iterdir() if not file.name.startswith(OF_KILLED_PROCESSES)]
        assert not files, "files are left behind"


def _processes_of(token: str) -> list[psutil.Process]:
    """The other processes that this session's tests started and that are still there a moment after."""

    def there() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                alive = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
                if (
                    alive
                    and process.environ().get(SESSION) == token
                    and "resource_tracker" not in " ".join(process.cmdline())
                ):
                    found.append(process)
        return found

    deadline = time.monotonic() + 20
    while (found := there()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of small real samples; tests that need it say so where it is absent."""
    folder = Path(os.environ.get("GENLAB_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no sample data at {folder}; set GENLAB_DATA")
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server, in a process of its own."""
    server = S3Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def _proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    S3FileSystem.clear_instance_cache()  # Clients look up where the store is when they are made.
    proxy = FaultProxy(s3_server.endpoint)
    yield proxy
    proxy.close()


@pytest.fixture
def s3(s3_server: S3Server, _proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A fresh bucket of the S3 server, to which the environment leads, through the proxy."""
    bucket = Bucket(f"bucket-{secrets.token_hex(4)}", {**CREDENTIALS, **SETTINGS, "AWS_ENDPOINT_URL": _proxy.endpoint})
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.create(bucket.name)
    return bucket


@pytest.fixture
def fault_proxy(s3: Bucket, _proxy: FaultProxy) -> Iterator[FaultProxy]:
    """The proxy in front of the bucket, to be told which requests to break; it counts from here on."""
    _proxy.reset()
    yield _proxy
    _proxy.reset()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn digits, 28x28x1, some thirty of them to train on and the rest held out."""
    data = tmp_path_factory.mktemp("drawn") / "digits"
    ingest(IngestConfig("synthetic:digits", str(data), count=40, test_fraction=0.25, seed=1))
    return data


@pytest.fixture(scope="session")
def small_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn digits as for ``digits``, 16x16x1."""
    data = tmp_path_factory.mktemp("drawn") / "digits"
    ingest(IngestConfig("synthetic:digits", str(data), size=16, count=40, test_fraction=0.25, seed=1))
    return data


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two domains of drawn scenes, ``a`` and the shorter ``b``, 32x32x3."""
    data = tmp_path_factory.mktemp("drawn")
    for domain, count in (("a", 12), ("b", 9)):
        source = f"synthetic:scenes-{domain}"
        ingest(IngestConfig(source, str(data / domain), size=32, count=count, test_fraction=0.25, seed=1))
    return data


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Drawn data sets by the option that takes them."""
    root = tmp_path_factory.mktemp("tiny")
    sources = {"images": ("digits", 150, None), "a": ("scenes-a", 11, 32), "b": ("scenes-b", 8, 32)}
    for name, (source, count, size) in sources.items():
        ingest(
            IngestConfig(
                source=f"synthetic:{source}", dest=str(root / name), count=count, size=size, test_fraction=0.25
            )
        )
    return {f"data.{name}": str(root / name) for name in sources}


@pytest.fixture
def tf32_allowed() -> Iterator[None]:
    """Let GPUs compute fp32 products in TF32, and set all as it was in the end."""
    modules: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [module.allow_tf32 for module in modules]
    for module in modules:
        module.allow_tf32 = True
    yield
    for module, allowed in zip(modules, before, strict=True):
        module.allow_tf32 = allowed


@pytest.fixture
def tiny(tiny_data: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """Make a config: ``tiny("vae", {"run.name": "x", ...})``."""

    def make(family: str, changes: dict[str, Any] | None = None) -> Any:
        return tiny_config(family, tiny_data, {"run.storage": str(tmp_path), "run.name": "run"} | (changes or {}))

    return make


def save_run(directory: Path, model: Model, label_names: tuple[str, ...] = (), contrast: float = 2) -> None:
    """Save ``model`` with contrast in what it makes, which fresh weights lack."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(contrast)
    provenance = model_directory.Provenance(
        run=str(directory), step=1, images=1, data={}, config={}, metrics={}, label_names=label_names
    )
    model_directory.save(directory / "model", model, provenance)


@pytest.fixture(scope="session")
def model_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: ``digits`` is a VAE, ``classes`` a conditional one in colour; ``monet`` and ``resnet``
    are CycleGANs of U-Nets and of ResNets; ``faces`` is a StyleGAN."""
    root = tmp_path_factory.mktemp("model-runs")
    torch.manual_seed(0)
    save_run(root / "digits", VAE((8, 12, 1), VAEArchitecture(latent_dim=3, channels=(4, 4))), ("a", "b"))
    conditional = CVAEArchitecture(channels=(4,), hidden=8, classes=3, likelihood="binary")
    save_run(root / "classes", CVAE((8, 8, 3), conditional), ("cat", "2", "a dog/puppy"))
    save_run(root / "monet", CycleGAN((8, 12, 3), CycleGANArchitecture(width=2)), contrast=10)
    save_run(root / "resnet", CycleGAN((8, 12, 3), CycleGANArchitecture("resnet-6", width=2)), contrast=10)
    small = StyleGANArchitecture(channel_base=32, channel_max=8, latent_dim=8, mapping_layers=2)
    save_run(root / "faces", StyleGAN((8, 8, 1), small))
    return root


@pytest.fixture
def gan_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run of the toy GAN of tests/training/families, 28x28x1, a family that genlab has during the test.

    Its ``sample`` has an option of its own, ``truncation``.
    """
    modules = tmp_path / "modules"
    modules.mkdir()
    shutil.copyfile(Path(__file__).parent / "training" / "families" / "toygan" / "model.py", modules / "toygan.py")
    monkeypatch.setattr(genlab.models, "__path__", [*genlab.models.__path__, str(modules)])
    importlib.invalidate_caches()
    kind = model_type("toygan")
    torch.manual_seed(0)
    save_run(tmp_path / "gan", kind((28, 28, 1), kind.Architecture()))
    yield tmp_path / "gan"
    sys.modules.pop("genlab.models.toygan")
    vars(genlab.models).pop("toygan", None)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one CPU each (or $GENLAB_CPUS), with token authentication, by cluster/up.sh.

    Ray knows after three seconds, not fifteen, that a node is lost.
    """
    with started_cluster(RAY_health_check_period_ms="500") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Small drawn data sets by name: digits, digits-16 (16x16 pixels), scenes-a, scenes-b."""
    root = tmp_path_factory.mktemp("drawn")
    sizes = {"digits": None, "digits-16": 16, "scenes-a": 32, "scenes-b": 32}

    def draw(name: str) -> Path:
        if not (root / name).exists():
            source = "synthetic:" + name.removesuffix("-16")
            count = 1200 if source.endswith("digits") else 60
            ingest(IngestConfig(source, str(root / name), count=count, size=sizes[name], test_fraction=0.2))
        return root / name

    return draw

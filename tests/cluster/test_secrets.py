"""What `ray job submit --working-dir .` and git leave out of a checkout in which one has followed the pages."""

import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

REPOSITORY = Path(__file__).resolve().parents[2]
SECRETS = ["ray-token", "s3.env", "tokens.json", "server.pem", "server.key", "cluster/tokens.json"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the files that say what to leave out, a job, and secrets."""
    folder = tmp_path / "checkout"
    for name in (".rayignore", ".gitignore", "jobs/vae.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, folder / name)
    for name in SECRETS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("planted")
    return folder


def test_secrets_of_a_checkout_are_not_uploaded(checkout: Path, tmp_path: Path) -> None:
    target = tmp_path / "upload.zip"
    create_package(str(checkout), target, include_gitignore=False)
    with zipfile.ZipFile(target) as upload:
        names = [name for name in upload.namelist() if not name.endswith("/")]
        assert "jobs/vae.py" in names
        assert not any(b"planted" in upload.read(name) for name in names)


def test_secrets_of_a_checkout_are_not_committed(checkout: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    done = subprocess.run(["git", "status", "--porcelain", "-uall"], cwd=checkout, capture_output=True, text=True)
    seen = {line[3:] for line in done.stdout.splitlines()}
    assert "jobs/vae.py" in seen
    assert not seen & set(SECRETS)


def test_no_file_of_a_cluster_has_a_secret_in_it() -> None:
    suspect = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|[0-9a-f]{24}", re.IGNORECASE)
    for file in (REPOSITORY / "cluster").rglob("*"):
        if file.is_file():
            assert not suspect.search(file.read_text()), file

"""cluster/Dockerfile: what a linter and the files that it takes can say without a container engine."""

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = REPOSITORY / "cluster" / "Dockerfile"
LOCK = REPOSITORY / "requirements.lock"


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, with those of the stages that it starts from."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            base, _, name = rest.split()
            current = found[name] = list(found.get(base, []))
        else:
            current.append((word, rest))
    return found


def test_the_linter_has_nothing_to_say() -> None:
    done = subprocess.run(["hadolint", str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_runs_without_root_and_asks_for_a_token(target: str) -> None:
    instructions = stages()[target]
    assert [rest for word, rest in instructions if word == "USER"] == ["1000:1000"]
    assert any(word == "ENV" and "RAY_AUTH_MODE=token" in rest for word, rest in instructions)
    (copied,) = [rest for word, rest in instructions if word == "COPY" and "--from" in rest]
    assert f"--from=build-{target} " in copied


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_has_the_programs_by_which_a_head_sets_up_workers(target: str) -> None:
    """Ray's launcher runs `ssh` and `rsync` inside the head's container, and KubeRay `wget` in each."""
    (packages,) = [rest for word, rest in stages()[target] if word == "ARG" and rest.startswith("PACKAGES=")]
    assert {"openssh-client", "rsync", "wget"} <= set(packages.partition("=")[2].strip('"').split())


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_all_that_is_installed_is_pinned_and_no_cache_is_kept(target: str) -> None:
    instructions = stages()[f"build-{target}"]
    commands = [part.strip() for word, rest in instructions if word == "RUN" for part in rest.split("&&")]
    installs = [command for command in commands if "uv pip install" in command]
    assert len(installs) == 2
    for command in installs:
        assert re.search(r"--(build-)?constraint (requirements|cpu)\.lock", command), command
    assert any(word == "ENV" and "UV_NO_CACHE=1" in rest for word, rest in instructions)
    assert all("==" in command and "--no-cache-dir" in command for command in commands if command.startswith("pip "))


def test_the_cpu_image_leaves_out_the_hashes_of_torch_alone(tmp_path: Path) -> None:
    (program,) = re.findall(r"awk ('[^']*')", DOCKERFILE.read_text())
    subprocess.run(f"awk {program} {LOCK} > {tmp_path}/cpu.lock", shell=True, check=True)
    before, after = LOCK.read_text(), (tmp_path / "cpu.lock").read_text()

    def pins(text: str) -> dict[str, str]:
        return {entry.split("==")[0]: entry for entry in re.split(r"\n(?=\S)", text.strip())}

    changed = {name for name, entry in pins(before).items() if pins(after)[name] != entry}
    assert changed == {"torch", "torchvision"}
    for name in changed:
        assert pins(before)[name].startswith(pins(after)[name] + " ")  # the version stands


def test_the_build_is_sent_what_it_copies_and_nothing_else() -> None:
    taken = [line[1:] for line in Path(f"{DOCKERFILE}.dockerignore").read_text().splitlines() if line.startswith("!")]
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.startswith("COPY ") and "--from" not in line]
    copied = {word for line in lines for word in line.split()[1:-1] if not word.startswith("--")}
    assert copied == set(taken)
    assert all((REPOSITORY / name).exists() for name in copied)
    assert not any(fnmatch(name, pattern) for name in copied for pattern in ("*token*", "data*", "runs*", ".*"))

"""The models that a process serves: found, loaded, checked, switched without a failed request, and put away."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from genlab.core.errors import RunError
from genlab.inference.engine import Engine
from genlab.models.vae import VAE, VAEArchitecture
from genlab.serving import library as library_module
from genlab.serving.library import Library
from genlab.serving.limits import Limits
from genlab.serving.problems import Problem
from genlab.store import model_directory, probes
from genlab.store.aliases import roll_back, set_alias
from genlab.store.model_store import ModelStore
from tests.inference.support import PROVENANCE


def save_model(directory: Path, seed: int, width: int = 4, probed: bool = True) -> Path:
    """Write a model directory of a VAE of 16x16."""
    torch.manual_seed(seed)
    model = VAE((16, 16, 1), VAEArchitecture(channels=(width, width))).eval().requires_grad_(False)
    model_directory.save(directory, model, PROVENANCE, probes.make(model) if probed else None)
    return directory


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """A folder of models: two versions of ``digits``, the first of which is ``prod``."""
    store = ModelStore(tmp_path / "models")
    for seed in (0, 1):
        version, _ = store.add("digits", save_model(tmp_path / f"source{seed}", seed))
        if seed == 0:
            set_alias(store.root, "digits", "prod", version.version)
    return store


def versions(store: ModelStore, tmp_path: Path) -> list[str]:
    """The versions of ``digits`` in the order in which they were made."""
    return [store.add("digits", tmp_path / f"source{seed}")[0].version for seed in (0, 1)]


def library_of(*sources: Any, **settings: Any) -> Library:
    return Library([str(source) for source in sources], limits=Limits(), device="cpu", **settings)


def refused(library: Library, reference: str) -> Callable[[], Awaitable[Problem]]:
    async def ask() -> Problem:
        with pytest.raises(Problem) as caught:
            await library.get(reference)
        return caught.value

    return ask


def test_names_stand_for_versions_and_aliases(store: ModelStore, tmp_path: Path) -> None:
    first, second = versions(store, tmp_path)
    library = library_of(store.root)

    async def use() -> None:
        for reference, version in (("digits", first), ("digits@prod", first), (f"digits@{second[:7]}", second)):
            assert (await library.get(reference)).version.version == version
        assert (await library.get("digits")) is (await library.get("digits@prod")), "loaded once"
        for reference in ("letters", "digits@next", "digits@000000"):
            problem = await refused(library, reference)()
            assert (problem.status, problem.kind) == (404, "no-such-model")

    asyncio.run(use())


def test_an_alias_that_is_moved_takes_traffic_to_the_new_version(store: ModelStore, tmp_path: Path) -> None:
    first, second = versions(store, tmp_path)
    library = library_of(store.root)

    async def use() -> None:
        before = await library.get("digits")
        assert before.version.version == first
        set_alias(store.root, "digits", "prod", second)
        assert (await library.get("digits")) is before, "until the server has looked"
        await library.refresh()
        after = await library.get("digits")
        assert after.version.version == second
        assert before not in library.loaded
        assert before.engine.sample(1, 0).shape == (1, 16, 16, 1), "a request that has it goes on with it"

    asyncio.run(use())


def test_a_new_model_is_found_and_one_that_is_gone_is_not_served(store: ModelStore, tmp_path: Path) -> None:
    library = library_of(store.root)

    async def use() -> None:
        await library.get("digits")
        save_model(Path(str(store.root)) / "run" / "model", 2)
        await library.refresh()
        assert (await library.get("run")).name == "run"
        shutil.rmtree(Path(str(store.root)) / "run")
        await library.refresh()
        assert (await refused(library, "run")()).status == 404
        assert [served.name for served in library.loaded] == ["digits"]

    asyncio.run(use())


def spoil(directory: Path) -> None:
    """Have a model give other pictures than its probes say, its weights being sound."""
    model = model_directory.load(directory)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    kept = json.loads((directory / "genlab.json").read_text())["probes"]
    model_directory.save(directory, model, PROVENANCE)
    description = json.loads((directory / "genlab.json").read_text())
    (directory / "genlab.json").write_text(json.dumps(description | {"probes": kept}))


def test_a_version_that_does_not_give_what_its_probes_say_takes_no_traffic(store: ModelStore, tmp_path: Path) -> None:
    source = save_model(tmp_path / "spoilt", 3)
    spoil(source)
    version, _ = store.add("digits", source)
    library = library_of(store.root)

    async def use() -> None:
        before = await library.get("digits")
        set_alias(store.root, "digits", "prod", version.version)
        await library.refresh()
        assert (await library.get("digits")) is before
        reason = library.refusal("digits", version.version)
        assert reason is not None
        assert "differs from what training's own model made" in reason
        problem = await refused(library, f"digits@{version.version}")()
        assert (problem.status, problem.kind) == (503, "version-refused")

    asyncio.run(use())


def test_an_alias_that_goes_back_to_a_version_is_checked_like_a_new_one(store: ModelStore, tmp_path: Path) -> None:
    first, second = versions(store, tmp_path)
    set_alias(store.root, "digits", "prod", second)
    library = library_of(store.root)
    file = Path(str(store.root)) / "digits" / first / "genlab.json"
    sound = file.read_text()
    description = json.loads(sound)
    description["probes"]["cases"][0]["arguments"]["seed"] = 7

    async def use() -> None:
        before = await library.get("digits")
        file.write_text(json.dumps(description))
        roll_back(store.root, "digits", "prod")
        await library.refresh()
        assert (await library.get("digits")) is before
        assert "differs from what training's own model made" in (library.refusal("digits", first) or "")

    asyncio.run(use())
    file.write_text(sound)
    again = library_of(store.root)
    assert asyncio.run(again.get("digits")).version.version == first


def test_a_model_without_probes_is_served_or_refused_as_asked(tmp_path: Path) -> None:
    save_model(tmp_path / "old", 0, probed=False)

    async def use() -> None:
        assert (await library_of(tmp_path / "old").get("old")).name == "old"
        problem = await refused(library_of(tmp_path / "old", require_probes=True), "old")()
        assert "carries no probes" in problem.detail

    asyncio.run(use())


@pytest.mark.slow
def test_the_least_recently_used_models_make_room(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    for number, name in enumerate(names):
        save_model(tmp_path / name, number)
    size = Engine(tmp_path / "a", "cpu").bytes
    forgotten: list[Engine] = []
    held: dict[str, int] = {}
    library = library_of(
        *(tmp_path / name for name in names),
        memory_bytes=int(2.5 * size),
        forget=forgotten.append,
        held=held.__setitem__,
    )

    async def use() -> None:
        await library.load_all()
        assert [served.name for served in library.loaded] == ["a", "b"]
        first = await library.get("a")
        await library.get("c")
        assert [served.name for served in library.loaded] == ["a", "c"], "b was used least recently"
        assert (await library.get("a")) is first
        assert (await library.get("b")).name == "b", "it comes back when it is asked for"
        assert len(forgotten) == 2
        assert held == {"a": size, "b": size, "c": 0}

    asyncio.run(use())


def test_who_waits_for_a_model_has_it_loaded_once(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    library = library_of(store.root)
    load = mock.Mock(side_effect=model_directory.load)
    monkeypatch.setattr(model_directory, "load", load)

    async def use() -> None:
        first, *others = await asyncio.gather(*(library.get("digits") for _ in range(5)))
        assert all(other is first for other in others)

    asyncio.run(use())
    load.assert_called_once()


def test_a_damaged_model_is_a_problem_of_its_own(store: ModelStore, tmp_path: Path) -> None:
    save_model(tmp_path / "broken", 5)
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"damaged")
    library = library_of(store.root, tmp_path / "broken")

    async def use() -> None:
        await library.load_all()
        assert library.ready
        [failure] = library.failures
        assert "damaged" in failure
        assert (await library.get("digits")).name == "digits"
        problem = await refused(library, "broken")()
        assert (problem.status, problem.retry_after) == (503, 5)

    asyncio.run(use())


def test_two_models_of_one_name_and_names_that_a_url_cannot_hold_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "one" / "digits", 0)
    save_model(tmp_path / "two" / "digits", 1)
    save_model(tmp_path / "50%", 1)
    with pytest.raises(RunError, match="both be served as 'digits'"):
        library_of(tmp_path / "one" / "digits", tmp_path / "two" / "digits")
    with pytest.raises(RunError, match="another model is served as 'digits'"):
        library_of(tmp_path / "one", tmp_path / "two" / "digits")
    with pytest.raises(RunError, match="a URL cannot hold this name"):
        library_of(tmp_path / "50%")
    with pytest.raises(RunError, match=r"not a model directory .* and no folder of models"):
        library_of(tmp_path / "absent")


def test_a_model_for_which_there_is_no_memory_now_is_loaded_later(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = library_of(store.root)

    async def use() -> None:
        for method in ("warm_up", "check_probes"):
            with monkeypatch.context() as full:
                full.setattr(Engine, method, mock.Mock(side_effect=torch.OutOfMemoryError("the GPU is full")))
                problem = await refused(library, "digits")()
            assert (problem.status, problem.kind, problem.retry_after) == (503, "not-loaded", 5.0)
        assert (await library.get("digits")).name == "digits"

    asyncio.run(use())


def test_probes_that_find_no_memory_say_nothing_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_directory.load(save_model(tmp_path / "model", 0))
    monkeypatch.setattr(probes, "replay", mock.Mock(side_effect=torch.OutOfMemoryError("the GPU is full")))
    with pytest.raises(torch.OutOfMemoryError):
        probes.check(tmp_path / "model", model)


def test_looking_for_models_goes_on_after_any_error(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "REFRESH_SECONDS", 0.01)
    library = library_of(store.root)

    async def use() -> None:
        looking = asyncio.create_task(library.keep_fresh())
        with monkeypatch.context() as broken:
            find = mock.Mock(side_effect=OSError(5, "Input/output error"))
            broken.setattr(library, "_find", find)
            while find.call_count < 2:
                await asyncio.sleep(0.01)
        save_model(Path(str(store.root)) / "run" / "model", 2)
        while "run" not in library.models:
            assert not looking.done()
            await asyncio.sleep(0.01)
        looking.cancel()

    asyncio.run(asyncio.wait_for(use(), 30))


def test_a_version_that_was_asked_for_by_its_digits_is_put_away_when_idle(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = versions(store, tmp_path)
    library = library_of(store.root)

    async def use() -> None:
        await library.get("digits")
        await library.get(f"digits@{second}")
        await library.refresh()
        assert [served.version.version for served in library.loaded] == [first, second]
        monkeypatch.setattr(library_module, "IDLE_SECONDS", -1.0)
        await library.refresh()
        assert [served.version.version for served in library.loaded] == [first]
        assert (await library.get(f"digits@{second[:8]}")).version.version == second

    asyncio.run(use())

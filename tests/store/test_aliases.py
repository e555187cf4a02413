"""Aliases move between versions and back, and of promotions at the same time none is lost."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import locate
from genlab.store.aliases import Aliases, roll_back, set_alias
from tests.s3 import Bucket

ONE, TWO, THREE = "1" * 12, "2" * 12, "3" * 12


def test_an_alias_goes_back_as_far_as_it_came(tmp_path: Path) -> None:
    root = locate(tmp_path)
    assert [set_alias(root, "digits", "prod", version) for version in (ONE, TWO, TWO, THREE)] == [None, ONE, TWO, TWO]
    assert roll_back(root, "digits", "prod") == (THREE, TWO)
    assert roll_back(root, "digits", "prod") == (TWO, ONE)
    with pytest.raises(RunError, match=f"digits@prod: is version {ONE}, and was no other before"):
        roll_back(root, "digits", "prod")
    assert set_alias(root, "digits", "prod", THREE) == ONE
    assert set_alias(root, "digits", "prod", ONE) == THREE
    assert roll_back(root, "digits", "prod") == (ONE, THREE)
    assert roll_back(root, "digits", "prod") == (THREE, ONE)
    with pytest.raises(RunError, match="was no other before"):
        roll_back(root, "digits", "prod")


def test_an_alias_that_moves_while_the_version_before_is_checked_does_not_go_back(tmp_path: Path) -> None:
    root = locate(tmp_path)
    for version in (ONE, TWO):
        set_alias(root, "digits", "prod", version)

    def promote(version: str) -> None:
        assert version == ONE
        set_alias(root, "digits", "prod", THREE)

    with pytest.raises(RunError, match="moved by another process"):
        roll_back(root, "digits", "prod", promote)
    assert Aliases.read(root).of("digits") == {"prod": THREE}


def test_the_history_says_who_when_and_what_was_before(tmp_path: Path) -> None:
    root = locate(tmp_path)
    for version in (ONE, TWO):
        set_alias(root, "digits", "prod", version)
    roll_back(root, "digits", "prod")
    set_alias(root, "digits", "next", TWO)
    written = json.loads((tmp_path / "aliases.json").read_text())
    assert (written["format"], written["version"]) == ("genlab-aliases", 1)
    history = written["models"]["digits"]["prod"]
    assert [(change["version"], change["previous"]) for change in history] == [(ONE, None), (TWO, 0), (ONE, None)]
    assert all("@" in change["by"] and change["at"].endswith("+00:00") for change in history)
    aliases = Aliases.read(root)
    assert (aliases.of("digits"), aliases.of("monet")) == ({"next": TWO, "prod": ONE}, {})


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_of_promotions_at_once_none_is_lost(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    bucket: Bucket | None = request.getfixturevalue("s3") if place == "s3" else None
    root = locate(bucket.url if bucket else tmp_path) / "models"
    versions = [f"{number:012x}" for number in range(5)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda version: set_alias(root, "digits", "prod", version), versions))
    history = Aliases.read(root).models["digits"]["prod"]
    assert sorted(change.version for change in history) == versions
    assert [change.previous for change in history] == [None, *range(4)]


@pytest.mark.parametrize(
    ("alias", "message"),
    [("", "an alias is of"), ("a/b", "an alias is of"), ("facade", "looks like"), ("1234567", "looks")],
)
def test_names_that_no_alias_may_have_are_refused(alias: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        set_alias(locate(tmp_path), "digits", alias, ONE)


def test_an_alias_that_is_not_there_is_not_rolled_back(tmp_path: Path) -> None:
    set_alias(locate(tmp_path), "digits", "prod", ONE)
    for name, alias in (("digits", "next"), ("monet", "prod")):
        with pytest.raises(RunError, match=f"there is no alias {name}@{alias}"):
            roll_back(locate(tmp_path), name, alias)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"models": {"digits": {"prod": [{"version": 1}]}}}', "damaged"),
        ('{"version": 2, "models": {}}', "format 2; this genlab reads format 1"),
    ],
)
def test_a_damaged_file_is_named_and_left_as_it_is(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "aliases.json"
    file.write_text(content)
    with pytest.raises(RunError, match=rf"aliases\.json: {message}"):
        set_alias(locate(tmp_path), "digits", "prod", ONE)
    assert file.read_text() == content

"""Bearer tokens: made, checked, removed, and read again while a server runs."""

import json
import logging
import threading
from pathlib import Path

import pytest

from genlab.cli import token as cli
from genlab.core.errors import ConfigError
from genlab.serving.tokens import TokenFile, add_token, remove_token
from tests.s3 import Bucket


def test_the_file_knows_the_hash_of_a_token_and_not_the_token(tmp_path: Path) -> None:
    file = str(tmp_path / "tokens.json")
    alice, bob = add_token(file, "alice"), add_token(file, "bob")
    assert len(alice) == len(bob) == 43
    assert alice not in Path(file).read_text()
    assert [set(entry) for entry in json.loads(Path(file).read_text())["tokens"]] == [{"name", "sha256", "created"}] * 2
    tokens = TokenFile(file)
    assert (tokens.name_of(alice.encode()), tokens.name_of(bob.encode())) == ("alice", "bob")
    for wrong in (b"", alice[:-1].encode(), (alice + "A").encode(), b"\xff" * 43, b"x" * 100_000):
        assert tokens.name_of(wrong) is None
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.json"]


def test_tokens_change_while_a_server_runs(tmp_path: Path) -> None:
    file = str(tmp_path / "tokens.json")
    old = add_token(file, "old")
    tokens = TokenFile(file)
    new = add_token(file, "new")
    assert tokens.name_of(new.encode()) is None
    tokens.refresh()
    assert (tokens.name_of(old.encode()), tokens.name_of(new.encode())) == ("old", "new")
    remove_token(file, "old")
    tokens.refresh()
    assert (tokens.name_of(old.encode()), tokens.name_of(new.encode())) == (None, "new")


def test_the_file_is_watched_until_closed(tmp_path: Path) -> None:
    file = str(tmp_path / "tokens.json")
    add_token(file, "a")
    tokens = TokenFile(file)
    tokens.watch(0.01)
    token = add_token(file, "b").encode()
    waiting = threading.Event()
    for _ in range(2000):
        if tokens.name_of(token):
            break
        waiting.wait(0.01)
    tokens.close()
    assert tokens.name_of(token) == "b"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"tokens": [{"name": "a", "sha256": "00", "created": ""}]}', None])
def test_a_damaged_file_leaves_the_last_good_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str | None
) -> None:
    file = tmp_path / "tokens.json"
    token = add_token(str(file), "alice").encode()
    good = file.read_text()
    tokens = TokenFile(str(file))
    if damage is None:
        file.unlink()
    else:
        file.write_text(damage)
    with caplog.at_level(logging.INFO, "genlab.serving.tokens"):
        tokens.refresh()
        tokens.refresh()
        assert tokens.name_of(token) == "alice"
        [record] = caplog.records
        assert record.levelname == "ERROR"
        assert str(file) in record.getMessage()
        with pytest.raises(ConfigError, match=r"tokens\.json"):
            TokenFile(str(file))
        file.write_text(good)
        tokens.refresh()
    assert "can be read again" in caplog.records[-1].getMessage()
    assert tokens.name_of(token) == "alice"


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    file = str(tmp_path / "tokens.json")
    with pytest.raises(ConfigError, match=r"no such file.*genlab token"):
        TokenFile(file)
    with pytest.raises(ConfigError, match="there are: none"):
        remove_token(file, "alice")
    add_token(file, "alice")
    with pytest.raises(ConfigError, match="--remove"):
        add_token(file, "alice")
    with pytest.raises(ConfigError, match="there are: alice"):
        remove_token(file, "bob")
    for name in ("", "a/b", "ä", "a\nb", "x" * 65):
        with pytest.raises(ConfigError, match="1 to 64 characters"):
            add_token(file, name)
    Path(file).write_text("damaged")
    with pytest.raises(ConfigError, match="is no token file"):
        add_token(file, "bob")
    assert Path(file).read_text() == "damaged"


def test_the_command_prints_a_token_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "tokens.json")
    cli.main(["alice", file])
    printed = capsys.readouterr()
    assert TokenFile(file).name_of(printed.out.strip().encode()) == "alice"
    assert "not shown again" in printed.err
    cli.main(["alice", file, "--remove"])
    assert TokenFile(file).name_of(printed.out.strip().encode()) is None
    with pytest.raises(SystemExit, match="2"):
        cli.main(["alice", file, "--remove"])
    assert "has no token 'alice'" in capsys.readouterr().err


def test_tokens_may_lie_on_s3(s3: Bucket) -> None:
    file = f"{s3.url}/server/tokens.json"
    token = add_token(file, "alice").encode()
    tokens = TokenFile(file)
    assert tokens.name_of(token) == "alice"
    remove_token(file, "alice")
    tokens.refresh()
    assert tokens.name_of(token) is None

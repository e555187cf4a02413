"""The pages that people see: they and their files come from the server alone."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from genlab.serving.pages import add_pages


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    api = FastAPI(docs_url=None, redoc_url=None)
    add_pages(api)
    with TestClient(api) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_and_all_that_it_names_are_served(client: TestClient, path: str) -> None:
    page = client.get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'self';" in policy
    assert "img-src 'self' blob: data:;" in policy
    names = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(names) >= 3
    for name in names:
        if name != "docs":
            file = client.get(f"/{name}")
            assert file.status_code == 200, name
            kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[name.rpartition(".")[2]]
            assert file.headers["content-type"].partition(";")[0] == kind
            for imported in re.findall(r'from "./([^"]+)"', file.text) if name.startswith("page/") else ():
                assert client.get(f"/page/{imported}").status_code == 200


def test_nothing_comes_twice_that_has_not_changed(client: TestClient) -> None:
    first = client.get("/page/main.js")
    again = client.get("/page/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/page/../pages.py", "/page/%2e%2e/pages.py", "/page/", "/page/index.html"])
def test_there_are_no_other_files(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_no_file_of_ours_names_another_host() -> None:
    for file in (Path(__file__).parents[2] / "genlab/serving/page").iterdir():
        named = re.findall(r"(?:https?:)?//[a-z][^\s\"']+", file.read_text())
        assert [url for url in named if "www.w3.org" not in url] == []

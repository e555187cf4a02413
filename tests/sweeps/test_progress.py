"""The files of a sweep while its trials run."""

import threading
from pathlib import Path

import pytest
from upath import UPath

from genlab.core.storage import locate
from genlab.recipes.vae import VAEConfig
from genlab.sweeps.page import SweepPage
from genlab.sweeps.progress import Results
from genlab.sweeps.space import Space


def test_files_that_could_not_be_written_are_written_when_the_next_trial_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed, written = threading.Event(), threading.Event()

    def write(page: SweepPage) -> UPath:
        if failed.is_set():
            written.set()
            return page.folder
        failed.set()
        raise ValueError("no such distribution")

    monkeypatch.setattr(SweepPage, "write", write)
    space = Space("vae", {"objective.beta": [0.5, 1.0]}, "val/neg_elbo", "min")
    with Results("betas", locate(tmp_path), space, VAEConfig(), []) as results:
        for happens in (failed, written):
            results.trial_ended("trial")
            assert happens.wait(30)
    assert "sweep.html and results.parquet could not be brought up to date (ValueError: no such distribution)" in (
        capsys.readouterr().out
    )

"""The report of tiny runs: what a reader finds in it, finished or not, and when there is none."""

import dataclasses
import json
import math
import re
import shutil
from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.cli.report import main
from genlab.core.config import flatten
from genlab.core.errors import DataError, RunError
from genlab.core.storage import locate, write_atomic
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.sources.synthetic import counterparts
from genlab.metrics.image import psnr
from genlab.models.cyclegan import CycleGAN
from genlab.models.vae import VAEArchitecture
from genlab.recipes.cyclegan import CycleGANConfig, CycleGANData, CycleGANModel
from genlab.recipes.options import ImageData, Run
from genlab.recipes.vae import VAEConfig
from genlab.reports.curves import loss_figure
from genlab.reports.cyclegan import PANELS
from genlab.reports.family import family_report
from genlab.reports.page import Section, Table
from genlab.reports.report import _last_pictures, make_report
from genlab.reports.run import RunRecord
from genlab.store import model_directory
from genlab.training.launch import launch


@pytest.fixture(scope="module")
def cyclegan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run of four steps on 32x32 scenes."""
    root = tmp_path_factory.mktemp("cyclegan")
    for domain in ("a", "b"):
        source = f"synthetic:scenes-{domain}"
        ingest(IngestConfig(source, str(root / domain), size=32, count=24, test_fraction=0.3, seed=5))
    config = CycleGANConfig(
        run=Run(
            name="tiny", storage=str(root), steps=4, batch=2, workers=0, threads=1, log_every=1, figures_every=2, seed=3
        ),
        data=CycleGANData(a=str(root / "a"), b=str(root / "b")),
        model=CycleGANModel(width=4, discriminator_width=4),
    )
    launch("cyclegan", config)
    make_report(str(root / "tiny"))
    return root / "tiny"


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run of two epochs on drawn digits."""
    root = tmp_path_factory.mktemp("vae")
    ingest(IngestConfig("synthetic:digits", str(root / "digits"), count=60, test_fraction=0.4))
    config = VAEConfig(
        run=Run(name="digits-run", storage=str(root), epochs=2, batch=12, workers=0, threads=1, log_every=1),
        data=ImageData(images=str(root / "digits")),
        model=VAEArchitecture(channels=(4,), hidden=4),
    )
    launch("vae", config)
    make_report(str(root / "digits-run"))
    return root / "digits-run"


@pytest.fixture
def copy(cyclegan: Path, tmp_path: Path) -> Path:
    """A run directory to break."""
    shutil.copytree(cyclegan, tmp_path / "tiny", ignore=shutil.ignore_patterns("report*", "scores.json"))
    return tmp_path / "tiny"


def page(run: Path) -> str:
    return (run / "report.html").read_text()


def inlined(html: str) -> Iterator[bytes]:
    for data in re.findall(r'src="data:image/png;base64,([^"]*)"', html):
        yield b64decode(data, validate=True)


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("family", ["cyclegan", "vae"])
def test_the_page_needs_no_other_file(family: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(family)
    html = page(run)
    references = re.findall(r'(?:src|srcset|href)="([^"]*)"', html)
    assert references
    assert all(reference.startswith("data:image/png;base64,") for reference in references)
    assert not re.search(r"url\(|@import|<script|<link", html)
    stored = {file.read_bytes() for file in (run / "figures" / "report").iterdir()}
    assert stored <= set(inlined(html))
    for picture in inlined(html):
        Image.open(BytesIO(picture)).verify()


def test_scores_are_those_of_the_model_on_the_held_out_scenes(cyclegan: Path) -> None:
    scores = json.loads((cyclegan / "scores.json").read_text())
    assert scores["step"] == 4
    model = model_directory.load(str(cyclegan / "model"))
    assert isinstance(model, CycleGAN)
    html = page(cyclegan)
    for direction, source in (("a_to_b", "a"), ("b_to_a", "b")):
        shards = ShardSet.open(str(cyclegan.parent / source)).split("test")
        rows = np.arange(len(shards))
        images = torch.from_numpy(shards.read(rows).image)
        hidden = counterparts(shards, rows)
        assert hidden is not None
        truth = torch.from_numpy(hidden)
        score = scores["translation"][direction]
        assert score["images"] == len(rows) > 0
        assert score["split"] == "test"
        assert score["data"] == {"path": str(cyclegan.parent / source), "checksum": shards.checksum}
        before, after = psnr(images, truth).mean().item(), psnr(model.translate(images, direction), truth).mean().item()
        assert score["input_psnr"] == pytest.approx(before, abs=1e-9)
        assert score["translated_psnr"] == pytest.approx(after, abs=1e-3)  # batches may be cut differently
        assert score["gain"] == score["translated_psnr"] - score["input_psnr"]
        assert score["curve_psnr"] > score["input_psnr"]
        for name in ("input_psnr", "translated_psnr", "curve_psnr"):
            assert f"<td>{score[name]:.2f}</td>" in html


def test_the_scores_that_a_sweep_may_count_on_are_those_there_are(cyclegan: Path) -> None:
    report = family_report("cyclegan")
    assert report is not None
    manifests = {domain: shards.manifest for domain, shards in RunRecord.read(str(cyclegan)).held_out()[1].items()}
    scores = flatten(json.loads((cyclegan / "scores.json").read_text()))
    found = {name for name, value in scores.items() if isinstance(value, float)}
    assert set(report.scores(manifests)) == found
    manifests["b"] = dataclasses.replace(manifests["b"], origin=dataclasses.replace(manifests["b"].origin, kind="zip"))
    assert set(report.scores(manifests)) == {name for name in found if ".a_to_b." in name}


def test_the_grid_shows_images_translations_cycles_identity_and_truth(cyclegan: Path) -> None:
    """Each row of the stored sheet, cut out again, is what its label says."""
    shards = ShardSet.open(str(cyclegan.parent / "a")).split("test")
    count = min(6, len(shards))
    images = shards.read(np.arange(count)).image
    sheet = np.asarray(Image.open(cyclegan / "figures" / "report" / "a_to_b.png"))
    cells = [
        [sheet[2 + 34 * row :, 2 + 34 * column :][:32, :32, :3] for column in range(count)]
        for row in range((len(sheet) - 2) // 34)
    ]
    model = model_directory.load(str(cyclegan / "model"))
    assert isinstance(model, CycleGAN)
    translated = model.translate(torch.from_numpy(images), "a_to_b")
    cycled = model.translate(translated, "b_to_a")
    same = model.translate(torch.from_numpy(images), "b_to_a")
    assert len(cells) == 5
    np.testing.assert_array_equal(cells[0], images)
    np.testing.assert_allclose(np.array(cells[1], int), translated.int(), atol=1)
    np.testing.assert_allclose(np.array(cells[2], int), cycled.int(), atol=1)
    np.testing.assert_allclose(np.array(cells[3], int), same.int(), atol=1)
    np.testing.assert_array_equal(cells[4], counterparts(shards, np.arange(count)))
    assert "<li>a</li><li>a → b</li><li>a → b → a</li><li>b → a of a</li><li>true b</li>" in page(cyclegan)


@pytest.mark.parametrize("direction", ["a_to_b", "b_to_a"])
def test_the_same_rows_are_shown_as_training_drew_them(direction: str, cyclegan: Path) -> None:
    """The sheets of steps 2 and 4 are pictures of their own, each under its title."""
    folder, html = cyclegan / "figures" / "report", page(cyclegan)
    assert f"{direction.replace('_to_', ' → ')}: the same rows as above" in html
    epochs = re.findall(
        rf'<h3>(epoch [0-9.]+)</h3>\s*<div>\s*<div class="scroll"><img [^>]*alt="{direction}-epoch', html
    )
    for epoch, step in zip(epochs, (2, 4), strict=True):
        shown = np.asarray(Image.open(folder / f"{direction}-{epoch.replace(' ', '-')}.png"))
        drawn = np.asarray(Image.open(cyclegan / "figures" / f"step-{step:08d}" / f"{direction}.png"))
        images = shown[..., 3] == 255
        assert images.mean() > 0.8
        np.testing.assert_array_equal(shown[images, :3], drawn[images])


def test_pictures_of_steps_close_to_each_other_have_titles_of_their_own(copy: Path) -> None:
    """As in a run that ended soon, of a large data set; its name is no pattern in an object store."""
    remote = locate("memory://runs/tiny[1]")
    for file in (file for file in copy.rglob("*") if file.is_file()):
        write_atomic(remote / file.relative_to(copy).as_posix(), file.read_bytes())
    run = RunRecord.read(remote)
    run = dataclasses.replace(run, train=[*run.train[:-1], run.train[-1] | {"epoch": 0.004}])
    shown = run.pictures("a_to_b")
    assert list(shown) == ["epoch 0.002", "epoch 0.004"]
    for pixels, step in zip(shown.values(), (2, 4), strict=True):
        drawn = Image.open(copy / "figures" / f"step-{step:08d}" / "a_to_b.png")
        np.testing.assert_array_equal(pixels, np.asarray(drawn))
    assert [picture.name for picture in _last_pictures(run).sections[0].figures[0].pictures] == ["a_to_b"]


def test_losses_that_were_not_computed_have_no_panel(cyclegan: Path) -> None:
    run, panels = RunRecord.read(str(cyclegan)), PANELS

    def drawn(missing: str) -> list[str]:
        lines = [{name: value for name, value in line.items() if not name.startswith(missing)} for line in run.train]
        return [picture.name for picture in loss_figure(dataclasses.replace(run, train=lines), panels).pictures]

    assert drawn("identity_a") == ["loss-adversarial", "loss-cycle", "loss-identity", "loss-discriminator"]
    assert drawn("identity_") == ["loss-adversarial", "loss-cycle", "loss-discriminator"]


def test_the_head_tells_data_config_and_attempts(cyclegan: Path) -> None:
    html = page(cyclegan)
    for domain in ("a", "b"):
        shards = ShardSet.open(str(cyclegan.parent / domain))
        splits = shards.manifest.splits
        assert f"train {splits['train']:,}, test {splits['test']:,}" in html
        assert shards.checksum[:12] in html
        assert str(cyclegan.parent / domain) in html
    assert '<tr class="marked"><td>run.seed</td><td>3</td><td>0</td></tr>' in html
    assert "<tr><td>objective.lambda_cycle</td><td>10.0</td><td></td></tr>" in html
    assert "<tr><td>start</td>" in html
    assert torch.__version__ in html


def test_an_unfinished_run_says_so_and_shows_what_training_drew(copy: Path) -> None:
    """Even one whose losses are no longer numbers."""
    shutil.rmtree(copy / "model")
    first, second, *_ = (json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines())
    lines = first, second | {"cycle_a": math.nan, "cycle_b": math.inf}
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    make_report(str(copy))
    html = page(copy)
    assert "it is at step 2 of 4" in html
    assert "no trained model yet" in html
    assert "Translation score" not in html
    assert not (copy / "scores.json").exists()
    drawn = copy / "figures" / "step-00000004" / "a_to_b.png"
    pictures = [np.asarray(Image.open(BytesIO(data))) for data in inlined(html)]
    assert any(np.array_equal(picture, np.asarray(Image.open(drawn))) for picture in pictures)


def rewrite_metrics(run: Path, **values: float) -> None:
    """Make the run's metrics 40 lines, the last ten of which have ``values``."""
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    shown = [line | {"step": n + 1, "images": 2 * n + 2} | (values if n >= 30 else {}) for n in range(40)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in shown))


@pytest.mark.slow
def test_warning_signs_stand_at_the_head_of_an_unfinished_run_too(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copy / "model")
    rewrite_metrics(copy)
    main([str(copy)])
    assert not re.search("always wins|rises|mode collapse", page(copy))
    rewrite_metrics(copy, discriminator_b=0.001, cycle_b=9.0)
    capsys.readouterr()
    main([str(copy)])
    printed = capsys.readouterr().out
    for text in (page(copy), printed):
        assert "The discriminator of domain b always wins" in text
        assert "its loss averaged 0.001 over the last quarter" in text
        assert "The cycle loss b → a → b rises: it averaged 9 over" in text
        assert "domain a" not in text
        assert "a → b → a rises" not in text
    config = json.loads((copy / "config.json").read_text())["config"]
    rewrite(copy / "config.json", config=config | {"objective": config["objective"] | {"lambda_cycle": 0.0}})
    make_report(str(copy))
    assert "rises" not in page(copy), "nobody asked for small cycle losses"


@pytest.mark.slow
def test_a_model_that_makes_one_image_of_all_is_warned_of(copy: Path) -> None:
    model = model_directory.load(str(copy / "model"))
    assert isinstance(model, CycleGAN)
    for tensor in model.a_to_b.parameters():
        tensor.zero_()
    provenance = model_directory.describe(str(copy / "model"))["provenance"]
    model_directory.save(str(copy / "model"), model, model_directory.Provenance(**provenance))
    make_report(str(copy))
    assert "Translations a → b are alike (mode collapse): two of them differ by 0.0 levels" in page(copy)


@pytest.mark.slow
def test_an_unknown_family_gets_head_curves_and_what_its_model_can_do(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())["config"]
    rewrite(copy / "config.json", family="toy", config=config | {"note": "<script>alert(1)</script>"})
    make_report(str(copy))
    html = page(copy)
    assert "Translation score" not in html
    assert "From a to b: held-out images" in html
    drawn = {"loss-cycle_a.png", "learning-rate.png", "speed.png", "data-wait.png", "a_to_b.png"}
    assert drawn <= {file.name for file in (copy / "figures/report").iterdir()}
    assert "<td>&lt;script&gt;alert(1)&lt;/script&gt;</td>" in html


def test_a_run_whose_data_has_gone_and_whose_model_is_old_says_so(copy: Path, tmp_path: Path) -> None:
    data = json.loads((copy / "config.json").read_text())["data"]
    gone = str(tmp_path / "gone")
    rewrite(copy / "config.json", data=data | {"b": data["b"] | {"path": gone}})
    provenance = json.loads((copy / "model" / "genlab.json").read_text())["provenance"]
    rewrite(copy / "model" / "genlab.json", provenance=provenance | {"step": 2})
    make_report(str(copy))
    html = page(copy)
    assert f"could not be tried on the data: {gone}: not a data set" in html
    assert "The trained model shown here is that of step 2." in html
    assert not (copy / "scores.json").exists()


def test_data_that_was_changed_since_is_refused(copy: Path) -> None:
    data = json.loads((copy / "config.json").read_text())["data"]
    rewrite(copy / "config.json", data=data | {"a": data["a"] | {"path": data["b"]["path"]}})
    with pytest.raises(DataError, match="no longer the data set that tiny was trained on"):
        RunRecord.read(str(copy)).held_out()


@pytest.mark.slow
def test_the_command_reports_a_remote_run_in_its_place(cyclegan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remote = locate("memory://runs/tiny")
    for file in (file for file in cyclegan.rglob("*") if file.is_file() and "report" not in str(file)):
        (remote / file.relative_to(cyclegan).as_posix()).write_bytes(file.read_bytes())
    (remote / "scores.json").unlink()
    main(["memory://runs/tiny"])
    printed = capsys.readouterr().out
    assert f"report: {remote}/report.html" in printed
    scores = json.loads((remote / "scores.json").read_text())
    assert scores == json.loads((cyclegan / "scores.json").read_text())
    for row in scores["translation"].values():
        assert f"{row['translated_psnr']:.2f}" in printed
        assert f"{row['curve_psnr']:.2f}" in printed
    grid = Path("figures", "report", "a_to_b.png")
    assert (remote / grid.as_posix()).read_bytes() == (cyclegan / grid).read_bytes()
    assert "Translation score" in (remote / "report.html").read_text()


def test_names_of_classes_are_printed_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though a terminal would take them for its own markup."""
    table = Table("Of [red] ones", ("class", "[b]"), (("[dog] small", "1"), ("a [/b]", "2")))
    report = SimpleNamespace(
        run=SimpleNamespace(directory=locate(tmp_path)),
        notes=("see [/] there",),
        model_report=SimpleNamespace(sections=(Section("Classes", tables=(table,)),)),
    )
    monkeypatch.setattr("genlab.cli.report.compose", lambda run: report)
    monkeypatch.setattr("genlab.cli.report.write", lambda report: report.run.directory / "report.html")
    main([str(tmp_path)])
    printed = capsys.readouterr().out
    for text in ("Of [red] ones", "[b]", "[dog] small", "a [/b]", "see [/] there"):
        assert text in printed


def test_a_run_that_cannot_be_written_to_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "figures" / "report").touch()
    with pytest.raises(SystemExit) as ended:
        main([str(copy)])
    assert ended.value.code == 2
    assert f"error: {copy}: cannot be written (" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path)])
    assert ended.value.code == 2
    assert f"{tmp_path}: not a run directory (no config.json)" in capsys.readouterr().err


def test_a_run_without_metrics_is_refused(copy: Path) -> None:
    (copy / "metrics.jsonl").unlink()
    with pytest.raises(RunError, match=r"metrics\.jsonl: no training metrics yet"):
        make_report(str(copy))
    assert not (copy / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "titles", "drawn"),
    [("vae", ["Samples", "Reconstructions"], "latent-scatter"), ("cyclegan", ["Translations"], "")],
)
def test_a_family_without_a_report_of_its_own_shows_what_its_model_can_do(
    family: str,
    titles: list[str],
    drawn: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(request.getfixturevalue(family), run, ignore=shutil.ignore_patterns("report*"))
    monkeypatch.setattr("genlab.reports.report.family_report", lambda family: None)
    make_report(str(run))
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", page(run))
    assert headings[: len(titles)] == titles
    assert ("Pictures" in headings) == bool(drawn), "those that training drew, if there are others"
    assert not drawn or (run / "figures" / "report" / f"{drawn}.png").exists()

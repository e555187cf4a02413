"""Evaluations side by side: kept in files, and ranked only where that is fair."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.cli.compare import main
from genlab.core.errors import RunError
from genlab.core.storage import locate
from genlab.evaluation.compare import Row, compare, settings_lines
from genlab.evaluation.measurements import Evaluation, Measurement, mean_measurement
from tests.evaluation.support import save, vae

FID = Measurement("FID", 12.0, {"data": "a" * 64, "samples": 1000}, better="lower", interval=(11.0, 13.0))
SHARE = Measurement("recognised", 0.97, {"data": "a" * 64}, "share", "higher", (0.96, 0.98))
KL = Measurement("KL", 5.0, {"data": "a" * 64}, "nats", None, (4.9, 5.1))


def evaluation(name: str, **measurements: Measurement) -> Evaluation:
    return Evaluation(
        name, {"path": f"/runs/{name}/model", "family": "vae", "step": 1, "weights": "f" * 64}, measurements
    )


def changed(measurement: Measurement, value: float, **settings: Any) -> Measurement:
    low, high = measurement.interval or (0, 0)
    shift = value - measurement.value
    return dataclasses.replace(
        measurement, value=value, interval=(low + shift, high + shift), settings=measurement.settings | settings
    )


def per_image(mean: float, noise: float, seed: int) -> Measurement:
    """A mean over 100 images, which differ by far more than ``noise``."""
    easy = 10 * torch.rand(100, generator=torch.Generator().manual_seed(0))
    own = noise * torch.randn(100, generator=torch.Generator().manual_seed(seed))
    return mean_measurement("error", mean + easy + own - own.mean(), {"data": "a" * 64}, "", "lower")


def test_the_better_is_marked_beyond_its_interval() -> None:
    one = evaluation("one", fid=FID, share=SHARE, kl=KL)
    two = evaluation("two", fid=changed(FID, 9.9), share=changed(SHARE, 0.94), kl=changed(KL, 9))
    assert [row.best for row in compare([one, two])] == [1, 0, None]
    close = evaluation("close", fid=changed(FID, 10.6), share=changed(SHARE, 0.96))
    assert [row.best for row in compare([one, close])] == [None, None, None]
    assert [row.best for row in compare([one, two, close])] == [None, None, None]
    assert not any(row.note for row in compare([one, two, close]))


def test_means_over_the_same_images_are_compared_image_by_image() -> None:
    """A difference that is lost between two intervals is found, to a tenth of their width, and its sign is kept."""
    one, two = per_image(0, 0.2, seed=1), per_image(0.2, 0.2, seed=2)
    (row,) = compare([evaluation("one", error=one), evaluation("two", error=two)])
    assert row.best == 0
    assert row.paired
    assert row.difference is not None
    assert row.difference.value == pytest.approx(0.2)
    assert row.difference.half_width is not None
    assert one.half_width is not None
    assert row.difference.half_width < one.half_width / 10
    apart = [dataclasses.replace(measurement, values=None) for measurement in (one, two)]
    (row,) = compare([evaluation(str(number), error=measurement) for number, measurement in enumerate(apart)])
    assert row.best is None
    assert not row.paired
    assert row.difference is not None
    assert row.difference.half_width == pytest.approx(math.hypot(*(one.half_width or 0 for one in apart)))


def test_many_comparisons_are_corrected_for() -> None:
    """A table of 50 pairs of equal measurements seldom calls one of them better; without the correction each would."""
    draws = torch.randn(20, 2, 50, 30, generator=torch.Generator().manual_seed(0))

    def table(columns: Tensor) -> list[Row]:
        pairs = [
            evaluation(
                str(side), **{f"m{n}": mean_measurement(f"m{n}", row, {}, "", "lower") for n, row in enumerate(column)}
            )
            for side, column in enumerate(columns)
        ]
        return compare(pairs)

    assert sum(any(row.best is not None for row in table(columns)) for columns in draws) <= 3
    close = evaluation("one", fid=FID), evaluation("two", fid=changed(FID, 10.3))
    assert compare(close)[0].best == 1, "p is 2% and there is one test"
    assert (
        compare(
            [dataclasses.replace(one, measurements=one.measurements | {"kid": FID, "share": SHARE}) for one in close]
        )[0].best
        is None
    ), "and with three it does not do"


def test_a_measurement_without_an_interval_is_not_ranked_and_it_says_so() -> None:
    plain = dataclasses.replace(FID, interval=None)
    (row,) = compare([evaluation("one", fid=plain), evaluation("two", fid=dataclasses.replace(plain, value=1))])
    assert (row.best, row.note) == (None, "not ranked: without an interval")


def test_a_gpu_or_another_pytorch_computes_the_same() -> None:
    gpu = changed(FID, 5, device="cuda", torch="9.9")
    assert compare([evaluation("one", fid=FID), evaluation("two", fid=gpu)])[0].best == 1
    coarse = changed(FID, 5, precision="tf32")
    assert "differ in precision" in compare([evaluation("one", fid=FID), evaluation("two", fid=coarse)])[0].note


def test_measurements_of_other_settings_are_not_ranked_and_it_says_in_what() -> None:
    one = evaluation("one", fid=FID, share=SHARE)
    two = evaluation("two", fid=changed(FID, 5, samples=500, data="b" * 64), share=changed(SHARE, 0.5))
    fid, share = compare([one, two])
    assert fid.best is None
    assert fid.note == "not ranked, the settings differ in data (aaaaaaaaaaaa, bbbbbbbbbbbb); samples (1,000, 500)"
    assert share.best == 0


def test_a_measurement_that_only_some_models_are_ranked_by_says_why_in_either_order() -> None:
    accuracy = changed(SHARE, 0.97, told_class="no")
    told = dataclasses.replace(changed(SHARE, 0.4, told_class="yes"), better=None)
    for pair in ((accuracy, told), (told, accuracy)):
        (row,) = compare([evaluation(str(number), share=measurement) for number, measurement in enumerate(pair)])
        assert row.best is None
        assert row.note.startswith("not ranked, the settings differ in told_class")
    assert compare([evaluation("one", share=told), evaluation("two", share=changed(told, 0.9))])[0].best is None


def test_a_measurement_that_is_not_to_be_trusted_is_not_ranked() -> None:
    doubtful = dataclasses.replace(changed(FID, 1), caution="far too few")
    (row,) = compare([evaluation("one", fid=FID), evaluation("two", fid=doubtful)])
    assert (row.best, row.note) == (None, "not ranked: far too few")


def test_a_measurement_that_one_lacks_is_ranked_among_the_others() -> None:
    three = [evaluation("one", fid=FID), evaluation("two"), evaluation("three", fid=changed(FID, 3))]
    (row,) = compare(three)
    assert row.measurements[1] is None
    assert row.best == 2


def test_values_are_shown_to_the_second_digit_of_their_uncertainty() -> None:
    assert str(dataclasses.replace(FID, value=149.1345, interval=(148.6445, 149.6245))) == "149.13 ± 0.49"
    assert str(dataclasses.replace(FID, value=0.01236, interval=(0.01226, 0.01246))) == "0.01236 ± 0.00010"
    assert str(dataclasses.replace(FID, value=12, interval=None)) == "12"


def test_what_all_measurements_share_is_said_once() -> None:
    lines = settings_lines({"fid": FID, "share": SHARE})
    assert lines == ["all: data aaaaaaaaaaaa", "fid: samples 1,000"]


def test_the_command_reads_files_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation("one", fid=FID).save(locate(tmp_path / "one.json"))
    evaluation("two", fid=changed(FID, 5)).save(locate(tmp_path / "two" / "evaluation.json"))
    assert Evaluation.load(str(tmp_path / "one.json")) == evaluation("one", fid=FID)
    save(tmp_path / "two", vae(), tmp_path / "data")
    assert Evaluation.load(str(tmp_path / "two" / "model")) == Evaluation.load(str(tmp_path / "two"))
    main([str(tmp_path / "one.json"), str(tmp_path / "two")])
    printed = capsys.readouterr().out
    assert "12.0 ± 1.0" in printed
    assert "5.0 ± 1.0 *" in printed
    assert "-7.0 ± 1.4" in printed
    assert "Holm" in printed


def test_what_is_no_evaluation_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.json"
    evaluation("one", fid=FID).save(locate(good))
    for content, message in (
        ({"format": "other"}, "not an evaluation"),
        (json.loads(good.read_text()) | {"version": 2}, "evaluation format 2"),
        (json.loads(good.read_text()) | {"figures": {"fid": 12}}, "damaged"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps(content))
        with pytest.raises(RunError, match=message):
            Evaluation.load(str(tmp_path / "bad.json"))
    for arguments in ([str(good)], [str(good), str(tmp_path / "nothing.json")]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert "give at least two" in printed
    assert "nothing.json: no such file" in printed

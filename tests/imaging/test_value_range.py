import numpy as np
import pytest

from genlab.core.errors import ConfigError
from genlab.imaging.value_range import ValueRange, parse_range, range_text, to_8_bits


@pytest.mark.parametrize(
    ("text", "value_range"), [("0:4095", (0, 4095)), ("-1024:3071", (-1024, 3071)), ("-1.5:1e3", (-1.5, 1000))]
)
def test_a_range_is_read_and_written(text: str, value_range: ValueRange) -> None:
    assert parse_range(text) == value_range
    assert parse_range(range_text(value_range)) == value_range


def test_a_range_is_written_in_short_and_without_loss() -> None:
    assert range_text((0.0, 4095.0)) == "0:4095"
    assert range_text((0.1, float(np.float32(0.3)))) == "0.1:0.30000001192092896"


@pytest.mark.parametrize("text", ["", "auto", "4095", "0:", ":4095", "0:0", "5:1", "0:nan", "0:inf", "0-4095", "1:2:3"])
def test_what_is_no_range_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"LO:HI with LO less than HI, as in 0:4095, or auto"):
        parse_range(text)


def test_values_are_rounded_to_the_nearest_and_clipped() -> None:
    assert to_8_bits(np.array([-1, 0, 1, 2, 3, 510, 511]), (0, 510)).tolist() == [0, 0, 0, 1, 2, 255, 255]
    assert to_8_bits(np.array([0.0, 0.4, 0.6, 1.0]), (0, 255)).tolist() == [0, 0, 1, 1]

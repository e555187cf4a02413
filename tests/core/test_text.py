import pytest

from genlab.core.text import counted, number_text


def test_a_number_comes_with_the_right_form_of_its_noun() -> None:
    assert [counted(number, "image") for number in (0, 1, 2, 1200)] == [
        "0 images",
        "1 image",
        "2 images",
        "1,200 images",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (0.0000278, "0.0000278"),
        (0.123456, "0.1235"),
        (2.0, "2"),
        (160.0, "160"),
        (999.96, "1,000"),
        (1234.5678, "1,235"),
        (123456.7, "123,457"),
    ],
)
def test_small_and_large_numbers_are_written_without_an_exponent(number: float, text: str) -> None:
    assert number_text(number) == text

from genlab.core.text import counted


def test_a_number_comes_with_the_right_form_of_its_noun() -> None:
    assert [counted(number, "image") for number in (0, 1, 2, 1200)] == [
        "0 images",
        "1 image",
        "2 images",
        "1,200 images",
    ]

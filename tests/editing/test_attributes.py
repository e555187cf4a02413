"""What classifiers read of pictures, on axes."""

import torch

from genlab.editing.attributes import AttributeReader
from genlab.models.classifier import Classifier, ClassifierArchitecture, Target


def test_pictures_and_their_mirror_images_are_read_the_same_where_that_is_asked_for() -> None:
    torch.manual_seed(0)
    architecture = ClassifierArchitecture(width=2, features=4, classes=2, targets=(Target("age", (), 30.0, 20.0),))
    model = Classifier((8, 8, 1), architecture).eval()
    columns = {"age": "age", "gender": "label"}
    pictures = torch.randint(0, 256, (3, 8, 8, 1), dtype=torch.uint8)
    plain = AttributeReader(model, columns, ("man", "woman"))
    assert not torch.allclose(plain(pictures), plain(pictures.flip(2)))
    both = AttributeReader(model, columns, ("man", "woman"), mirrored=True)
    assert torch.allclose(both(pictures), both(pictures.flip(2)))
    assert torch.allclose(both(pictures), (plain(pictures) + plain(pictures.flip(2))) / 2)

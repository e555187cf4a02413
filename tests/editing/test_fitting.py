"""Edits fitted to a picture, of a generator whose attributes are known functions of w."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from genlab.editing.edits import Start, edit_by_steps
from genlab.editing.fitting import BEYOND, fit
from genlab.store.directions import Direction
from tests.editing.support import AGE, AXES, GENDER, KnownGenerator, read

# A step is 20 years at 40, less elsewhere; these say ten. It changes what is read as gender, too.
AGES = Direction(AXES[0], "linear", tuple(AGE.tolist()), "", 0, 0.0, (-3.0, 0.0, 3.0), (-30.0, 0.0, 30.0), None, ())
GENDERS = Direction(AXES[1], "linear", tuple(GENDER.tolist()), "", 0, 0.0, (-3.0, 0.0, 3.0), (-6.0, 0.0, 6.0), None, ())


def changed(start: Start, directions: Sequence[Direction], steps: Tensor) -> list[float]:
    """How much age and log-odds of gender are read otherwise."""
    model = KnownGenerator()
    before, after = (read(edit_by_steps(model, start, directions, some[None])) for some in (0 * steps, steps))
    return (after - before)[0, :2].tolist()


def test_more_than_a_direction_was_calibrated_for_is_tried() -> None:
    start = Start(torch.tensor([[0.5, -3.0, 0.3, 0.0, 0.0, 1.0]]), (), {})  # log-odds of -8.4, 4 nats a step
    steps = fit(KnownGenerator(), start, [GENDERS, AGES], read, (1, 0), (9.0, 0.0), (6.0, 30.0))
    age, gender = changed(start, [GENDERS, AGES], steps)
    assert gender == pytest.approx(9.0, abs=0.04 * 6)
    assert age == pytest.approx(0, abs=0.04 * 30)


@pytest.mark.parametrize("amount", [-20.0, -8.0, 15.0])
def test_a_picture_changes_by_what_is_asked_for_and_other_attributes_stay(amount: float) -> None:
    start = Start(torch.tensor([[0.5, -0.7, 0.3, 0.0, 0.0, 1.0]]), (), {})
    alone = torch.tensor([AGES.steps_for(amount)])
    assert abs(changed(start, [AGES], alone)[0] - amount) > 3
    steps = fit(KnownGenerator(), start, [AGES, GENDERS], read, (0, 1), (amount, 0.0), (30.0, 6.0))
    age, gender = changed(start, [AGES, GENDERS], steps)
    assert age == pytest.approx(amount, abs=0.04 * 30)
    assert gender == pytest.approx(0, abs=0.04 * 6)
    assert abs(changed(start, [AGES], alone)[1]) > 1


def test_a_picture_that_cannot_be_moved_as_far_is_moved_as_far_as_it_goes() -> None:
    start = Start(torch.tensor([[-1.5, 0.0, 0.0, 0.0, 0.0, 0.0]]), (), {})  # read as 15 years old; none is below 0
    steps = fit(KnownGenerator(), start, [AGES], read, (0,), (-20.0,), (30.0,))
    assert -3 * BEYOND <= float(steps) < AGES.steps_for(-20)
    assert -15 < changed(start, [AGES], steps)[0] < -13


def test_no_change_is_no_step() -> None:
    start = Start(torch.tensor([[0.5, -0.7, 0.3, 0.0, 0.0, 1.0]]), (), {})
    assert fit(KnownGenerator(), start, [AGES, GENDERS], read, (0, 1), (0.0, 0.0), (30.0, 6.0)).tolist() == [0.0, 0.0]

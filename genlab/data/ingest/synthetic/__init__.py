"""Sample images drawn from a seed, as many as wanted and without a download: landscapes and handwritten digits.

In: a seed and the number of a picture. Out: uint8 pixels, the label of a digit, and the attributes of a scene. Nothing
here reads or writes a data set. Read ``digits`` first; then ``scenes``. ``scenes`` draws a landscape, by day for domain
a and by night for domain b; ``digits`` draws digits in the format of MNIST; ``random`` gives both their random numbers.
"""

from genlab.data.ingest.synthetic.digits import draw_digit
from genlab.data.ingest.synthetic.scenes import SEASON_NAMES, Domain, SceneAttributes, draw_scene, scene_attributes

__all__ = ["SEASON_NAMES", "Domain", "SceneAttributes", "draw_digit", "draw_scene", "scene_attributes"]

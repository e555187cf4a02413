"""Sample data drawn from a seed: paired landscapes by day and by night, handwritten digits. No download, any size."""

from genlab.data.ingest.synthetic.digits import draw_digit
from genlab.data.ingest.synthetic.scenes import Domain, draw_scene

__all__ = ["Domain", "draw_digit", "draw_scene"]

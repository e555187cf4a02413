"""A model on a data set: figures that carry what they were measured with."""

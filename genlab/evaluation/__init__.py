"""Evaluation: a trained model and held-out images come in; measurements that can be compared come out.

Each measurement carries its settings (all that it depends on besides the model) and a 95% interval. Nothing is trained
here: a classifier, where one is needed, is handed in. Read ``evaluate`` first, which measures one model;
``measurements`` defines what comes out and its file. ``held_out`` holds the rows, ``latent_models`` and
``translation`` measure the families, ``features`` takes FID and KID in the features of ``extractors``. ``compare``
puts evaluations side by side, and ``checkpoint_evaluations`` keeps those that are made beside training.
"""

"""Evaluation: measurements of a trained model on held-out images.

In: a trained model, held-out images and, where one is needed, a trained classifier. Out: measurements that can be
compared, each with its settings (all that it depends on besides the model) and a 95% interval. Nothing is trained here.
Read ``evaluate`` first, which measures one model; then ``measurements``, which defines what comes out and its file.
``held_out`` holds the rows, ``samples``, ``latent_models``, ``style_models`` and ``translation`` measure what models
can do, ``features`` takes FID and KID in the features of ``extractors``, ``trained_classifier`` recognises classes.
``compare`` puts evaluations side by side, and ``checkpoint_evaluations`` keeps those that are made beside training.
"""

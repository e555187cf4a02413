"""Model directories, the form in which trained models are kept.

In: a model and its origin, or weights that another program trained. Out: a directory of ``genlab.json``,
``model.safetensors`` and a README card, which is found, checked and loaded again without running pickled code. Nothing
here knows how models are trained. Read ``model_directory`` first, which does all of this; then ``tensor_file``, which
writes every safetensors file, checkpoints included. ``probes`` checks that a loaded model makes the pictures that
training's own made. ``model_store`` is a folder of models with versions and ``aliases``. ``evaluation_file`` tells
whether an evaluation is of a directory's weights; ``directions`` keeps the ways along which attributes of its pictures
change, and ``projection_limits`` how far projections of held-out pictures are from these. ``generators`` loads the
StyleGANs that other networks are trained for. ``import_weights`` makes a model directory from the files of CycleGAN's
reference implementation, ``import_stylegan`` from those of StyleGAN2's, which ``safe_pickle`` reads.
"""

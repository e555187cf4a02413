"""Model directories, the form in which trained models are kept.

In: a model and its origin, or weights that another program trained. Out: a directory of ``genlab.json``,
``model.safetensors`` and a README card, which is found, checked and loaded again without running pickled code. Nothing
here knows how models are trained. Read ``model_directory`` first; then ``tensor_file``. ``model_directory`` does all of
this; ``import_weights`` makes a model directory from the files of CycleGAN's reference implementation; ``tensor_file``
writes every safetensors file, checkpoints included.
"""

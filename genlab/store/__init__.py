"""Model directories, the form in which trained models are kept. The input is a model and its origin, or weights that
another program trained; the output is a directory of ``genlab.json``, ``model.safetensors`` and a README card, which
is found, checked and loaded again without running pickled code. Read ``model_directory`` first; ``import_weights``
makes one of the files of CycleGAN's reference implementation, and ``tensor_file`` writes every safetensors file,
checkpoints included.
"""

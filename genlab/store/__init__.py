"""Model directories: how a trained model is saved, described, checked and loaded. Loading runs no pickled code.

In: a model and where it came from. Out: ``genlab.json``, ``model.safetensors`` and a README card. Read
``model_directory`` first; ``tensor_file`` writes every safetensors file, checkpoints included.
"""

"""Pictures from arrays: the same ones go to TensorBoard while a run trains and into its report."""

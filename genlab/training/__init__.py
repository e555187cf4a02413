"""How any recipe is trained: the loop, its session, checkpoints and tracking."""

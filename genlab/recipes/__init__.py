"""What one training step means for each family: its networks, losses, metrics and pictures. No Ray.

In: a batch on the device. Out: losses for the loop to minimise, and named scalars. Read ``recipe`` first, then ``vae``.
"""

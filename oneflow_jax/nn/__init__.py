"""The network in flax linen: a transformer over the slots of a `NoisyCanvas`."""

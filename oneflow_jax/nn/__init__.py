"""The network: functions of a view, in flax linen."""

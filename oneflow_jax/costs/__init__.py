"""Analytic cost models of networks: FLOPs, bytes, and latency on TPUs."""

"""Ahead-of-time compilation for TPUs (`--mode=aot`): memory, FLOPs and step time without TPUs."""

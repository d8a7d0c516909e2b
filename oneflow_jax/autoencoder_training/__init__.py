"""Autoencoder training and its evaluation by reconstruction quality."""

"""Distances between two sets of images, in the features of a network, with their protocol.

images ─▶ preparation ─▶ networks ─▶ features ─▶ frechet, kid, mind, manifolds ─▶ record
"""

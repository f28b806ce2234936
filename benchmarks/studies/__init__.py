"""Measurements that were made once, to decide something; no part of `make bench`."""

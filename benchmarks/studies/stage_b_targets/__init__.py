"""Compare training objectives of Stage B on small networks; the results are in docs/log.md."""

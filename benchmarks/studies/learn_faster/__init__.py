"""Compare recipes of Stages B and C by the compute they need for equal scores (docs/log.md)."""

"""What ``python -m atvg_jax.benchmark`` measures, and how."""

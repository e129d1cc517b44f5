"""Finished runs as tables, pictures and decisions."""

import warnings

# Optuna imports tqdm, which in a notebook asks for widgets that nothing here shows.
warnings.filterwarnings("ignore", message="IProgress not found")

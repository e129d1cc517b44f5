"""FSR: weakly supervised semantic segmentation by progressive feature self-reinforcement (arXiv 2312.08916)."""

__version__ = "0.1.0"

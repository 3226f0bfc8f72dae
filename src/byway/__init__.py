"""Byway: hierarchical, language-model-guided interest exploration for recommender systems."""

__version__ = "0.1.0"

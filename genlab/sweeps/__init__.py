"""Recipes under Ray Tune."""

"""Defines what users can set: options, presets, and the recipes of papers."""

"""What users can set: options, presets, and the recipes of papers."""

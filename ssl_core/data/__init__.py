"""Images and their order: where they come from, which one comes next, and how it reaches the device."""

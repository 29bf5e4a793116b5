"""How representations are evaluated."""

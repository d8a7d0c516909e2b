"""How a trained network makes documents."""

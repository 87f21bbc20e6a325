"""Static checks of this repository: layers, sizes, names and texts. Standard library only."""

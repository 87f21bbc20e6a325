"""Version of the package, and of the API that it follows."""

__version__ = "2.1.0"

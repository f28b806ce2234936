"""The preference study: people compare images of systems without knowing which is which."""

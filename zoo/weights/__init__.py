"""Where weights come from: the registry, the downloader, the store. Imports no torch."""

"""The window, the command line and the process entry point; the only package that knows Qt."""

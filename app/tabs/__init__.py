"""One module a tab; each offers `build()`, which lays out its components inside the open tab."""

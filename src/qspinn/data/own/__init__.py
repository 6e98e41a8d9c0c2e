"""Data of the user's own: files, arrays in memory, and items of other libraries, as the data sets of this package."""

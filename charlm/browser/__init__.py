"""The page without a server: its engine, its views, and the Python that puts them into a file or a static Space."""
